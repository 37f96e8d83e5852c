package github_test

import (
	"context"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
)

// onLoopback serves an emulator, which wants a token, and returns its address.
func onLoopback(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- emulator.New(emulator.Options{Token: secret.New(token)}).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

var formParts = regexp.MustCompile(`action="([^"]*)".*name="manifest" value="([^"]*)"`)

// browse does what a person's browser does with the page, up to where GitHub
// sends it back to.
func browse(t *testing.T, address string) (back *url.URL, manifest string) {
	t.Helper()
	res, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := formParts.FindSubmatch(body)
	if res.StatusCode != http.StatusOK || m == nil {
		t.Fatalf("%s: no form in %s", res.Status, body)
	}
	manifest = html.UnescapeString(string(m[2]))
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	sent, err := c.PostForm(html.UnescapeString(string(m[1])), url.Values{"manifest": {manifest}})
	if err != nil {
		t.Fatal(err)
	}
	defer sent.Body.Close()
	if back, err = sent.Location(); err != nil {
		text, _ := io.ReadAll(sent.Body)
		t.Fatalf("GitHub does not send us back: %s %s", sent.Status, text)
	}
	return back, manifest
}

func get(t *testing.T, address, host string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

type made struct {
	app github.MadeApp
	err error
}

// begin makes an App in the background; the address is the page's.
func begin(t *testing.T, ctx context.Context, n github.NewApp) (address string, result <-chan made) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	shown, out := make(chan string, 1), make(chan made, 1)
	go func() {
		app, err := n.Make(ctx, l, func(a string) { shown <- a })
		out <- made{app, err}
	}()
	select {
	case address = <-shown:
	case r := <-out:
		t.Fatalf("no page: %v", r.err)
	}
	return address, out
}

func account(t *testing.T, opt github.Options) *github.Account {
	t.Helper()
	a, err := github.NewAccount(opt)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestMakeAnApp(t *testing.T) {
	for scope, want := range map[string]map[string]string{
		"octo":      {"metadata": "read", "actions": "read", "organization_self_hosted_runners": "write"},
		"octo/demo": {"metadata": "read", "actions": "read", "administration": "write"},
	} {
		t.Run(scope, func(t *testing.T) {
			hub := onLoopback(t)
			a := account(t, github.Options{URL: hub})
			if is, err := a.IsOrganisation(t.Context(), "octo"); err != nil || !is {
				t.Fatalf("octo is an organisation: %t, %v", is, err)
			}
			address, result := begin(t, t.Context(), github.NewApp{Account: a, Scope: scope, Organisation: "octo", Name: github.AppName("octo")})
			back, manifest := browse(t, address)
			var m struct {
				Permissions map[string]string `json:"default_permissions"`
				Public      bool              `json:"public"`
				Hook        any               `json:"hook_attributes"`
			}
			if err := json.Unmarshal([]byte(manifest), &m); err != nil || m.Public || m.Hook != nil {
				t.Errorf("manifest %s, %v", manifest, err)
			}
			if diff := cmp.Diff(want, m.Permissions); diff != "" {
				t.Errorf("permissions (-want +got):\n%s", diff)
			}
			if status := get(t, back.String(), ""); status != http.StatusOK {
				t.Errorf("coming back is answered %d", status)
			}
			r := <-result
			if r.err != nil || r.app.ID == 0 || !strings.Contains(r.app.Key.Reveal(), "RSA PRIVATE KEY") {
				t.Fatalf("%+v, %v", r.app, r.err)
			}
			useNewApp(t, hub, scope, r.app)
		})
	}
}

// useNewApp installs the App and walks the way of a registration with it.
func useNewApp(t *testing.T, hub, scope string, app github.MadeApp) {
	t.Helper()
	c, err := github.New(github.Options{URL: hub, Scope: scope, App: &github.App{
		ID: app.ClientID, Key: func(context.Context) (secret.String, error) { return app.Key, nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	if before := c.Check(t.Context(), github.Trial{}); !strings.Contains(lines(before), "installed nowhere") {
		t.Errorf("before it is installed:\n%s", lines(before))
	}
	res, err := http.PostForm(app.InstallPage(), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("install: %v", err)
	}
	res.Body.Close()
	if err := c.AwaitInstallation(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Check(t.Context(), github.Trial{Runner: "tasuki-check", Labels: []string{"x"}}) {
		if f.Verdict == github.Wrong {
			t.Errorf("check: %+v", f)
		}
	}
}

func TestThePageForAnAppIsOfOneUse(t *testing.T) {
	a := account(t, github.Options{URL: onLoopback(t)})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	address, result := begin(t, ctx, github.NewApp{Account: a, Scope: "octo", Organisation: "octo", Name: "one"})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Path) < 20 {
		t.Errorf("the page %s can be guessed", address)
	}
	root := "http://" + u.Host
	for _, tt := range []struct {
		address, host string
		want          int
	}{
		{address, "evil.example", http.StatusMisdirectedRequest}, // a name that was bound to our address anew
		{root + "/", "", http.StatusNotFound},
		{root + "/made?code=x", "", http.StatusForbidden},
		{root + "/made?code=x&state=guessed", "", http.StatusForbidden},
	} {
		if got := get(t, tt.address, tt.host); got != tt.want {
			t.Errorf("%s as %q is answered %d, want %d", tt.address, tt.host, got, tt.want)
		}
	}
	select {
	case r := <-result:
		t.Fatalf("it ended: %v", r.err)
	default:
	}
	cancel(errors.New("given up"))
	if r := <-result; r.err == nil || !strings.Contains(r.err.Error(), "given up") {
		t.Errorf("given up: %v", r.err)
	}
	if _, err := net.Dial("tcp", u.Host); err == nil {
		t.Error("the page is still there")
	}
}

func TestWhatNoAppCanBeMadeFor(t *testing.T) {
	a := account(t, github.Options{URL: "http://127.0.0.1:1"})
	for want, n := range map[string]github.NewApp{
		"lets no App manage": {Account: a, Scope: "enterprises/big", Name: "x"},
		"as a scope":         {Account: a, Scope: "a/b/c", Name: "x"},
		"must have 1 to 34":  {Account: a, Scope: "octo", Name: strings.Repeat("x", 35)},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Make(t.Context(), l, func(string) { t.Error("a page was shown") }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", n.Scope, err, want)
		}
	}
	if name := github.AppName(strings.Repeat("o", 39)); len(name) > 34 {
		t.Errorf("%q has %d letters", name, len(name))
	}
}
