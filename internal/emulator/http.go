package emulator

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// largest body that is read as JSON; logs go by another way.
const maxBody = 16 << 20

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b)
}

// readJSON decodes the request's body; false means that it answered already. Field names compare without
// regard to case, as the runners write them in either.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v)
	if err != nil && !errors.Is(err, io.EOF) {
		githubError(w, http.StatusBadRequest, "Problems parsing JSON")
		return false
	}
	return true
}

// githubError answers as GitHub's REST API does.
func githubError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{
		"message":           message,
		"documentation_url": "https://docs.github.com/rest",
		"status":            strconv.Itoa(status),
	})
}

// serviceError answers as the broker and the run service do; source is theirs.
func serviceError(w http.ResponseWriter, status int, source, kind, message string) {
	writeJSON(w, status, map[string]any{
		"source": source, "errorKind": kind, "statusCode": status, "errorMessage": message,
	})
}

// vssError answers as the legacy services do; kind is the exception's class.
func vssError(w http.ResponseWriter, status int, kind, message string) {
	writeException(w, status, exception("GitHub.DistributedTask.WebApi", kind, message))
}

// runtimeError answers as the scale-set service does; kind is the exception's class.
func runtimeError(w http.ResponseWriter, status int, kind, message string) {
	writeException(w, status, runtimeException(kind, message))
}

func runtimeException(kind, message string) string {
	return exception("GitHub.Actions.Runtime.WebApi", kind, message)
}

func exception(assembly, kind, message string) string {
	b, err := json.Marshal(map[string]any{
		"$id": "1", "innerException": nil, "message": message,
		"typeName": assembly + "." + kind + ", " + assembly,
		"typeKey":  kind, "errorCode": 0, "eventId": 3000,
	})
	if err != nil { // texts and numbers
		panic(err)
	}
	return string(b)
}

func writeException(w http.ResponseWriter, status int, body string) {
	w.Header().Set("ActivityId", newGUID())
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// Kinds of tokens, by their claim "kind".
const (
	kindRunner     = "runner"
	kindJob        = "job"
	kindManagement = "management"
	kindBlob       = "blob"
	kindQueue      = "queue"

	kindInstallation = "installation"
)

// mint signs a token of ours. subject is the runner's client id, the job's GUID, the scope or the blob.
func (e *Emulator) mint(kind, subject string, life time.Duration, extra jwt.MapClaims) string {
	now := time.Now()
	claims := jwt.MapClaims{
		"kind": kind, "sub": subject, "iss": "https://vstoken.actions.githubusercontent.com", "aud": "vso",
		"jti": newGUID(), "iat": now.Unix(), "nbf": now.Add(-5 * time.Minute).Unix(), "exp": now.Add(life).Unix(),
	}
	for k, v := range extra {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(e.signingKey)
	if err != nil { // a map of texts and numbers always marshals, a []byte key always signs
		panic(err)
	}
	return signed
}

// subject returns whom a token of that kind names, or nothing if it is not one of ours or has expired.
func (e *Emulator) subject(token, kind string) string {
	claims := jwt.MapClaims{}
	options := []jwt.ParserOption{jwt.WithValidMethods([]string{"HS256"})}
	if kind != kindManagement || !e.opts.ScaleSets.NoExpiry {
		options = append(options, jwt.WithExpirationRequired())
	}
	_, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return e.signingKey, nil }, options...)
	if err != nil || claims["kind"] != kind {
		return ""
	}
	s, _ := claims.GetSubject()
	return s
}

// bearer returns the credential of a request, whichever scheme carries it.
func bearer(r *http.Request) string {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "bearer", "token", "remoteauth":
		return strings.TrimSpace(value)
	case "basic":
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return ""
		}
		_, password, _ := strings.Cut(string(raw), ":")
		return password
	}
	return ""
}

// unauthorized asks for a token in the way that makes runners fetch one.
func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.WriteHeader(http.StatusUnauthorized)
}

// asRunner answers requests that carry a runner's access token.
func (e *Emulator) asRunner(h func(http.ResponseWriter, *http.Request, *runner)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		client := e.subject(bearer(r), kindRunner)
		if client == "" {
			unauthorized(w)
			return
		}
		e.mu.Lock()
		found := e.runnerByClient(client)
		e.mu.Unlock()
		if found == nil {
			serviceError(w, http.StatusNotFound, brokerSource, "RunnerNotFound",
				"TaskAgentNotFoundException: the runner is not registered")
			return
		}
		h(w, r, found)
	}
}

func (e *Emulator) runnerByClient(client string) *runner {
	for _, r := range e.runners {
		if r.clientID == client {
			return r
		}
	}
	return nil
}

// asJob answers requests that carry a job's token.
func (e *Emulator) asJob(h func(http.ResponseWriter, *http.Request, *job)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		guid := e.subject(bearer(r), kindJob)
		e.mu.Lock()
		j := e.jobs[guid]
		e.mu.Unlock()
		if j == nil {
			unauthorized(w)
			return
		}
		h(w, r, j)
	}
}
