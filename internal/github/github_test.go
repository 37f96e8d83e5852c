package github_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

const token = "ghs_verysecret"

var now = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

// fake is a GitHub that answers as the test says and notes what it was asked.
type fake struct {
	*http.ServeMux
	asked []string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	f.ServeMux.ServeHTTP(w, r)
}

// serve returns a client of a server with these answers by pattern.
func serve(t *testing.T, scope string, routes map[string]http.HandlerFunc) (*github.Client, *fake) {
	t.Helper()
	f := &fake{ServeMux: http.NewServeMux()}
	for pattern, h := range routes {
		f.HandleFunc(pattern, h)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return client(t, github.Options{URL: srv.URL, Scope: scope}), f
}

func client(t *testing.T, opt github.Options) *github.Client {
	t.Helper()
	if opt.Token == nil {
		opt.Token = func(context.Context) (secret.String, error) { return secret.New(token), nil }
	}
	opt.Now = func() time.Time { return now }
	opt.Log = slog.New(slog.DiscardHandler)
	opt.Random = func() float64 { return 0 }
	c, err := github.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const (
	repo     = "/api/v3/repos/octo/demo/actions/"
	org      = "/api/v3/orgs/octo/actions/"
	jitReply = `{"runner":{"id":7,"name":"tasuki-a"},"encoded_jit_config":"aGVsbG8="}`
	notFound = `{"message":"Not Found","documentation_url":"https://docs.github.com/rest"}`
)

func TestCredentialAsksForAJITConfig(t *testing.T) {
	var body map[string]any
	var auth string
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"POST " + repo + "runners/generate-jitconfig": func(w http.ResponseWriter, r *http.Request) {
			auth = r.Header.Get("Authorization")
			_ = json.NewDecoder(r.Body).Decode(&body)
			answer(201, jitReply)(w, r)
		},
	})
	got, err := c.Credential(t.Context(), runner.Registration{Name: "tasuki-a", Labels: []string{"self-hosted", "Linux"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != 7 || got.Env["ACTIONS_RUNNER_INPUT_JITCONFIG"].Reveal() != "aGVsbG8=" || auth != "Bearer "+token {
		t.Errorf("got %v, authorization %q", got, auth)
	}
	want := map[string]any{"name": "tasuki-a", "runner_group_id": 1.0, "labels": []any{"self-hosted", "Linux"}, "work_folder": "_work"}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if s := fmt.Sprintf("%v %+v", got, got); strings.Contains(s, "aGVsbG8") {
		t.Errorf("the credential prints itself: %s", s)
	}
}

func TestRunnerGroupIsFoundByNameAndAskedOnce(t *testing.T) {
	var groups []float64
	c, f := serve(t, "octo", map[string]http.HandlerFunc{
		"GET " + org + "runner-groups": answer(200, `{"total_count":2,"runner_groups":[{"id":1,"name":"Default"},{"id":5,"name":"Macs"}]}`),
		"POST " + org + "runners/generate-jitconfig": func(w http.ResponseWriter, r *http.Request) {
			var body map[string]any
			_ = json.NewDecoder(r.Body).Decode(&body)
			groups = append(groups, body["runner_group_id"].(float64))
			answer(201, jitReply)(w, r)
		},
	})
	for _, group := range []string{"macs", "Macs", "", "default"} {
		if _, err := c.Credential(t.Context(), runner.Registration{Name: "a", Group: group}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]float64{5, 5, 1, 1}, groups); diff != "" || len(f.asked) != 5 {
		t.Errorf("groups (-want +got):\n%s, asked %v", diff, f.asked)
	}
	_, err := c.Credential(t.Context(), runner.Registration{Name: "a", Group: "Nope"})
	if err == nil || !strings.Contains(err.Error(), "there are: Default, Macs") {
		t.Errorf("got %v, want the groups that there are", err)
	}
	ofRepo, _ := serve(t, "octo/demo", nil)
	if _, err := ofRepo.Credential(t.Context(), runner.Registration{Name: "a", Group: "Macs"}); err == nil ||
		!strings.Contains(err.Error(), "groups belong to organisations") {
		t.Errorf("got %v, want a hint about repositories", err)
	}
}

func TestRunnersTurnsAllPages(t *testing.T) {
	const total = 205
	calls := 0
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"GET " + repo + "runners": func(w http.ResponseWriter, r *http.Request) {
			calls++
			var page int
			_, _ = fmt.Sscan(r.FormValue("page"), &page)
			var part []string
			for id := (page-1)*100 + 1; id <= min(page*100, total); id++ {
				if calls == 2 && id == 150 {
					continue // one slipped to the page before while we turned
				}
				part = append(part, fmt.Sprintf(`{"id":%d,"name":"r%d","status":"online","busy":%t,"version":"2.336.0","labels":[{"name":"X64"}]}`, id, id, id == 3))
			}
			if calls == 2 {
				part = append(part, `{"id":100,"name":"r100"}`)
			}
			fmt.Fprintf(w, `{"total_count":%d,"runners":[%s]}`, total, strings.Join(part, ","))
		},
	})
	got, err := c.Runners(t.Context())
	if err != nil || len(got) != total || calls != 6 {
		t.Fatalf("%d runners after %d calls, %v; want all after a second reading", len(got), calls, err)
	}
	want := runner.Remote{ID: 3, Name: "r3", Online: true, Busy: true, Labels: []string{"X64"}, Version: "2.336.0"}
	if diff := cmp.Diff(want, got[2]); diff != "" {
		t.Errorf("runner (-want +got):\n%s", diff)
	}
}

func TestRunnerAndRemove(t *testing.T) {
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"GET " + repo + "runners":      answer(200, `{"total_count":0,"runners":[]}`),
		"GET " + repo + "runners/3":    answer(200, `{"id":3,"name":"r3","status":"offline","version":null}`),
		"DELETE " + repo + "runners/3": answer(204, ""),
		"DELETE " + repo + "runners/4": answer(422, `{"message":"Bad request - Runner \"r4\" is currently running a job and cannot be deleted."}`),
		"/":                            answer(404, notFound),
	})
	got, there, err := c.Runner(t.Context(), 3)
	if diff := cmp.Diff(runner.Remote{ID: 3, Name: "r3"}, got); diff != "" || !there || err != nil {
		t.Errorf("runner 3: %t, %v (-want +got):\n%s", there, err, diff)
	}
	if got, there, err := c.Runner(t.Context(), 9); there || err != nil {
		t.Errorf("runner 9: %v, %t, %v; want none", got, there, err)
	}
	for id, want := range map[int64]error{3: nil, 9: nil, 4: runner.ErrBusy} {
		if err := c.Remove(t.Context(), id); !errors.Is(err, want) {
			t.Errorf("removing %d: %v, want %v", id, err, want)
		}
	}
}

// A token that loses its rights makes GitHub answer 404 for everything; that
// must not look as if our runners, busy ones too, were gone.
func TestALostRightIsNotAGoneRunner(t *testing.T) {
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": answer(404, notFound)})
	if _, there, err := c.Runner(t.Context(), 9); there || !errors.Is(err, runner.ErrDenied) {
		t.Errorf("Runner: %t, %v; want ErrDenied", there, err)
	}
	if err := c.Remove(t.Context(), 9); !errors.Is(err, runner.ErrDenied) {
		t.Errorf("Remove: %v; want ErrDenied", err)
	}
}

func TestIncidentJITLostReply(t *testing.T) {
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"/": answer(409, `{"message":"Already exists - A runner with the name *** already exists."}`),
	})
	_, err := c.Credential(t.Context(), runner.Registration{Name: "tasuki-a"})
	if !errors.Is(err, runner.ErrExists) || errors.Is(err, runner.ErrDenied) || !strings.Contains(err.Error(), "tasuki-a") {
		t.Errorf("got %v, want ErrExists with the name", err)
	}
}

func TestDenialsNameThePermission(t *testing.T) {
	const denied = `{"message":"Resource not accessible by personal access token"}`
	tests := []struct {
		scope  string
		answer http.HandlerFunc
		words  []string
	}{
		{"octo/demo", answer(403, denied), []string{"Administration: read and write", "Resource not accessible", "octo/demo"}},
		{"octo/demo", answer(404, notFound), []string{"either there is no octo/demo", "Administration"}},
		{"octo", answer(403, ""), []string{"Self-hosted runners: read and write", "admin:org"}},
		{"enterprises/acme", answer(404, notFound), []string{"manage_runners:enterprise"}},
		{"octo", answer(401, `{"message":"Bad credentials"}`), []string{"expired", "Bad credentials"}},
		{"octo", answer(403, denied, "X-GitHub-SSO", "required; url=https://github.com/orgs/octo/sso"), []string{"single sign-on", "/sso"}},
	}
	for _, tt := range tests {
		c, _ := serve(t, tt.scope, map[string]http.HandlerFunc{"/": tt.answer})
		_, listErr := c.Runners(t.Context())
		_, jitErr := c.Credential(t.Context(), runner.Registration{Name: "a"})
		for _, err := range []error{listErr, jitErr} {
			if !errors.Is(err, runner.ErrDenied) {
				t.Errorf("%s: %v, want ErrDenied", tt.scope, err)
				continue
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: %v does not say %q", tt.scope, err, w)
				}
			}
		}
	}
}

// An error page, or a proxy's welcome, with any status must never be a token,
// a runner or an empty list.
func TestIncidentTokenCallFailsAndEmpty200(t *testing.T) {
	page := "<html><body>Unicorn! " + token + "</body></html>"
	for name, h := range map[string]http.HandlerFunc{
		"page with 502":  answer(502, page),
		"page with 200":  answer(200, page),
		"page with 201":  answer(201, page),
		"nothing":        answer(200, ""),
		"empty object":   answer(200, "{}"),
		"null":           answer(201, "null"),
		"a list":         answer(200, "[]"),
		"no base64":      answer(201, `{"runner":{"id":1},"encoded_jit_config":"<html>"}`),
		"no runner":      answer(201, `{"encoded_jit_config":"aGVsbG8="}`),
		"runner of none": answer(200, `{"total_count":1,"runners":[{}]}`),
		"202":            answer(202, jitReply),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": h})
			if got, err := c.Credential(t.Context(), runner.Registration{Name: "a"}); err == nil {
				t.Errorf("Credential: %v", got)
			} else if strings.Contains(err.Error(), token) {
				t.Errorf("the page is repeated: %v", err)
			}
			if got, err := c.Runners(t.Context()); err == nil {
				t.Errorf("Runners: %v", got)
			}
			if name != "no base64" && name != "no runner" && name != "202" {
				if got, there, err := c.Runner(t.Context(), 1); err == nil {
					t.Errorf("Runner: %v, %t", got, there)
				}
			}
			if err := c.Remove(t.Context(), 1); err == nil {
				t.Error("Remove succeeded")
			}
			if got, there, err := c.Job(t.Context(), "a", now); err == nil {
				t.Errorf("Job: %v, %t", got, there)
			}
		})
	}
}

func TestIncidentRateLimitBurn(t *testing.T) {
	reset := fmt.Sprint(now.Add(90 * time.Second).Unix())
	tests := []struct {
		name string
		h    http.HandlerFunc
		want time.Duration
	}{
		{"429 with Retry-After", answer(429, "", "Retry-After", "17"), 17 * time.Second},
		{"429 with a date", answer(429, "", "Retry-After", now.Add(time.Minute).Format(http.TimeFormat)), time.Minute},
		{"429 without a word", answer(429, "slow down"), time.Minute},
		{"429, reset", answer(429, "{}", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset), 90 * time.Second},
		{"403 with Retry-After", answer(403, "{}", "Retry-After", "5"), 5 * time.Second},
		{"403, used up", answer(403, "{}", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset), 90 * time.Second},
		{"403, secondary", answer(403, `{"message":"You have exceeded a secondary rate limit","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`), time.Minute},
		{"503 with Retry-After", answer(503, "", "Retry-After", "3"), 3 * time.Second},
		{"a reset that passed", answer(403, "{}", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": tt.h})
			_, err := c.Runners(t.Context())
			var limit interface{ RetryAfter() time.Duration }
			if !errors.As(err, &limit) || limit.RetryAfter() != tt.want {
				t.Fatalf("got %v, want a pause of %s", err, tt.want)
			}
			if errors.Is(err, runner.ErrDenied) {
				t.Errorf("a limit is no denial: %v", err)
			}
		})
	}
}

func TestTheTokenGoesNowhereElse(t *testing.T) {
	var leaked []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked = append(leaked, r.Header.Get("Authorization"))
		answer(200, `{"total_count":0,"runners":[]}`)(w, r)
	}))
	defer other.Close()
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
	}})
	_, _ = c.Runners(t.Context())
	if diff := cmp.Diff([]string{""}, leaked); diff != "" {
		t.Errorf("what the other host was sent (-want +got):\n%s", diff)
	}
	// No server, so the whole URL and cause are in the error.
	broken := client(t, github.Options{URL: "http://127.0.0.1:1", Scope: "octo/demo"})
	if _, err := broken.Runners(t.Context()); err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("got %v", err)
	}
}

func TestTokenSource(t *testing.T) {
	var log bytes.Buffer
	given := []string{"two\nlines", "", "<html> page", "stale", "good"}
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			answer(401, `{"message":"Bad credentials"}`)(w, r)
			return
		}
		answer(200, `{"total_count":0,"runners":[]}`)(w, r)
	}))
	defer srv.Close()
	c, err := github.New(github.Options{URL: srv.URL, Scope: "octo/demo", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Token: func(context.Context) (secret.String, error) {
			calls++
			return secret.New(given[min(calls, len(given))-1]), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no token", "gave nothing", "no token", "", "", ""} {
		_, err := c.Runners(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if err != nil && slices.ContainsFunc(given, func(s string) bool { return s != "" && s != "stale" && strings.Contains(err.Error(), s) }) {
			t.Errorf("the error shows what was given: %v", err)
		}
	}
	if calls != 5 {
		t.Errorf("the source was asked %d times, want 5: once more after a refusal, then not for a minute", calls)
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the host stops")
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": func(http.ResponseWriter, *http.Request) {
		cancel(cause)
		<-hang
	}})
	if _, err := c.Runners(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestNewRefusesWithAHint(t *testing.T) {
	tests := []struct{ url, scope, hint string }{
		{"http://github.example.com", "o", "write https"},
		{"ftp://x", "o", "https://github.com"},
		{"https://github.com/octo", "o", "without a path"},
		{"github.com", "o", "https://github.com"},
		{"", "", "owner/repository"},
		{"", "a/b/c", "owner/repository"},
		{"", "a/", "owner/repository"},
		{"", "https://github.com/o", "owner/repository"},
	}
	for _, tt := range tests {
		if _, err := github.New(github.Options{URL: tt.url, Scope: tt.scope}); err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%q, %q: %v, want %q", tt.url, tt.scope, err, tt.hint)
		}
	}
}

type asked func(*http.Request)

func (f asked) RoundTrip(r *http.Request) (*http.Response, error) {
	f(r)
	return nil, errors.New("no network in tests")
}

func TestWhereTheAPIIs(t *testing.T) {
	tests := []struct{ url, scope, want string }{
		{"", "o/r", "https://api.github.com/repos/o/r/actions/runners"},
		{"https://github.com/", "o", "https://api.github.com/orgs/o/actions/runners"},
		{"https://acme.ghe.com", "enterprises/acme", "https://api.acme.ghe.com/enterprises/acme/actions/runners"},
		{"https://github.example.com:8443", "o", "https://github.example.com:8443/api/v3/orgs/o/actions/runners"},
		{"http://127.0.0.1:99", "o", "http://127.0.0.1:99/api/v3/orgs/o/actions/runners"},
		{"http://[::1]:99", "o", "http://[::1]:99/api/v3/orgs/o/actions/runners"},
	}
	for _, tt := range tests {
		var got string
		c := client(t, github.Options{URL: tt.url, Scope: tt.scope, HTTP: asked(func(r *http.Request) {
			r.URL.RawQuery = ""
			got = r.URL.String()
		})})
		if _, err := c.Runners(t.Context()); err == nil || got != tt.want {
			t.Errorf("%q: asked %q, %v; want %q", tt.url, got, err, tt.want)
		}
	}
}
