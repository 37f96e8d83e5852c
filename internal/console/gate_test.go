package console_test

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/runner"
)

// everyPath is one of each route, and what there is not.
func everyPath(w *world) []string {
	_, body, _ := w.get(w.inside(), "/", nil)
	_, rest, _ := strings.Cut(body, `href="/assets/`)
	hash, _, _ := strings.Cut(rest, "/")
	return []string{
		"/", "/runs", "/runs?time=30d", "/runs/x", "/runs/x/log", "/runs/x/log.txt", "/images", "/drain", "/resume", "/live?page=now",
		"/assets/" + hash + "/page.js", "/assets/" + hash + "/style.css", "/assets/", "/favicon.ico", "/nowhere", "/enter/", "/metrics", "/v1/status",
	}
}

// TestNothingIsAnsweredWithoutASession: a guest may reach the loopback of its
// host, so that files and streams are no exception.
func TestNothingIsAnsweredWithoutASession(t *testing.T) {
	w := serve(t, newHost(t), nil)
	stranger := w.browser()
	for _, path := range everyPath(w) {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions, http.MethodDelete} {
			status, body, header := w.do(stranger, method, path, "", nil)
			if status != http.StatusUnauthorized || method != http.MethodHead && !strings.HasPrefix(body, "There is no session") {
				t.Errorf("%s %s answered %d %q to a stranger", method, path, status, body)
			}
			if header.Get("Set-Cookie") != "" {
				t.Errorf("%s %s gave a stranger a cookie", method, path)
			}
		}
	}
	status, _, _ := w.get(stranger, "/", func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: "tasuki-abcdef", Value: strings.Repeat("A", 26)})
	})
	if status != http.StatusUnauthorized {
		t.Errorf("a made-up session was answered %d", status)
	}
}

func TestALinkLetsOneBrowserIn(t *testing.T) {
	w := serve(t, newHost(t), nil)
	link := w.link()
	looksAhead, first, second := w.browser(), w.browser(), w.browser()
	if status, _, _ := w.get(looksAhead, link.URL, func(r *http.Request) { r.Header.Set("Sec-Purpose", "prefetch;prerender") }); status != http.StatusUnauthorized {
		t.Errorf("a browser that looks ahead was answered %d", status)
	}
	if status, _, _ := w.do(looksAhead, http.MethodPost, link.URL, "", nil); status != http.StatusUnauthorized {
		t.Errorf("a POST was answered %d", status)
	}
	status, _, header := w.get(first, link.URL, nil)
	cookie := header.Get("Set-Cookie")
	for _, want := range []string{"tasuki-abcdef=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=86400"} {
		if status != http.StatusOK || !strings.Contains(cookie, want) {
			t.Errorf("status %d, the cookie has no %s: %s", status, want, cookie)
		}
	}
	if status, _, _ := w.get(first, "/", nil); status != http.StatusOK {
		t.Errorf("the page was answered %d", status)
	}
	if status, _, _ := w.get(second, link.URL, nil); status != http.StatusUnauthorized {
		t.Errorf("a link that was used was answered %d", status)
	}
	if link.Ends.Sub(time.Now()) > console.LinkLife {
		t.Errorf("the link ends %v", link.Ends)
	}
}

func TestLinksAndSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := console.NewGate()
		late := g.Mint(time.Now())
		time.Sleep(console.LinkLife)
		if g.Redeem(late, time.Now()) != "" {
			t.Error("a link works after its end")
		}
		idle, used := g.Redeem(g.Mint(time.Now()), time.Now()), g.Redeem(g.Mint(time.Now()), time.Now())
		for range int(console.SessionLife/console.SessionIdle)*2 - 1 {
			time.Sleep(console.SessionIdle / 2)
			if !g.Good(used, time.Now()) {
				t.Fatal("a session that is used has ended")
			}
		}
		if g.Good(idle, time.Now()) {
			t.Error("a session that nobody used goes on")
		}
		time.Sleep(console.SessionIdle / 2)
		if g.Good(used, time.Now()) {
			t.Error("a session goes on for ever")
		}
	})
}

func TestLinksAndSessionsAreBounded(t *testing.T) {
	g, now := console.NewGate(), time.Now()
	first := g.Mint(now)
	for range 100 {
		g.Mint(now)
	}
	if g.Redeem(first, now) != "" {
		t.Error("a hundred links later the first still works")
	}
	oldest := g.Redeem(g.Mint(now), now)
	for i := range 100 {
		g.Redeem(g.Mint(now), now.Add(time.Duration(i)*time.Second))
	}
	if links, sessions := g.Count(); links > 16 || sessions > 64 {
		t.Errorf("%d links and %d sessions", links, sessions)
	}
	if g.Good(oldest, now.Add(time.Minute)) {
		t.Error("the session that was used longest ago did not give way")
	}
}

// TestAnotherNameIsRefused: a page of another site that makes its name mean our
// address (DNS rebinding) would send its own name.
func TestAnotherNameIsRefused(t *testing.T) {
	w := serve(t, newHost(t), func(o *console.Options) { o.Hosts = []string{"Tasuki.example.com"} })
	b := w.inside()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(w.root, "http://"))
	session := w.cookie(b)
	for name, want := range map[string]int{
		"127.0.0.1:" + port: 200, "localhost:" + port: 200, "localhost:9999": 200, "[::1]:1": 200, "127.0.0.1": 200, "LOCALHOST": 200,
		"tasuki.example.com": 200, "tasuki.example.com:443": 200,
		"evil.example": 421, "evil.example:" + port: 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:" + port: 421,
		"192.0.2.1:" + port: 421, "0.0.0.0:" + port: 421, "": 421, "tasuki.example.com.evil.example": 421, "xtasuki.example.com": 421,
	} {
		if name == "" {
			continue // Go's client cannot send none
		}
		status, _, _ := w.get(http.DefaultClient, "/", func(r *http.Request) { r.Host = name; r.AddCookie(session) })
		if status != want {
			t.Errorf("Host %q was answered %d, want %d", name, status, want)
		}
	}
	status, _, header := w.get(w.browser(), w.link().URL, func(r *http.Request) { r.Host = "tasuki.example.com" })
	if cookie := header.Get("Set-Cookie"); status != 200 || !strings.Contains(cookie, "Secure") {
		t.Errorf("through the proxy: %d, %s", status, cookie)
	}
}

func (w *world) cookie(b *http.Client) *http.Cookie {
	u, err := url.Parse(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	return b.Jar.Cookies(u)[0]
}

func TestOnlyOurOwnPagesChangeAnything(t *testing.T) {
	h := newHost(t)
	w := serve(t, h, nil)
	b, other := w.inside(), w.inside()
	word, otherWord := w.csrf(b), w.csrf(other)
	from := func(header, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(header, value) }
	}
	for name, tc := range map[string]struct {
		body   string
		change func(*http.Request)
	}{
		"no word":           {form("", "ios"), from("Origin", w.root)},
		"another session's": {form(otherWord, "ios"), from("Origin", w.root)},
		"no origin":         {form(word, "ios"), nil},
		"another origin":    {form(word, "ios"), from("Origin", "http://evil.example")},
		"another port":      {form(word, "ios"), from("Origin", "http://127.0.0.1:1")},
		"an opaque origin":  {form(word, "ios"), from("Origin", "null")},
		"another site":      {form(word, "ios"), from("Sec-Fetch-Site", "cross-site")},
		"another of loopback": {form(word, "ios"), func(r *http.Request) {
			r.Header.Set("Origin", w.root)
			r.Header.Set("Sec-Fetch-Site", "same-site")
		}},
	} {
		for _, path := range []string{"/drain", "/resume", "/leave"} {
			if status, _, _ := w.do(b, http.MethodPost, path, tc.body, tc.change); status != http.StatusForbidden {
				t.Errorf("%s: POST %s was answered %d", name, path, status)
			}
		}
		if status, _, _ := w.do(b, http.MethodPost, "/drain?csrf="+word, "pool=ios", tc.change); status != http.StatusForbidden {
			t.Errorf("%s: a word in the address was taken: %d", name, status)
		}
	}
	h.wantCalls(t)
	for i, change := range []func(*http.Request){from("Origin", w.root), from("Sec-Fetch-Site", "same-origin")} {
		status, _, header := w.do(b, http.MethodPost, []string{"/drain", "/resume"}[i], form(word, "ios"), change)
		if status != http.StatusSeeOther || header.Get("Location") != "/" {
			t.Errorf("our own page was answered %d", status)
		}
	}
	h.wantCalls(t, "drain ios", "resume ios")
	if status, _, _ := w.do(b, http.MethodPost, "/drain", form(word, "none"), from("Origin", w.root)); status != http.StatusNotFound {
		t.Errorf("a pool that is not there: %d", status)
	}
	if status, _, _ := w.do(b, http.MethodPost, "/leave", form(word, ""), from("Origin", w.root)); status != http.StatusOK {
		t.Errorf("signing out: %d", status)
	}
	if status, _, _ := w.do(b, http.MethodGet, "/", "", func(r *http.Request) { r.AddCookie(w.cookieOf("x")) }); status != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", status)
	}
	if status, _, _ := w.get(other, "/", nil); status != http.StatusOK {
		t.Errorf("another's session has ended too: %d", status)
	}
}

func (w *world) cookieOf(value string) *http.Cookie {
	return &http.Cookie{Name: "tasuki-abcdef", Value: value}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	w := serve(t, newHost(t), nil)
	b := w.inside()
	for _, path := range everyPath(w) {
		if strings.HasPrefix(path, "/live") || strings.HasSuffix(path, "/log") {
			continue // they go on; the headers are set before
		}
		_, body, h := w.get(b, path, nil)
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy has no %s: %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: %s", path, policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") && (strings.Contains(body, " style=") || strings.Contains(body, " onclick") || strings.Contains(body, "<script>")) {
			t.Errorf("%s: the page has what its policy forbids", path)
		}
		if cache := h.Get("Cache-Control"); !strings.Contains(path, ".js") && !strings.Contains(path, ".css") && cache != "no-store" {
			t.Errorf("%s: kept by a cache: %q", path, cache)
		}
	}
}

// Text from elsewhere is text on every page.
func TestTextOfOthersIsNoMarkup(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	h := newHost(t)
	name := h.status.Runners[0].Name
	job := runner.Job{Name: evil, Repository: evil, Workflow: evil, URL: "javascript:alert(1)", Conclusion: evil}
	h.runs = []api.Run{{Runner: name, Pool: evil, Failed: true, Failure: evil, Created: time.Now(), Job: job}}
	h.set(func(s *api.Status) {
		s.Problems = []string{evil + ": " + evil}
		s.Runners[0].Job, s.Runners[0].Reason, s.Runners[0].Failed, s.Runners[0].Failure, s.Runners[0].Way = job, evil, true, evil, evil
		s.Pools = append(s.Pools, api.Pool{Name: evil, Scope: evil, Labels: []string{evil}, Image: evil, Draining: true})
	})
	w := serve(t, h, func(o *console.Options) {
		o.Findings = nil
	})
	b := w.inside()
	for _, path := range []string{"/", "/runs", "/runs?pool=" + url.QueryEscape(evil), "/runs/" + name, "/images", "/drain?pool=" + url.QueryEscape(evil), "/runs?time=" + url.QueryEscape(evil), "/" + url.PathEscape(evil)} {
		_, body, _ := w.get(b, path, nil)
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img src=x") || strings.Contains(body, `href="javascript:`) {
			t.Errorf("%s shows markup of others:\n%s", path, body)
		}
	}
}

// What runners and the machine say may hold no secret; this is about what the
// console itself knows: its links, its sessions, and the files beside the logs.
func TestNothingSecretIsOnAnyPage(t *testing.T) {
	h := newHost(t)
	w := serve(t, h, nil)
	const planted = "planted-key-of-a-guest-3f9a"
	for _, name := range []string{"secret", "x.key", "config.yaml"} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(planted), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := w.link()
	_, token, _ := strings.Cut(link.URL, "/enter/")
	b := w.inside()
	id := w.cookie(b).Value
	paths := append(everyPath(w), "/runs/..%2Fsecret/log.txt", "/runs/../secret/log.txt", "/runs/%2e%2e%2fsecret/log.txt", "/runs/x.key%00/log.txt",
		"/runs/x/log.txt?of=../secret", "/runs/secret/log.txt?of=console", "/assets/../config.yaml", "/runs/"+strings.Repeat("a", 300)+"/log.txt")
	for _, path := range paths {
		if strings.HasPrefix(path, "/live") || strings.HasSuffix(path, "/log") {
			continue
		}
		_, body, header := w.get(b, path, nil)
		for name, value := range map[string]string{"a link": token, "a session": id, "a file beside the logs": planted} {
			if strings.Contains(body, value) || strings.Contains(header.Get("Set-Cookie"), value) {
				t.Errorf("%s shows %s", path, name)
			}
		}
	}
}

func TestAConsoleThatIsOffOrCannotListen(t *testing.T) {
	off := serve(t, newHost(t), func(o *console.Options) { o.Listen = console.Off })
	if _, err := off.Link(t.Context()); !errors.Is(err, console.ErrOff) {
		t.Errorf("off: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	problems := make(chan string, 100)
	c, err := console.New(console.Options{Listen: l.Addr().String(), Host: newHost(t), Status: newHost(t).Status, Feed: new(console.Feed), Problem: func(text string) { problems <- text }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, stop := contextOf(t)
	go func() { defer close(ended); c.Run(ctx) }()
	if text := <-problems; !strings.Contains(text, "cannot listen on "+l.Addr().String()) {
		t.Errorf("the problem is %q", text)
	}
	if _, err := c.Link(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("the link: %v", err)
	}
	_ = l.Close()
	for text := range problems { // the port is free: the next try takes it
		if text == "" {
			break
		}
	}
	if _, err := c.Link(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	<-ended
}
