package emulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const goodManifest = `{"name":"Runners of octo","url":"https://example.com","redirect_url":"http://127.0.0.1:9/back?x=1",
	"default_permissions":{"organization_self_hosted_runners":"write"}}`

// postForm sends a form as a browser does, and stays where it is sent back from.
func postForm(t *testing.T, e *Emulator, path string, form url.Values) *http.Response {
	t.Helper()
	c := e.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.PostForm("http://github.test"+path, form)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// codeOf makes a draft of an App and returns its code.
func codeOf(t *testing.T, e *Emulator, path string) string {
	t.Helper()
	res := postForm(t, e, path, url.Values{"manifest": {goodManifest}})
	back, err := res.Location()
	if err != nil || res.StatusCode != http.StatusFound {
		t.Fatalf("%s, %v; want to be sent back", res.Status, err)
	}
	q := back.Query()
	if back.Host != "127.0.0.1:9" || q.Get("x") != "1" || q.Get("state") != "s t" || q.Get("code") == "" {
		t.Errorf("sent back to %s", back)
	}
	return q.Get("code")
}

// convert converts a code and returns the status and the App.
func convert(t *testing.T, e *Emulator, code string) (int, map[string]any) {
	t.Helper()
	res := postForm(t, e, "/api/v3/app-manifests/"+code+"/conversions", nil)
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

func TestManifestMakesAnApp(t *testing.T) {
	e := New(Options{})
	code := codeOf(t, e, "/organizations/octo/settings/apps/new?state=s+t")
	status, app := convert(t, e, code)
	if pem, _ := app["pem"].(string); status != http.StatusCreated || app["slug"] != "runners-of-octo" || !strings.HasPrefix(pem, "-----BEGIN RSA PRIVATE KEY-----") {
		t.Fatalf("%d %v", status, app)
	}
	if status, _ := convert(t, e, code); status != http.StatusNotFound {
		t.Errorf("the same code again: %d", status)
	}
	if res := postForm(t, e, "/organizations/octo/settings/apps/new", url.Values{"manifest": {goodManifest}}); res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a second App of that name: %s", res.Status)
	}
	if res := postForm(t, e, "/apps/runners-of-octo/installations/new", url.Values{"account": {"elsewhere"}}); res.StatusCode != http.StatusNotFound {
		t.Errorf("a private App, installed for somebody else: %s", res.Status)
	}
	for range 2 {
		if res := postForm(t, e, "/apps/runners-of-octo/installations/new", nil); res.StatusCode != http.StatusOK {
			t.Errorf("installed for its owner: %s", res.Status)
		}
	}
	a, _ := e.appWhere(func(a *registeredApp) bool { return a.slug == "runners-of-octo" })
	if len(a.installs) != 1 || a.installs[0].account != "octo" {
		t.Errorf("installations %v", a.installs)
	}
}

func TestManifestCodeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Options{})
		late := codeOf(t, e, "/settings/apps/new?state=s+t")
		time.Sleep(time.Hour)
		if status, _ := convert(t, e, late); status != http.StatusNotFound {
			t.Errorf("after an hour: %d", status)
		}
	})
}

func TestManifestRefused(t *testing.T) {
	e := New(Options{})
	for want, m := range map[string]string{
		`"url" wasn`:         `{"name":"x","redirect_url":"http://127.0.0.1/"}`,
		`"url" wasn't`:       `{"name":"x","url":"https://example.com","redirect_url":"http://127.0.0.1/","hook_attributes":{"active":false}}`,
		"redirect_url must":  `{"name":"x","url":"https://example.com","redirect_url":"/back"}`,
		"Name is too long":   `{"name":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","url":"https://example.com","redirect_url":"http://127.0.0.1/"}`,
		"Name has already":   `{"url":"https://example.com","redirect_url":"http://127.0.0.1/"}`,
		"is no access level": `{"name":"x","url":"https://example.com","redirect_url":"http://127.0.0.1/","default_permissions":{"actions":"all"}}`,
		"is no JSON":         `name: x`,
	} {
		res := postForm(t, e, "/settings/apps/new", url.Values{"manifest": {m}})
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(strings.NewReplacer("&#34;", `"`, "&#39;", "'").Replace(string(body)), want) {
			t.Errorf("%s: %s %s, %v; want %q", m, res.Status, body, err, want)
		}
	}
	if res := postForm(t, e, "/organizations/other/settings/apps/new", url.Values{"manifest": {goodManifest}}); res.StatusCode != http.StatusNotFound {
		t.Errorf("an App of others: %s", res.Status)
	}
}
