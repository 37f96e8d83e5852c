package daemon_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/event"
)

const scrapeToken = "a-token-of-a-prometheus"

var page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "tasuki_up 1\n") })

// serveMetrics runs ServeMetrics for the test and returns its address.
func serveMetrics(t *testing.T, opt daemon.MetricsOptions) string {
	t.Helper()
	opened := make(chan net.Addr, 1)
	opt.Handler, opt.Opened = page, func(a net.Addr) { opened <- a }
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { daemon.ServeMetrics(ctx, opt) })
	t.Cleanup(func() { cancel(); work.Wait() })
	return "http://" + (<-opened).String()
}

func get(t *testing.T, method, url, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func fixed(token string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return secret.New(token), nil }
}

func TestOnlyTheTokenOpensTheMetrics(t *testing.T) {
	url := serveMetrics(t, daemon.MetricsOptions{Listen: "127.0.0.1:0", Token: fixed(scrapeToken)})
	for _, tc := range []struct {
		method, path, authorization string
		want                        int
	}{
		{"GET", "/metrics", "Bearer " + scrapeToken, 200},
		{"GET", "/metrics", "bearer " + scrapeToken, 200},
		{"GET", "/metrics", "", 401},
		{"GET", "/metrics", "Bearer", 401},
		{"GET", "/metrics", "Bearer ", 401},
		{"GET", "/metrics", "Bearer " + scrapeToken + "x", 401},
		{"GET", "/metrics", "Bearer " + scrapeToken[1:], 401},
		{"GET", "/metrics", "Basic " + scrapeToken, 401},
		{"GET", "/metrics", scrapeToken, 401},
		{"GET", "/metrics?token=" + scrapeToken, "", 401},
		{"GET", "/", "", 401},
		{"GET", "/v1/status", "", 401},
		{"GET", "/v1/status", "Bearer " + scrapeToken, 404},
		{"POST", "/metrics", "Bearer " + scrapeToken, 404},
	} {
		status, body := get(t, tc.method, url+tc.path, tc.authorization)
		if status != tc.want || strings.Contains(body, "tasuki_up") != (tc.want == 200) {
			t.Errorf("%s %s with %q: %d %q, want %d", tc.method, tc.path, tc.authorization, status, body, tc.want)
		}
	}
}

func TestATokenThatIsNoneOpensNothing(t *testing.T) {
	for name, token := range map[string]func(context.Context) (secret.String, error){
		"empty":      fixed(""),
		"short":      fixed("abc"),
		"unreadable": func(context.Context) (secret.String, error) { return secret.String{}, errors.New("no such file") },
	} {
		url := serveMetrics(t, daemon.MetricsOptions{Listen: "127.0.0.1:0", Token: token})
		for _, authorization := range []string{"", "Bearer ", "Bearer abc"} {
			if status, body := get(t, "GET", url+"/metrics", authorization); status != 503 || strings.Contains(body, "tasuki_up") {
				t.Errorf("%s token, sent %q: %d %q", name, authorization, status, body)
			}
		}
	}
}

func TestATakenPortIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	problems := make(chan string, 100)
	opt := daemon.MetricsOptions{Listen: l.Addr().String(), Token: fixed(scrapeToken), Problem: func(text string) {
		if text != "" {
			_ = l.Close()
		}
		problems <- text
	}}
	url := serveMetrics(t, opt)
	if first, second := <-problems, <-problems; !strings.Contains(first, "address already in use") || second != "" {
		t.Errorf("it said %q, then %q", first, second)
	}
	if status, _ := get(t, "GET", url+"/metrics", "Bearer "+scrapeToken); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestTheSocketServesMetricsToo(t *testing.T) {
	h := &host{}
	c := serve(t, daemon.Options{Agent: h, Events: &event.Bus{}, Metrics: page})
	var b strings.Builder
	if err := c.Metrics(t.Context(), &b); err != nil || b.String() != "tasuki_up 1\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	without := serve(t, daemon.Options{Agent: h, Events: &event.Bus{}})
	if err := without.Metrics(t.Context(), &b); err == nil {
		t.Error("an agent without metrics serves some")
	}
}

// A token that was rotated is taken over within a minute, and one that cannot
// be read any more goes on.
func TestARotatedTokenIsPickedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, err := scrapeToken, error(nil)
		h := daemon.Guarded(daemon.MetricsOptions{Handler: page, Token: func(context.Context) (secret.String, error) { return secret.New(token), err }})
		ask := func(sent string) int {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
			req.Header.Set("Authorization", "Bearer "+sent)
			w := &answered{}
			h.ServeHTTP(w, req)
			return w.status
		}
		const next = "another-token-of-it"
		if got := ask(scrapeToken); got != 200 {
			t.Errorf("the first token: %d", got)
		}
		token = next
		time.Sleep(2 * time.Minute)
		if old, now := ask(scrapeToken), ask(next); old != 401 || now != 200 {
			t.Errorf("after the rotation: the old %d, the new %d", old, now)
		}
		token, err = "", errors.New("no such file")
		time.Sleep(2 * time.Minute)
		if got := ask(next); got != 200 {
			t.Errorf("while the file is away: %d", got)
		}
	})
}

type answered struct {
	header http.Header
	status int
}

func (r *answered) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}
func (r *answered) WriteHeader(status int) { r.status = status }
func (r *answered) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = 200
	}
	return len(b), nil
}
