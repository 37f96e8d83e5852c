package emulator_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// hand speaks the broker's protocol call by call.
type hand struct {
	t       *testing.T
	w       *world
	config  *protorunner.Config
	token   string
	session string
}

// call makes a request and returns its status and its body.
func (h *hand) call(ctx context.Context, method, path, body string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, h.w.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	resp, err := h.w.Client().Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// exchange asks for an access token with an assertion of the given age.
func (h *hand) exchange(age time.Duration, method jwt.SigningMethod) (int, string) {
	h.t.Helper()
	at := time.Now().Add(-age)
	assertion, err := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": h.config.ClientID, "sub": h.config.ClientID, "aud": h.config.TokenURL, "jti": rand.Text(),
		"nbf": at.Unix(), "exp": at.Add(5 * time.Minute).Unix(),
	}).SignedString(h.config.Key)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := h.w.Client().PostForm(h.w.base+"/oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {assertion},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func newHand(t *testing.T, w *world, name string, labels ...string) *hand {
	t.Helper()
	_, encoded := jit(t, w.rest, name, labels...)
	config, err := protorunner.ParseJIT(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return &hand{t: t, w: w, config: config}
}

// connect gets a token and a session.
func (h *hand) connect() {
	h.t.Helper()
	_, body := h.exchange(0, jwt.SigningMethodPS256)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	h.decode(body, &token)
	h.token = token.AccessToken
	_, body = h.call(h.t.Context(), "POST", "/broker/session", `{"ownerName":"x","agent":{"version":"2.336.0"}}`)
	var session struct {
		ID string `json:"sessionId"`
	}
	h.decode(body, &session)
	h.session = session.ID
}

func (h *hand) decode(body string, v any) {
	h.t.Helper()
	if err := json.NewDecoder(bytes.NewReader([]byte(body))).Decode(v); err != nil {
		h.t.Fatalf("cannot read %q: %v", body, err)
	}
}

type offer struct {
	ID      int64  `json:"messageId"`
	Type    string `json:"messageType"`
	Body    string `json:"body"`
	Request string `json:"-"`
	at      time.Time
}

// poll asks for a message; an empty type says that there was none.
func (h *hand) poll(ctx context.Context, status string) offer {
	h.t.Helper()
	code, body := h.call(ctx, "GET", "/broker/message?sessionId="+h.session+"&status="+status, "")
	var o offer
	if code != http.StatusOK {
		return o
	}
	h.decode(body, &o)
	var ref struct {
		Request string `json:"runner_request_id"`
	}
	h.decode(o.Body, &ref)
	o.Request, o.at = ref.Request, time.Now()
	return o
}

func TestABusyPollIsNeverGivenAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted", "linux")
		h.connect()
		run := submit(t, w.Emulator, oneJob)
		begin := time.Now()
		if o := h.poll(t.Context(), "Busy"); o.Type != "" {
			t.Errorf("a Busy poll was given %q", o.Type)
		}
		if held := time.Since(begin); held != 50*time.Second {
			t.Errorf("the poll was held %v, want 50 s", held)
		}
		if o := h.poll(t.Context(), "Online"); o.Type != "RunnerJobRequest" {
			t.Errorf("the Online poll was given %q", o.Type)
		}
		w.Cancel(run)
	})
}

func TestAnOfferIsRepeatedUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted", "linux")
		h.connect()
		submit(t, w.Emulator, oneJob)
		first, again := h.poll(t.Context(), "Online"), h.poll(t.Context(), "Online")
		if first.Request == "" || first.Request != again.Request {
			t.Errorf("the offers are %+v and %+v, want the same request twice", first, again)
		}
		if code, body := h.call(t.Context(), "POST", "/broker/acknowledge?sessionId="+h.session, `{"runnerRequestId":"`+first.Request+`"}`); code != 200 {
			t.Errorf("the acknowledgement is answered %d %s", code, body)
		}
		if o := h.poll(t.Context(), "Online"); o.Type != "" {
			t.Errorf("an acknowledged job was offered again: %+v", o)
		}
		time.Sleep(10 * time.Second) // now a minute has passed without an acquisition
		if o := h.poll(t.Context(), "Online"); o.Request == "" || o.Request == first.Request {
			t.Errorf("the job that was not acquired is not offered anew: %+v", o)
		}
		code, body := h.call(t.Context(), "POST", "/run/acquirejob", `{"jobMessageId":"`+first.Request+`"}`)
		if code != http.StatusNotFound || !strings.Contains(body, "actions-run-service") {
			t.Errorf("acquiring the old offer is answered %d %s", code, body)
		}
	})
}

func TestAJobOfferedToADeadConnectionIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted", "linux")
		h.connect()
		ctx, cut := context.WithCancel(t.Context())
		done := make(chan offer)
		go func() { done <- h.poll(ctx, "Online") }()
		synctest.Wait()
		cut()
		<-done
		submit(t, w.Emulator, oneJob)
		if o := h.poll(t.Context(), "Online"); o.Type != "RunnerJobRequest" {
			t.Errorf("the next poll was given %q", o.Type)
		}
	})
}

func TestTheOpenSessionOfAServedRunnerIsAnsweredEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted", "linux")
		h.connect()
		run := submit(t, w.Emulator, oneJob)
		o := h.poll(t.Context(), "Online")
		if code, body := h.call(t.Context(), "POST", "/run/acquirejob", `{"jobMessageId":"`+o.Request+`"}`); code != 200 {
			t.Fatalf("acquiring is answered %d %s", code, body)
		} else {
			h.complete(body)
		}
		if got := finishAt(t, w, run).Conclusion; got != "success" {
			t.Errorf("the run is %q", got)
		}
		submit(t, w.Emulator, oneJob)
		code, body := h.call(t.Context(), "GET", "/broker/message?sessionId="+h.session+"&status=Online", "")
		if code != http.StatusAccepted || body != "" {
			t.Errorf("the poll after the job is answered %d %s", code, body)
		}
		if code, _ := h.call(t.Context(), "DELETE", "/broker/session", ""); code != http.StatusNoContent {
			t.Errorf("deleting the session is answered %d", code)
		}
		if code, _ := h.call(t.Context(), "POST", "/broker/session", "{}"); code != http.StatusNotFound {
			t.Errorf("a new session of the removed runner is answered %d", code)
		}
	})
}

// complete reports success for the job of an acquirejob answer, and looks at what the answer holds.
func (h *hand) complete(message string) {
	h.t.Helper()
	var m struct {
		MessageType, JobID string
		Plan               struct{ PlanID string }
		Resources          struct {
			Endpoints []struct {
				URL           string
				Authorization struct {
					Scheme     string
					Parameters map[string]string
				}
				Data map[string]string
			}
		}
		ContextData struct {
			GitHub struct {
				D []struct{ K, V any }
			}
		}
	}
	h.decode(message, &m)
	e := m.Resources.Endpoints[0]
	if m.MessageType != "RunnerJobRequest" || e.Authorization.Scheme != "OAuth" || e.URL != h.w.base+"/run/" {
		h.t.Errorf("the message is %+v", m)
	}
	if want := "ws://github.test/feed/" + m.JobID; e.Data["FeedStreamUrl"] != want {
		h.t.Errorf("FeedStreamUrl is %q, want %q", e.Data["FeedStreamUrl"], want)
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(e.Authorization.Parameters["AccessToken"], claims); err != nil || claims["exp"] == nil || claims["orchid"] == nil {
		h.t.Errorf("the job token holds %v, %v", claims, err)
	}
	seen := false
	for _, pair := range m.ContextData.GitHub.D {
		if pair.K == "api_url" {
			seen = true
			if pair.V != h.w.base+"/api/v3" {
				h.t.Errorf("api_url is %v, want the address that the runner used", pair.V)
			}
		}
	}
	if !seen {
		h.t.Error("the github context has no api_url")
	}
	h.token = e.Authorization.Parameters["AccessToken"]
	code, body := h.call(h.t.Context(), "POST", "/run/completejob", `{"planId":"`+m.Plan.PlanID+`","jobId":"`+m.JobID+`","conclusion":"succeeded"}`)
	if code != 200 {
		h.t.Errorf("completing is answered %d %s", code, body)
	}
	h.token = ""
	_, body = h.exchange(0, jwt.SigningMethodPS256) // still possible, for the listener's last poll
	var token struct {
		AccessToken string `json:"access_token"`
	}
	h.decode(body, &token)
	h.token = token.AccessToken
}

func TestTokensAreForRunnersWithTheRightKeyAndClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted")
		for _, age := range []time.Duration{0, 4 * time.Minute, -4 * time.Minute, 9 * time.Minute} {
			if code, body := h.exchange(age, jwt.SigningMethodRS256); code != 200 {
				t.Errorf("a clock %v behind is answered %d %s", age, code, body)
			}
		}
		for _, age := range []time.Duration{11 * time.Minute, -6 * time.Minute} {
			if code, body := h.exchange(age, jwt.SigningMethodPS256); code != 400 || !strings.Contains(body, "Current server time is") {
				t.Errorf("a clock %v behind is answered %d %s", age, code, body)
			}
		}
		h.config.Key = newHand(t, w, "vm-2", "self-hosted").config.Key
		if code, body := h.exchange(0, jwt.SigningMethodPS256); code != 400 || !strings.Contains(body, "invalid_client") {
			t.Errorf("a foreign key is answered %d %s", code, body)
		}
		if code, _ := h.call(t.Context(), "POST", "/broker/session", "{}"); code != 401 {
			t.Errorf("a session without a token is answered %d, want 401", code)
		}
	})
}

func TestARenewalCountsAsBeingOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted", "linux")
		h.connect()
		run := submit(t, w.Emulator, oneJob)
		o := h.poll(t.Context(), "Online")
		_, message := h.call(t.Context(), "POST", "/run/acquirejob", `{"jobMessageId":"`+o.Request+`"}`)
		var m struct {
			Resources struct {
				Endpoints []struct {
					Authorization struct{ Parameters map[string]string }
				}
			}
		}
		h.decode(message, &m)
		h.token = m.Resources.Endpoints[0].Authorization.Parameters["AccessToken"]
		for _, want := range []bool{true, true, false} {
			time.Sleep(50 * time.Second)
			if got := w.State().Runners[0].Online; got != want {
				t.Errorf("after %v it is online: %v, want %v", time.Since(o.at), got, want)
			}
			if time.Since(o.at) < time.Minute {
				// One renewal, by a path that a runner glued together carelessly.
				if code, body := h.call(t.Context(), "POST", "/run//renewjob", "{}"); code != 200 {
					t.Errorf("renewing is answered %d %s", code, body)
				}
			}
		}
		finishAt(t, w, run)
	})
}

func TestASecondSessionIsAConflictWhileTheFirstPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		h := newHand(t, w, "vm-1", "self-hosted")
		h.connect()
		ctx, cut := context.WithCancel(t.Context())
		done := make(chan offer)
		go func() { done <- h.poll(ctx, "Online") }()
		synctest.Wait()
		if code, _ := h.call(t.Context(), "POST", "/broker/session", "{}"); code != http.StatusConflict {
			t.Errorf("a second session is answered %d, want 409", code)
		}
		cut()
		<-done
		old := *h
		h.connect()
		if code, body := old.call(t.Context(), "GET", "/broker/message?sessionId="+old.session+"&status=Online", ""); code != 404 || !strings.Contains(body, "RunnerSessionInvalid") {
			t.Errorf("the replaced session is answered %d %s", code, body)
		}
	})
}
