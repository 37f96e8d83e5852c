package github_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// keys are made once: each takes some tenths of a second.
var keys = sync.OnceValue(func() (out [2]*rsa.PrivateKey) {
	for i := range out {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out[i] = key
	}
	return out
})

// pemOf writes a key as GitHub gives it (PKCS #1).
func pemOf(key *rsa.PrivateKey) secret.String {
	return secret.New(string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
}

func keyOf(key *rsa.PrivateKey) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return pemOf(key), nil }
}

func TestAppFindsItsInstallationOverAllPages(t *testing.T) {
	var elsewhere []string
	for i := range 230 {
		elsewhere = append(elsewhere, fmt.Sprintf("org%d", i))
	}
	e := emulator.New(emulator.Options{App: &emulator.App{ID: 77, ClientID: "Iv23liX", PublicKey: &keys()[0].PublicKey, Elsewhere: elsewhere}})
	for _, id := range []string{"77", "Iv23liX"} {
		for _, scope := range []string{"octo/demo", "OCTO"} {
			c, err := github.New(github.Options{
				URL: "http://127.0.0.1:1", Scope: scope, HTTP: emulator.Transport{Handler: e.Handler()},
				App: &github.App{ID: id, Key: keyOf(keys()[0])},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Runners(t.Context()); err != nil {
				t.Errorf("app %s, %s: %v", id, scope, err)
			}
		}
	}
}

func TestAppSaysWhyItIsRefused(t *testing.T) {
	e := emulator.New(emulator.Options{Repository: "octo/demo", App: &emulator.App{ID: 77, PublicKey: &keys()[0].PublicKey, Elsewhere: []string{"acme"}}})
	own := emulator.Transport{Handler: e.Handler()}
	tests := []struct {
		name, id, scope string
		key             secret.String
		now             time.Duration
		installation    int64
		want            []string
	}{
		{"another app's key", "77", "octo", pemOf(keys()[1]), 0, 0, []string{`GitHub does not take the key of app "77"`, "A JSON web token could not be decoded"}},
		{"no such app", "78", "octo", pemOf(keys()[0]), 0, 0, []string{`GitHub knows no app "78"`}},
		{"not installed there", "77", "beta", pemOf(keys()[0]), 0, 0, []string{"installed for acme, octo; install it for beta"}},
		{"no such installation", "77", "octo", pemOf(keys()[0]), 0, 5, []string{"installation 5", "no more"}},
		{"no key", "77", "octo", secret.New("letmein"), 0, 0, []string{`the key of app "77" is not an RSA private key in PEM`}},
		{"a clock that is fast", "77", "octo", pemOf(keys()[0]), time.Hour, 0, []string{"exp", "this host's clock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := github.New(github.Options{
				URL: "http://127.0.0.1:1", Scope: tt.scope, HTTP: own, Log: slog.New(slog.DiscardHandler),
				Now: func() time.Time { return time.Now().Add(tt.now) },
				App: &github.App{ID: tt.id, Installation: tt.installation, Key: func(context.Context) (secret.String, error) { return tt.key, nil }},
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Runners(t.Context())
			if tt.name != "no key" && !errors.Is(err, runner.ErrDenied) {
				t.Errorf("got %v, want ErrDenied", err)
			}
			for _, w := range tt.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			if err != nil && strings.Contains(err.Error(), "letmein") {
				t.Errorf("the key is shown: %v", err)
			}
		})
	}
}

// minter is a GitHub with one App. It counts the tokens that it made and takes
// those that are in force.
type minter struct {
	*httptest.Server
	life    time.Duration
	trusted *rsa.PublicKey

	mu     sync.Mutex
	made   int
	refuse map[string]bool
	now    time.Time
	fail   int // how many of the next tokens are not given
}

func newMinter(t *testing.T) *minter {
	t.Helper()
	m := &minter{life: time.Hour, trusted: &keys()[0].PublicKey, refuse: map[string]bool{}, now: now}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/app/installations", answer(200, `[{"id":5,"target_type":"Organization","account":{"login":"Octo"}}]`))
	mux.HandleFunc("POST /api/v3/app/installations/5/access_tokens", m.mint)
	mux.HandleFunc("/api/v3/orgs/octo/actions/runners", func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.refuse[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] {
			answer(401, `{"message":"Bad credentials"}`)(w, r)
			return
		}
		answer(200, `{"total_count":0,"runners":[]}`)(w, r)
	})
	m.Server = httptest.NewServer(mux)
	t.Cleanup(m.Close)
	return m
}

func (m *minter) mint(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(func() time.Time { return m.now }), jwt.WithExpirationRequired(), jwt.WithIssuedAt()).
		Parse(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), func(*jwt.Token) (any, error) { return m.trusted, nil })
	if err != nil {
		answer(401, `{"message":"A JSON web token could not be decoded"}`)(w, r)
		return
	}
	if m.fail > 0 {
		m.fail--
		answer(502, "<html>Unicorn!</html>")(w, r)
		return
	}
	m.made++
	fmt.Fprintf(w, `{"token":%q,"expires_at":%q}`, m.token(m.made), m.now.Add(m.life).Format(time.RFC3339))
}

// token is as long as those of installations are by now.
func (m *minter) token(n int) string {
	return fmt.Sprintf("ghs_77_%d.%s_-%s", n, strings.Repeat("eyJh-", 100), strings.Repeat("9", 12))
}

func (m *minter) client(t *testing.T, opt github.Options) *github.Client {
	t.Helper()
	opt.URL, opt.Scope = m.URL, "octo"
	opt.Now = func() time.Time { m.mu.Lock(); defer m.mu.Unlock(); return m.now }
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	c, err := github.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *minter) expect(t *testing.T, c *github.Client, what string, made int) {
	t.Helper()
	_, err := c.Runners(t.Context())
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || m.made != made {
		t.Errorf("%s: %v, %d tokens made, want %d", what, err, m.made, made)
	}
}

func (m *minter) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	m := newMinter(t)
	c := m.client(t, github.Options{App: &github.App{ID: "77", Key: keyOf(keys()[0])}})
	m.expect(t, c, "first", 1)
	m.pass(54 * time.Minute)
	m.expect(t, c, "it is good", 1)
	m.pass(2 * time.Minute)
	m.fail = 1
	m.expect(t, c, "there is no new one, and the old one is good", 1)
	m.pass(time.Minute)
	m.expect(t, c, "renewed before it expires", 2)
	m.pass(2 * time.Hour)
	m.fail = 1
	if _, err := c.Runners(t.Context()); err == nil || errors.Is(err, runner.ErrDenied) || strings.Contains(err.Error(), "Unicorn") {
		t.Errorf("an expired token, and no new one: %v", err)
	}
	m.expect(t, c, "again", 3)
}

func TestAnAppsKeyIsPickedUpWhenItIsRotated(t *testing.T) {
	m := newMinter(t)
	key := keys()[0]
	c := m.client(t, github.Options{App: &github.App{ID: "77", Key: func(context.Context) (secret.String, error) { return pemOf(key), nil }}})
	m.expect(t, c, "old key", 1)
	key = keys()[1]
	m.mu.Lock()
	m.trusted = &keys()[1].PublicKey
	m.mu.Unlock()
	m.pass(time.Hour)
	m.expect(t, c, "new key", 2)
}

func TestARefusalRenewsOnce(t *testing.T) {
	m := newMinter(t)
	c := m.client(t, github.Options{App: &github.App{ID: "77", Key: keyOf(keys()[0])}})
	m.expect(t, c, "first", 1)
	m.refuse[m.token(1)] = true // revoked long before it expires
	m.pass(10 * time.Minute)
	m.expect(t, c, "the call is sent again with another token", 2)
	m.refuse[m.token(2)], m.refuse[m.token(3)] = true, true
	m.pass(10 * time.Minute)
	for range 3 { // one that was just made is not replaced: it is not its age
		if _, err := c.Runners(t.Context()); !errors.Is(err, runner.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
	}
	if m.made != 3 {
		t.Errorf("%d tokens were made, want 3", m.made)
	}
}

func TestARotatedTokenIsPickedUp(t *testing.T) {
	m := newMinter(t)
	current := "ghp_one"
	asked := 0
	c := m.client(t, github.Options{Token: func(context.Context) (secret.String, error) {
		asked++
		if current == "" {
			return secret.String{}, errors.New("the vault is sealed")
		}
		return secret.New(current), nil
	}})
	m.expect(t, c, "first", 0)
	m.refuse["ghp_one"] = true
	current = "ghp_two"
	m.expect(t, c, "refused, and there is another", 0)
	m.expect(t, c, "not asked again", 0)
	if asked != 2 {
		t.Errorf("the source was asked %d times, want 2", asked)
	}
	current = ""
	m.pass(2 * time.Minute)
	m.expect(t, c, "the source fails, and the token before is good", 0)
	m.refuse["ghp_two"] = true
	if _, err := c.Runners(t.Context()); !errors.Is(err, runner.ErrDenied) {
		t.Errorf("refused, and there is no other: %v", err)
	}
}

// Tokens grew from 40 to some 520 characters: nothing may cut, refuse or show
// one for its length.
func TestIncidentLongToken(t *testing.T) {
	var log bytes.Buffer
	m := newMinter(t)
	c := m.client(t, github.Options{
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		App: &github.App{ID: "77", Key: keyOf(keys()[0])},
	})
	m.expect(t, c, "long", 1)
	m.refuse[m.token(1)] = true
	_, err := c.Runners(t.Context())
	if err == nil {
		t.Fatal("the token should be refused")
	}
	for _, part := range []string{"eyJh-", "ghs_77", "PRIVATE KEY"} {
		if strings.Contains(log.String()+err.Error()+fmt.Sprintf("%+v", c), part) {
			t.Errorf("%q is shown: %v\n%s", part, err, log.String())
		}
	}
}

func TestIncidentTokenCallFailsForApps(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"page with 200": answer(200, "<html>Unicorn!</html>"),
		"page with 502": answer(502, "<html>Unicorn!</html>"),
		"empty":         answer(201, ""),
		"no token":      answer(201, `{"expires_at":"2026-11-23T21:00:00Z"}`),
		"two lines":     answer(201, `{"token":"a\nb","expires_at":"2026-11-23T21:00:00Z"}`),
	} {
		t.Run(name, func(t *testing.T) {
			used := 0
			mux := http.NewServeMux()
			mux.HandleFunc("/api/v3/app/installations/5/access_tokens", h)
			mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) { used++ })
			srv := httptest.NewServer(mux)
			defer srv.Close()
			c, err := github.New(github.Options{URL: srv.URL, Scope: "octo", Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
				App: &github.App{ID: "77", Key: keyOf(keys()[0]), Installation: 5}})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Credential(t.Context(), runner.Registration{Name: "a"}); err == nil || strings.Contains(err.Error(), "Unicorn") {
				t.Errorf("got %v, %v", got, err)
			}
			if used != 0 {
				t.Errorf("%d calls were sent without a token", used)
			}
		})
	}
}

// A source that hangs is not GitHub's failure, and does not hold others for ever.
func TestASourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		c, err := github.New(github.Options{
			Scope: "octo", Log: slog.New(slog.DiscardHandler), HTTP: asked(func(*http.Request) { sent.Add(1) }),
			Token: func(ctx context.Context) (secret.String, error) {
				<-ctx.Done()
				return secret.String{}, context.Cause(ctx)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for range 6 {
			_, err := c.Runners(t.Context())
			if want := "cannot list the runners of octo: cannot get a token for GitHub: there is none in time"; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		if took := time.Since(start); took != 6*40*time.Second || sent.Load() != 0 {
			t.Errorf("took %s, %d requests sent", took, sent.Load())
		}
		short, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the host stops"))
		defer cancel()
		if _, err := c.Runners(short); err == nil || !strings.HasSuffix(err.Error(), "the host stops") {
			t.Errorf("got %v", err)
		}
	})
}

func TestARegistrationIsSentAgainWhole(t *testing.T) {
	var bodies []string
	tokens := []string{"stale", "good"}
	c := client(t, github.Options{URL: "http://127.0.0.1:1", Scope: "octo",
		Token: func(context.Context) (secret.String, error) {
			next := tokens[0]
			tokens = tokens[1:]
			return secret.New(next), nil
		},
		HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			bodies = append(bodies, string(body))
			w := httptest.NewRecorder()
			if r.Header.Get("Authorization") == "Bearer good" {
				answer(201, jitReply)(w, r)
			} else {
				answer(401, `{"message":"Bad credentials"}`)(w, r)
			}
			res := w.Result()
			res.Request = r
			return res, nil
		}),
	})
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "tasuki-a"}); err != nil {
		t.Fatal(err)
	}
	if len(bodies) != 2 || bodies[0] != bodies[1] || !strings.Contains(bodies[1], "tasuki-a") {
		t.Errorf("sent %q", bodies)
	}
}

func TestAClosedGroupIsTold(t *testing.T) {
	e := emulator.New(emulator.Options{Groups: []string{"macs"}, GroupRules: map[string]emulator.GroupRule{"macs": {Closed: true}}})
	c, err := github.New(github.Options{URL: "http://127.0.0.1:1", Scope: "octo", HTTP: emulator.Transport{Handler: e.Handler()}})
	if err != nil {
		t.Fatal(err)
	}
	got := lines(c.Check(t.Context(), github.Trial{Group: "macs", Repository: "octo/demo"}))
	if !strings.Contains(got, `wrong runner group: "macs" `) {
		t.Errorf("got\n%s", got)
	}
}
