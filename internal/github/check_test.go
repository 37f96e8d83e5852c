package github_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
)

// wellReplies is a GitHub Enterprise Server where a repository and an organisation work.
func wellReplies() map[string]http.HandlerFunc {
	const runners = `{"total_count":0,"runners":[]}`
	return map[string]http.HandlerFunc{
		"/":                       answer(404, notFound),
		"GET /api/v3/rate_limit":  answer(200, `{"resources":{"core":{"limit":5000,"remaining":4999,"reset":1}}}`, "X-GitHub-Enterprise-Version", "3.17.1"),
		"GET /api/v3/user":        answer(200, `{"login":"mona"}`, "X-OAuth-Scopes", "repo, admin:org"),
		"GET " + repo + "runners": answer(200, runners),
		"GET " + repo + "runs":    answer(200, `{"workflow_runs":[]}`),
		"GET " + org + "runners":  answer(200, runners),
		"GET " + org + "runner-groups": answer(200, `{"runner_groups":[{"id":1,"name":"Default","default":true,"visibility":"all","allows_public_repositories":false},
			{"id":5,"name":"Macs","visibility":"selected","allows_public_repositories":true,"restricted_to_workflows":true},{"id":6,"name":"None","visibility":"selected"}]}`),
		"GET " + org + "runner-groups/5/repositories":     answer(200, `{"total_count":1,"repositories":[{"full_name":"octo/demo"}]}`),
		"GET " + org + "runner-groups/6/repositories":     answer(200, `{"total_count":0,"repositories":[]}`),
		"GET /api/v3/repos/octo/demo":                     answer(200, `{"full_name":"octo/demo","private":true}`),
		"GET /api/v3/repos/octo/demo/actions/permissions": answer(200, `{"enabled":true}`),
		"GET /api/v3/repos/octo/open":                     answer(200, `{"full_name":"octo/open","private":false}`),
		"POST " + repo + "runners/generate-jitconfig":     answer(201, jitReply),
		"POST " + org + "runners/generate-jitconfig":      answer(201, jitReply),
		"DELETE " + repo + "runners/7":                    answer(204, ""),
		"DELETE " + org + "runners/7":                     answer(204, ""),
	}
}

// checkOf runs a check and returns it as lines, with the server's address taken out.
func checkOf(t *testing.T, scope string, routes map[string]http.HandlerFunc, opt github.Options, trial github.Trial) string {
	t.Helper()
	f := &fake{ServeMux: http.NewServeMux()}
	for pattern, h := range routes {
		f.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", now.Format(http.TimeFormat))
			h(w, r)
		})
	}
	opt.URL, opt.Scope, opt.HTTP = "https://ghes.example.com", scope, emulator.Transport{Handler: f}
	if trial.Runner == "" {
		trial.Runner = "tasuki-a"
	}
	return lines(client(t, opt).Check(t.Context(), trial))
}

func lines(found []github.Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %s: %s | %s | %s\n", f.Verdict, f.Step, f.Text, f.Mend, strings.TrimPrefix(f.Page, "https://ghes.example.com"))
	}
	return b.String()
}

func tokenOf(token string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return secret.New(token), nil }
}

func TestCheckOfWhatIsWell(t *testing.T) {
	got := checkOf(t, "octo/demo", wellReplies(), github.Options{Token: tokenOf("ghp_classic")}, github.Trial{})
	want := `ok connection: https://ghes.example.com/api/v3/ answers, GitHub Enterprise Server 3.17.1 |  | 
ok authentication: personal access token (classic) of mona |  | 
ok scope: octo/demo: its runners can be listed |  | 
ok permissions: the token has the scope repo |  | 
ok repository: octo/demo is private |  | 
ok registration: a runner was registered, and removed again |  | 
ok rate limit: 4999 of 5000 calls left (core) |  | 
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	reset := fmt.Sprint(now.Add(time.Hour).Unix())
	tests := []struct {
		name, scope string
		token       string
		trial       github.Trial
		routes      map[string]http.HandlerFunc // beside those that are well
		want        string
		last        bool // nothing is tried after it
	}{
		{"revoked", "octo", "ghp_x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(401, `{"message":"Bad credentials"}`)},
			"wrong authentication: GitHub does not take the token: 401 Unauthorized: Bad credentials | it is mistyped, has expired or was revoked: make a new one | /settings/personal-access-tokens", true},
		{"scopes", "octo", "ghp_x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/user": answer(200, `{"login":"mona"}`, "X-OAuth-Scopes", "repo")},
			"wrong permissions: the token has the scopes repo and lacks admin:org | add it | /settings/tokens", true},
		{"scopes of gh", "octo", "gho_x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/user": answer(200, `{"login":"mona"}`, "X-OAuth-Scopes", "gist, read:org, repo")},
			"wrong permissions: the token has the scopes gist, read:org, repo and lacks admin:org", true},
		{"expires", "octo", "github_pat_x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/user": answer(200, `{"login":"mona"}`, "GitHub-Authentication-Token-Expiration", "2026-11-25 10:00:00 UTC")},
			"warning authentication: personal access token (fine-grained) of mona, expires 2026-11-25 | make a new one before that; a file with it is picked up without a restart | /settings/personal-access-tokens", false},
		{"no right", "octo/demo", "github_pat_x", github.Trial{}, map[string]http.HandlerFunc{"GET " + repo + "runners": answer(403, `{"message":"Resource not accessible by personal access token"}`)},
			"wrong scope: GitHub refuses us: 403 Forbidden: Resource not accessible by personal access token: either there is no octo/demo or the token may not manage its runners: it needs the repository permission Administration: read and write (a classic token: repo) | correct the pool's scope, or give the credential that permission | /settings/personal-access-tokens", true},
		{"may not register", "octo/demo", "github_pat_x", github.Trial{}, map[string]http.HandlerFunc{"POST " + repo + "runners/generate-jitconfig": answer(403, "")},
			"wrong registration: cannot register a runner of octo/demo: GitHub refuses us: 403 Forbidden: either", true},
		{"no jobs", "octo/demo", "github_pat_x", github.Trial{}, map[string]http.HandlerFunc{"GET " + repo + "runs": answer(403, `{}`)},
			"warning permissions: workflow runs cannot be read, so jobs have no names", false},
		{"archived", "octo/demo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/repos/octo/demo": answer(200, `{"full_name":"octo/demo","private":true,"archived":true}`)},
			"wrong repository: octo/demo is archived or disabled", true},
		{"actions off", "octo/demo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/repos/octo/demo/actions/permissions": answer(200, `{"enabled":false}`)},
			"wrong repository: GitHub Actions is switched off in octo/demo | allow it | /octo/demo/settings/actions", true},
		{"public repository", "octo/demo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/repos/octo/demo": answer(200, `{"full_name":"octo/demo","private":false}`)},
			"warning repository: octo/demo is public: a pull request of a stranger can run on this host", false},
		{"public, and the group admits none", "octo", "x", github.Trial{Repository: "octo/open"}, nil,
			`wrong runner group: "Default" does not admit public repositories, and octo/open is one: its jobs wait for ever | allow public repositories, if you trust whoever opens pull requests | /organizations/octo/settings/actions/runner-groups/1`, true},
		{"selected", "octo", "x", github.Trial{Group: "macs", Repository: "octo/open"}, nil,
			`wrong runner group: "Macs" does not admit octo/open: its jobs wait for ever | select it there | /organizations/octo/settings/actions/runner-groups/5`, true},
		{"selected and admitted", "octo", "x", github.Trial{Group: "macs", Repository: "octo/demo"}, nil,
			`ok runner group: "Macs" admits 1 selected repositories, public ones too`, false},
		{"workflows", "octo", "x", github.Trial{Group: "macs"}, nil, `warning runner group: "Macs" serves selected workflows only`, false},
		{"admits nobody", "octo", "x", github.Trial{Group: "none"}, nil, `wrong runner group: "None" admits no repository: every job waits for ever`, true},
		{"no group", "octo", "x", github.Trial{Group: "mcas"}, nil, `wrong runner group: there is no group "mcas"; there are: Default, Macs, None`, true},
		{"rate limit", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(403, `{}`, "X-RateLimit-Remaining", "0", "X-RateLimit-Limit", "5000", "X-RateLimit-Reset", reset)},
			"wrong rate limit: GitHub is left alone until 21:00:00 UTC: all 5000 calls of the hour are used up", true},
		{"few calls", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(200, `{"resources":{"core":{"limit":5000,"remaining":3,"reset":`+reset+`}}}`)},
			"warning rate limit: 3 of 5000 calls left (core), more from 21:00:00 UTC", true},
		{"no limits", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(404, `{"message":"Rate limiting is not enabled."}`)},
			"ok rate limit: there is none here", true},
		{"clock", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(200, `{}`, "Date", now.Add(-7*time.Minute).Format(http.TimeFormat))},
			"wrong clock: this host's clock: it is 7m0s ahead of GitHub's", false},
		{"trouble", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET /api/v3/rate_limit": answer(503, "<html>")},
			"wrong connection: https://ghes.example.com/api/v3/ has trouble: 503 Service Unavailable", true},
		{"a page", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"GET " + org + "runners": answer(200, "<html>hello</html>")},
			"wrong scope: ", true},
		{"stays", "octo", "x", github.Trial{}, map[string]http.HandlerFunc{"DELETE " + org + "runners/7": answer(502, "")},
			"warning registration: runner tasuki-a was registered and stays", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			routes := wellReplies()
			for pattern, h := range tt.routes {
				routes[pattern] = h
			}
			got := checkOf(t, tt.scope, routes, github.Options{Token: tokenOf(tt.token)}, tt.trial)
			_, after, found := strings.Cut("\n"+got, "\n"+tt.want)
			if !found {
				t.Fatalf("want %q in\n%s", tt.want, got)
			}
			if _, after, _ = strings.Cut(after, "\n"); (after == "") != tt.last {
				t.Errorf("after it came:\n%s", after)
			}
		})
	}
}

func TestCheckOfAnApp(t *testing.T) {
	app := &emulator.App{ID: 77, PublicKey: &keys()[0].PublicKey, Permissions: map[string]string{"actions": "write", "organization_self_hosted_runners": "read"}}
	e := emulator.New(emulator.Options{App: app})
	check := func(scope string) string {
		c, err := github.New(github.Options{URL: "http://127.0.0.1:1", Scope: scope, HTTP: emulator.Transport{Handler: e.Handler()},
			Log: slog.New(slog.DiscardHandler), App: &github.App{ID: "77", Key: keyOf(keys()[0])}})
		if err != nil {
			t.Fatal(err)
		}
		return lines(c.Check(t.Context(), github.Trial{Runner: "tasuki-a"}))
	}
	for scope, want := range map[string][]string{
		"octo": {"ok authentication: app 77, installation 9001 for octo", "wrong permissions: the installation lacks the permission organization_self_hosted_runners: write | change the app's permissions, then accept them for the installation | http"},
		"beta": {"wrong authentication: cannot find the installation for beta: GitHub refuses us: it is installed for octo; install it for beta"},
	} {
		got := check(scope)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", scope, w, got)
			}
		}
	}
	app.Permissions = nil
	if got := check("octo/demo"); strings.Contains(got, "wrong") || !strings.Contains(got, "ok registration") {
		t.Errorf("with all permissions:\n%s", got)
	}
}
