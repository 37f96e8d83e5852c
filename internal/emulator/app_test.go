package emulator_test

import (
	"crypto/rsa"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
)

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAppsAssertionIsChecked(t *testing.T) {
	key, _ := appKey(t)
	foreign, _ := appKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{App: &emulator.App{ID: 7, ClientID: "Iv1.x", PublicKey: &key.PublicKey}})
		now := time.Now()
		at := func(d time.Duration) int64 { return now.Add(d).Unix() }
		good := jwt.MapClaims{"iss": "Iv1.x", "iat": at(-time.Minute), "exp": at(9 * time.Minute)}
		with := func(name string, v any) jwt.MapClaims {
			out := jwt.MapClaims{}
			for k, v := range good {
				out[k] = v
			}
			if out[name] = v; v == nil {
				delete(out, name)
			}
			return out
		}
		for name, c := range map[string]struct {
			assertion string
			status    int
			message   string
		}{
			"client id":           {sign(t, jwt.SigningMethodRS256, key, good), 200, ""},
			"app id":              {sign(t, jwt.SigningMethodRS256, key, with("iss", "7")), 200, ""},
			"app id as number":    {sign(t, jwt.SigningMethodRS256, key, with("iss", 7)), 200, ""},
			"ten minutes":         {sign(t, jwt.SigningMethodRS256, key, with("exp", at(10*time.Minute))), 200, ""},
			"another App":         {sign(t, jwt.SigningMethodRS256, key, with("iss", "8")), 404, "Integration not found"},
			"another key":         {sign(t, jwt.SigningMethodRS256, foreign, good), 401, "could not be decoded"},
			"another method":      {sign(t, jwt.SigningMethodPS256, key, good), 401, "could not be decoded"},
			"the public as HMAC":  {sign(t, jwt.SigningMethodHS256, key.N.Bytes(), good), 401, "could not be decoded"},
			"no signature":        {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good), 401, "could not be decoded"},
			"no token":            {"nonsense", 401, "could not be decoded"},
			"eleven minutes":      {sign(t, jwt.SigningMethodRS256, key, with("exp", at(11*time.Minute))), 401, "too far in the future"},
			"expired":             {sign(t, jwt.SigningMethodRS256, key, with("exp", at(-time.Second))), 401, "'Expiration time' claim"},
			"without expiry":      {sign(t, jwt.SigningMethodRS256, key, with("exp", nil)), 401, "'Expiration time' claim"},
			"without issue":       {sign(t, jwt.SigningMethodRS256, key, with("iat", nil)), 401, "'Issued at' claim"},
			"issued to-morrow":    {sign(t, jwt.SigningMethodRS256, key, with("iat", at(time.Minute))), 401, "'Issued at' claim"},
			"a token, not an App": {"ghp_abc", 401, "could not be decoded"},
		} {
			_, resp, err := client(t, w.base, w.Client(), c.assertion).Apps.Get(t.Context(), "")
			if resp.StatusCode != c.status || c.message != "" && !strings.Contains(err.Error(), c.message) {
				t.Errorf("%s: answered %d, %v; want %d %q", name, resp.StatusCode, err, c.status, c.message)
			}
		}
	})
}

// asApp is go-github with an assertion of the App, and with a token of one of its installations.
func asApp(t *testing.T, w *world, key *rsa.PrivateKey, installation int64) (app, installed *github.Client) {
	t.Helper()
	now := time.Now()
	app = client(t, w.base, w.Client(), sign(t, jwt.SigningMethodRS256, key,
		jwt.MapClaims{"iss": "1", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}))
	token, resp, err := app.Apps.CreateInstallationToken(t.Context(), installation, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("a token of installation %d: %v", installation, err)
	}
	return app, client(t, w.base, w.Client(), token.GetToken())
}

func TestAnAppFindsItsInstallationOnTheLastPage(t *testing.T) {
	key, _ := appKey(t)
	synctest.Test(t, func(t *testing.T) {
		elsewhere := slices.Repeat([]string{"other"}, 100)
		w := bubble(t, emulator.Options{App: &emulator.App{PublicKey: &key.PublicKey, Elsewhere: elsewhere}})
		app, _ := asApp(t, w, key, 9101)
		opts := &github.ListOptions{PerPage: 100}
		var found []int64
		pages := 0
		for {
			page, resp, err := app.Apps.ListInstallations(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, i := range page {
				if i.GetAccount().GetLogin() == owner {
					found = append(found, i.GetID())
				}
			}
			if opts.Page = resp.NextPage; opts.Page == 0 {
				break
			}
		}
		if pages != 2 || !slices.Equal(found, []int64{9101}) {
			t.Errorf("found %v on %d pages", found, pages)
		}
		org, _, err := app.Apps.FindOrganizationInstallation(t.Context(), owner)
		if err != nil || org.GetID() != 9101 {
			t.Errorf("the organization's is %v, %v", org, err)
		}
		rep, _, err := app.Apps.FindRepositoryInstallation(t.Context(), owner, repo)
		if err != nil || rep.GetID() != 9101 || rep.GetPermissions().GetOrganizationSelfHostedRunners() != "write" {
			t.Errorf("the repository's is %v, %v", rep, err)
		}
		for _, name := range []string{"nobody", "demo"} {
			if _, resp, _ := app.Apps.FindOrganizationInstallation(t.Context(), name); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s's is answered %d, want 404", name, resp.StatusCode)
			}
		}
		if _, resp, _ := app.Apps.CreateInstallationToken(t.Context(), 1, nil); resp.StatusCode != http.StatusNotFound {
			t.Errorf("a token of no installation is answered %d, want 404", resp.StatusCode)
		}
	})
}

func TestWhatACredentialMayDo(t *testing.T) {
	key, _ := appKey(t)
	list := func(c *github.Client, kind string) int {
		var resp *github.Response
		switch kind {
		case "repository":
			_, resp, _ = c.Actions.ListRunners(t.Context(), owner, repo, nil)
		case "organization":
			_, resp, _ = c.Actions.ListOrganizationRunners(t.Context(), owner, nil)
		case "token":
			_, resp, _ = c.Actions.CreateRegistrationToken(t.Context(), owner, repo)
		case "enterprise":
			_, resp, _ = c.Enterprise.ListRunners(t.Context(), "big", nil)
		case "runs":
			_, resp, _ = c.Actions.ListRepositoryWorkflowRuns(t.Context(), owner, repo, nil)
		}
		return resp.StatusCode
	}
	for name, c := range map[string]struct {
		opts         emulator.Options
		installation int64 // 0: the personal access token
		want         map[string]int
	}{
		"App": {emulator.Options{App: &emulator.App{}}, 9001,
			map[string]int{"repository": 200, "organization": 200, "token": 201, "enterprise": 403, "runs": 200}},
		"App that may read repositories": {emulator.Options{App: &emulator.App{Permissions: map[string]string{"administration": "read"}}}, 9001,
			map[string]int{"repository": 200, "organization": 403, "token": 403, "runs": 403}},
		"App of another account": {emulator.Options{App: &emulator.App{Elsewhere: []string{"other"}}}, 9001,
			map[string]int{"repository": 404, "organization": 404}},
		"token without scopes": {emulator.Options{Token: secret.New("github_pat_x")}, 0,
			map[string]int{"repository": 200, "organization": 200, "token": 201, "enterprise": 200}},
		"classic token for repositories": {emulator.Options{Token: secret.New("ghp_x"), Scopes: []string{"repo"}}, 0,
			map[string]int{"repository": 200, "organization": 403, "token": 201, "enterprise": 403}},
		"classic token for all": {emulator.Options{Token: secret.New("ghp_x"), Scopes: []string{"repo", "admin:org", "manage_runners:enterprise"}}, 0,
			map[string]int{"repository": 200, "organization": 200, "enterprise": 200}},
		"token beside an App": {emulator.Options{Token: secret.New("ghp_x"), App: &emulator.App{}}, 0, map[string]int{"repository": 200}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.opts.App != nil {
				c.opts.App.PublicKey = &key.PublicKey
			}
			w := bubble(t, c.opts)
			rest := w.rest
			if c.installation != 0 {
				_, rest = asApp(t, w, key, c.installation)
			}
			for kind, want := range c.want {
				if got := list(rest, kind); got != want {
					t.Errorf("%s is answered %d, want %d", kind, got, want)
				}
			}
			if c.opts.Scopes != nil {
				_, resp, err := rest.Users.Get(t.Context(), "")
				if err != nil || resp.Header.Get("X-OAuth-Scopes") != strings.Join(c.opts.Scopes, ", ") {
					t.Errorf("the scopes are told as %q, %v", resp.Header.Get("X-OAuth-Scopes"), err)
				}
			}
		})
	}
}

func TestAnInstallationTokenExpires(t *testing.T) {
	key, _ := appKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{App: &emulator.App{PublicKey: &key.PublicKey}})
		_, c := asApp(t, w, key, 9001)
		time.Sleep(59 * time.Minute)
		if _, resp, _ := c.Actions.ListRunners(t.Context(), owner, repo, nil); resp.StatusCode != http.StatusOK {
			t.Errorf("after 59 min: %d", resp.StatusCode)
		}
		time.Sleep(time.Minute)
		if _, resp, _ := c.Actions.ListRunners(t.Context(), owner, repo, nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("after an hour: %d, want 401", resp.StatusCode)
		}
		if _, _, err := client(t, w.base, w.Client(), "").Actions.ListRunners(t.Context(), owner, repo, nil); err == nil {
			t.Error("no token is needed")
		}
	})
}
