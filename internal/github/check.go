package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/runner"
)

// Verdict is what Check thinks of one step.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // runners work, and somebody should look at it
	Wrong   Verdict = "wrong"   // runners do not work
	Unknown Verdict = "unknown" // it cannot be seen with this credential
)

// Finding is what Check saw of one step.
type Finding struct {
	Step    string  `json:"step"`
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`           // what was seen
	Mend    string  `json:"mend,omitempty"` // what to do about it
	Page    string  `json:"page,omitempty"` // where to do it
}

// Trial says what Check shall look at.
type Trial struct {
	Group string // runner group by name; empty: the default one
	// Repository, "owner/name", is one that the scope's runners are for. Empty:
	// none in particular, or the scope itself.
	Repository string
	// Runner is the name of a runner that is registered for a moment and taken
	// away again: GitHub has no other way to try it. Empty: none is.
	Runner string
	Labels []string
}

const (
	// maxSkew is the difference of clocks from which runner programs are refused.
	// Source: actions/runner, whose session fails from 5 min on.
	maxSkew = 5 * time.Minute
	// someSkew is worth a word.
	someSkew = time.Minute
	// expirySoon is how long before it expires a token is worth a word.
	expirySoon = 7 * 24 * time.Hour
	// fewCalls is the part of a limit below which it is worth a word.
	fewCalls = 10
)

const limitsPage = "https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api"

// Check walks the way that a registration takes, and says of each step whether
// it works. It ends early where the steps behind cannot work.
func (c *Client) Check(ctx context.Context, t Trial) []Finding {
	k := &check{c: c, t: t, web: c.account.web()}
	for _, step := range []func(context.Context) bool{
		k.connection, k.authentication, k.visible, k.permissions, k.repository, k.group, k.registration, k.limits,
	} {
		if !step(ctx) {
			break
		}
	}
	return k.found
}

// check is one walk.
type check struct {
	c     *Client
	t     Trial
	web   string // where people look at this GitHub
	found []Finding

	rates   *rateReply
	scopes  string // of a classic token
	classic bool
}

type rateReply struct {
	Resources map[string]struct {
		Limit     int   `json:"limit"`
		Remaining int   `json:"remaining"`
		Reset     int64 `json:"reset"`
	} `json:"resources"`
}

// say adds a finding and returns whether to go on.
func (k *check) say(step string, v Verdict, text, mend, page string) bool {
	k.found = append(k.found, Finding{step, v, text, mend, page})
	return v != Wrong
}

func (k *check) get(ctx context.Context, path string, v any) (*github.Response, error) {
	return k.c.id.send(ctx, k.c.api, request{http.MethodGet, path, nil}, v)
}

// web is the address of a GitHub for people.
func (a *Account) web() string {
	host := a.base.Host
	if a.base.Path == "/" { // not a GitHub Enterprise Server
		host = strings.TrimPrefix(host, "api.")
	}
	return a.base.Scheme + "://" + host
}

// settings is the page of the scope's settings for Actions.
func (k *check) settings(page string) string {
	s := k.c.scope
	switch {
	case s.repository():
		return k.web + "/" + s.name + "/settings/actions/" + page
	case s.enterprise():
		return k.web + "/" + s.name + "/settings/actions/" + page
	}
	return k.web + "/organizations/" + s.name + "/settings/actions/" + page
}

// connection asks something that costs nothing. Whatever GitHub answers, it is
// there; the authentication is judged after it.
func (k *check) connection(ctx context.Context) bool {
	var rates rateReply
	res, err := k.get(ctx, "rate_limit", &rates)
	base := k.c.account.base.String()
	if _, limited := errors.AsType[*LimitError](err); limited {
		return k.say("rate limit", Wrong, err.Error(), "wait, or find out who else uses this credential", limitsPage)
	}
	if res == nil || res.Response == nil {
		return k.failedConnection(base, err)
	}
	text := base + " answers"
	if v := res.Header.Get("X-Github-Enterprise-Version"); v != "" {
		text += ", GitHub Enterprise Server " + v
	}
	k.say("connection", OK, text, "", "")
	k.clock(res)
	if err == nil {
		k.rates = &rates
	}
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return k.say("authentication", Wrong, "GitHub does not take the token: "+words(err, res.Response),
			"it is mistyped, has expired or was revoked: make a new one", k.tokenPage())
	case http.StatusOK, http.StatusNotFound, http.StatusForbidden: // 404: a server without limits
		return true
	}
	return k.say("connection", Wrong, base+" has trouble: "+words(err, res.Response), "try again; its state is told there", "https://www.githubstatus.com")
}

// failedConnection tells why there was no reply: we have no credential, or
// nobody answers.
func (k *check) failedConnection(base string, err error) bool {
	if ours, ok := errors.AsType[*credentialError](err); ok {
		return k.say("authentication", Wrong, ours.Error(), "mend it, or make a new one", k.tokenPage())
	}
	return k.say("connection", Wrong, fmt.Sprintf("%s does not answer: %v", base, barren(err)),
		cmp.Or(networkHint(err), "check github.url, the network, github.proxy and HTTPS_PROXY"), "")
}

// barren is an error without the address that was asked.
func barren(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func (k *check) clock(res *github.Response) {
	ahead, known := skew(res.Response, k.c.now())
	switch {
	case !known || ahead.Abs() < someSkew:
	case ahead.Abs() < maxSkew:
		k.say("clock", Warning, "this host's clock: "+skewWords(res.Response, k.c.now()), "set it by NTP; from 5m on runners are refused", "")
	default:
		k.say("clock", Wrong, "this host's clock: "+skewWords(res.Response, k.c.now()), "set it by NTP; guests take it over, and runners are refused", "")
	}
}

// authentication says who we are.
func (k *check) authentication(ctx context.Context) bool {
	const step = "authentication"
	switch {
	case k.c.id.app != nil:
		return k.app(ctx)
	case k.c.id.fetch == nil:
		return k.say(step, OK, "no credential is configured, and none is asked for", "", "")
	}
	token, err := k.c.id.get(ctx)
	if err != nil {
		return k.say(step, Wrong, err.Error(), "", k.tokenPage())
	}
	kind := tokenKind(token.Reveal())
	k.classic = kind == classicToken
	var user struct {
		Login string `json:"login"`
	}
	res, err := k.get(ctx, "user", &user)
	if status(err) == http.StatusUnauthorized {
		return k.say(step, Wrong, "GitHub does not take the token: "+words(err, reply(err)), "it is mistyped, has expired or was revoked: make a new one", k.tokenPage())
	}
	text := kind
	if err == nil && user.Login != "" {
		text += " of " + user.Login
	}
	if err != nil {
		return k.say(step, OK, text, "", "")
	}
	k.scopes = res.Header.Get("X-Oauth-Scopes")
	if at, ok := expiry(res.Header.Get("Github-Authentication-Token-Expiration")); ok {
		text += ", expires " + at.UTC().Format(time.DateOnly)
		if at.Sub(k.c.now()) < expirySoon {
			return k.say(step, Warning, text, "make a new one before that; a file with it is picked up without a restart", k.tokenPage())
		}
	}
	return k.say(step, OK, text, "", "")
}

// expiry reads the header that says when a token expires.
func expiry(header string) (time.Time, bool) {
	for _, form := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700"} {
		if at, err := time.Parse(form, header); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// The kinds of tokens, by their first letters. Source: docs.github.com, "About
// authentication to GitHub".
const classicToken = "personal access token (classic)"

func tokenKind(token string) string {
	for _, k := range []struct{ prefix, kind string }{
		{"ghp_", classicToken},
		{"github_pat_", "personal access token (fine-grained)"},
		{"gho_", "token of an OAuth app, such as gh"},
		{"ghu_", "token of a user of an App"},
		{"ghs_", "token of an App's installation"},
	} {
		if strings.HasPrefix(token, k.prefix) {
			return k.kind
		}
	}
	return "a token that GitHub takes"
}

// app looks at the installation of a GitHub App.
func (k *check) app(ctx context.Context) bool {
	const step = "authentication"
	app := k.c.id.app
	api, err := app.asApp(ctx)
	if err != nil {
		return k.say(step, Wrong, err.Error(), "github.app.key names the file that GitHub gave once, when the key was made", k.tokenPage())
	}
	if app.app.Installation != 0 {
		return k.say(step, OK, fmt.Sprintf("app %s, installation %d", app.app.ID, app.app.Installation), "", "")
	}
	in, err := app.search(ctx, api)
	if err != nil {
		return k.say(step, Wrong, barren(err).Error(), "install the app for "+k.c.scope.owner(), k.tokenPage())
	}
	text := fmt.Sprintf("app %s, installation %d for %s", app.app.ID, *in.ID, cmp.Or(in.Account.Login, in.Account.Slug))
	if in.Selection == "selected" {
		text += ", selected repositories"
	}
	k.say(step, OK, text, "", "")
	for permission, level := range k.c.scope.permissions() {
		if in.Permissions == nil || in.Permissions[permission] == "write" || in.Permissions[permission] == level {
			continue
		}
		v := Wrong
		if level == "read" {
			v = Warning
		}
		if !k.say("permissions", v, fmt.Sprintf("the installation lacks the permission %s: %s", permission, level),
			"change the app's permissions, then accept them for the installation", cmp.Or(in.HTMLURL, k.tokenPage())) {
			return false
		}
	}
	return true
}

// visible looks at the scope's runners: whether it is there and we may see it.
func (k *check) visible(ctx context.Context) bool {
	err := k.c.visible(ctx)
	if err == nil {
		return k.say("scope", OK, k.c.scope.name+": its runners can be listed", "", "")
	}
	text := k.c.meaning(err).Error()
	switch status(err) {
	case http.StatusForbidden, http.StatusNotFound:
		return k.say("scope", Wrong, text, "correct the pool's scope, or give the credential that permission", k.tokenPage())
	case http.StatusUnauthorized:
		return k.say("authentication", Wrong, text, "make a new one", k.tokenPage())
	}
	return k.say("scope", Wrong, text, "", "")
}

// permissions looks at those that can be seen without trying.
func (k *check) permissions(ctx context.Context) bool {
	const step = "permissions"
	if k.scopes != "" { // only such tokens have them: classic ones, and those of gh
		has := strings.Split(strings.ReplaceAll(k.scopes, " ", ""), ",")
		if slices.Contains(has, "admin:enterprise") {
			has = append(has, "manage_runners:enterprise")
		}
		if want := k.c.scope.classic(); !slices.Contains(has, want) {
			return k.say(step, Wrong, fmt.Sprintf("the token has the scopes %s and lacks %s", k.scopes, want), "add it", k.web+"/settings/tokens")
		}
		k.say(step, OK, "the token has the scope "+k.c.scope.classic(), "", "")
	}
	if !k.c.scope.repository() {
		return true
	}
	_, err := k.c.call(ctx, http.MethodGet, "/actions/runs?per_page=1", nil, nil)
	switch status(err) {
	case http.StatusForbidden, http.StatusNotFound:
		k.say(step, Warning, "workflow runs cannot be read, so jobs have no names and conclusions here, and no guest is held after a failure",
			"add the repository permission Actions: read", k.tokenPage())
	}
	return true
}

// registration registers a runner and takes it away again.
func (k *check) registration(ctx context.Context) bool {
	const step = "registration"
	if k.t.Runner == "" {
		return k.say(step, Unknown, "not tried", "", "")
	}
	got, err := k.c.Credential(ctx, runner.Registration{Name: k.t.Runner, Group: k.t.Group, Labels: append([]string{"self-hosted"}, k.t.Labels...)})
	if _, limited := errors.AsType[*LimitError](err); limited {
		return k.say("rate limit", Wrong, err.Error(), "wait, or find out who else uses this credential", limitsPage)
	}
	if err != nil {
		return k.say(step, Wrong, barren(err).Error(), "give the credential the permission that the message names", k.tokenPage())
	}
	if err := k.c.Remove(context.WithoutCancel(ctx), got.ID); err != nil {
		return k.say(step, Warning, fmt.Sprintf("runner %s was registered and stays: %v", k.t.Runner, err), "remove it; GitHub does so within a day", k.settings("runners"))
	}
	return k.say(step, OK, "a runner was registered, and removed again", "", "")
}

// limits tells what is left of GitHub's limits.
func (k *check) limits(context.Context) bool {
	const step = "rate limit"
	if k.rates == nil || len(k.rates.Resources) == 0 {
		return k.say(step, OK, "there is none here", "", "")
	}
	var texts []string
	v := OK
	for _, name := range []string{bucketCore, bucketRegistration} {
		r, there := k.rates.Resources[name]
		if !there {
			continue
		}
		text := fmt.Sprintf("%d of %d calls left (%s)", r.Remaining, r.Limit, name)
		if r.Remaining*fewCalls < r.Limit {
			v = Warning
			text += ", more from " + time.Unix(r.Reset, 0).UTC().Format("15:04:05 UTC")
		}
		texts = append(texts, text)
	}
	mend, page := "", ""
	if v != OK {
		mend, page = "find out who else uses this credential; a GitHub App has limits of its own for each installation", limitsPage
	}
	return k.say(step, v, strings.Join(texts, ", "), mend, page)
}
