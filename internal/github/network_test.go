package github_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

func overNetwork(t *testing.T, url string, n github.Network) error {
	t.Helper()
	carrier, err := github.NewHTTP(n)
	if err != nil {
		t.Fatal(err)
	}
	defer carrier.CloseIdleConnections()
	_, err = client(t, github.Options{URL: url, Scope: "octo", HTTP: carrier}).Runners(t.Context())
	return err
}

func TestAPrivateAuthority(t *testing.T) {
	srv := httptest.NewUnstartedServer(answer(200, `{"total_count":0,"runners":[]}`))
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := overNetwork(t, srv.URL, github.Network{CA: ca}); err != nil {
		t.Errorf("trusted: %v", err)
	}
	if err := overNetwork(t, srv.URL, github.Network{}); err == nil || !strings.Contains(err.Error(), "name the authority's certificate under github.ca") {
		t.Errorf("not trusted: %v", err)
	}
	if _, err := github.NewHTTP(github.Network{CA: []byte("hello")}); err == nil {
		t.Error("a file without a certificate is taken")
	}
}

func TestAProxyIsAskedForAllButThisMachine(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	if err := overNetwork(t, "https://ghes.example.com", github.Network{Proxy: proxy.URL}); err == nil {
		t.Error("the proxy refused")
	}
	srv := httptest.NewServer(answer(200, `{"total_count":0,"runners":[]}`))
	defer srv.Close()
	if err := overNetwork(t, srv.URL, github.Network{Proxy: proxy.URL}); err != nil {
		t.Errorf("this machine: %v", err)
	}
	if len(asked) != 1 || asked[0] != "CONNECT ghes.example.com:443" {
		t.Errorf("the proxy was asked %v", asked)
	}
	proxy.Close()
	if err := overNetwork(t, "https://ghes.example.com", github.Network{Proxy: proxy.URL}); err == nil || !strings.Contains(err.Error(), "github.proxy") {
		t.Errorf("no proxy: %v", err)
	}
	if _, err := github.NewHTTP(github.Network{Proxy: "proxy"}); err == nil {
		t.Error("a proxy without a scheme is taken")
	}
}

func TestAServerThatIsTooOld(t *testing.T) {
	c, _ := serve(t, "octo/demo", map[string]http.HandlerFunc{"/": answer(404, notFound, "X-GitHub-Enterprise-Version", "3.9.4")})
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "a", Way: runner.ByJIT}); err == nil || !strings.Contains(err.Error(), "3.10 or newer") {
		t.Errorf("got %v", err)
	}
	c, _ = serve(t, "octo/demo", map[string]http.HandlerFunc{
		"/": answer(404, notFound, "X-GitHub-Enterprise-Version", "3.9.4"),
		"POST /api/v3/repos/octo/demo/actions/runners/registration-token": answer(201, `{"token":"AABBCC"}`),
	})
	got, err := c.Credential(t.Context(), runner.Registration{Name: "a", Labels: []string{"x"}})
	if err != nil || got.Setup == nil || got.Setup.Token.Reveal() != "AABBCC" || got.Setup.Name != "a" || !strings.HasSuffix(got.Setup.URL, "/octo/demo") {
		t.Errorf("got %+v, %v, want what config.sh needs", got.Setup, err)
	}
	c, _ = serve(t, "octo/demo", map[string]http.HandlerFunc{"/": answer(404, notFound, "X-GitHub-Enterprise-Version", "3.17.0")})
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "a"}); err == nil || strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
}

// Pages that people open are of the GitHub that they use.
func TestPagesAreOfTheGitHub(t *testing.T) {
	refuse := roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		answer(401, `{"message":"Bad credentials"}`)(w, r)
		res := w.Result()
		res.Request = r
		return res, nil
	})
	for url, want := range map[string]string{
		"":                         "https://github.com/settings/personal-access-tokens",
		"https://acme.ghe.com":     "https://acme.ghe.com/settings/personal-access-tokens",
		"https://ghes.example.com": "https://ghes.example.com/settings/personal-access-tokens",
	} {
		found := client(t, github.Options{URL: url, Scope: "octo", HTTP: refuse}).Check(t.Context(), github.Trial{})
		if last := found[len(found)-1]; last.Page != want || last.Verdict != github.Wrong {
			t.Errorf("%q: %+v, want page %s", url, last, want)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
