package github

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
)

// NewApp is a GitHub App that is to be made, by what GitHub calls its manifest
// flow: a person's browser sends GitHub a form, agrees there, and is sent back
// to a page of ours with a code; the code is exchanged for the App's key.
// Source: docs.github.com, "Registering a GitHub App from a manifest".
type NewApp struct {
	// Account is the GitHub; its credential is not used.
	Account *Account
	// Scope is what the App shall manage the runners of: "owner/repository" or
	// "organisation".
	Scope string
	// Organisation owns the App; empty: whoever is signed in. The App can only be
	// installed for its owner.
	Organisation string
	// Name is unique at GitHub and has at most 34 letters; see AppName.
	Name string
}

// MadeApp is a GitHub App that was made. GitHub tells its key this once.
type MadeApp struct {
	ID       int64
	ClientID string
	Name     string
	Page     string // for people
	Key      secret.String
}

// InstallPage is where a person installs the App.
func (m MadeApp) InstallPage() string { return m.Page + "/installations/new" }

const (
	// maxAppName is GitHub's bound on the name of an App.
	maxAppName = 34
	// pageLife is how long the page for making an App is there. GitHub's code
	// lives an hour.
	pageLife = 10 * time.Minute
	// homepage is what an App's page at GitHub links to.
	homepage = "https://github.com/mirego/tasuki"
)

// AppName returns a name for an App of an owner that nobody is likely to have.
func AppName(owner string) string {
	const words, random = "tasuki-", 5
	owner = strings.Trim(owner[:min(len(owner), maxAppName-len(words)-random-1)], "-")
	return words + owner + "-" + strings.ToLower(rand.Text()[:random])
}

// permissions are what the App may do, and nothing more: manage runners, and
// look at jobs.
func (n NewApp) permissions(s scope) map[string]string {
	out := map[string]string{"metadata": "read", "actions": "read"}
	for name, level := range s.permissions() {
		out[name] = level
	}
	return out
}

// manifest is what GitHub is asked for. It has no hook_attributes: a webhook
// without an address is refused, and no webhook is what we want.
func (n NewApp) manifest(s scope, back string) (string, error) {
	b, err := json.Marshal(map[string]any{
		"name": n.Name, "url": homepage, "redirect_url": back, "public": false,
		"description":         "Registers and removes the self-hosted runners of " + s.name + ".",
		"default_permissions": n.permissions(s), "default_events": []string{},
	})
	return string(b), err
}

// target is where the form goes.
func (n NewApp) target(state string) string {
	path := "/settings/apps/new"
	if n.Organisation != "" {
		path = "/organizations/" + url.PathEscape(n.Organisation) + path
	}
	return n.Account.web() + path + "?state=" + url.QueryEscape(state)
}

// convert exchanges a code for the App. It works once.
func (n NewApp) convert(ctx context.Context, code string) (MadeApp, error) {
	const doing = "get the key of the new App"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	api := n.Account.client(nobody(n.Account))
	req, err := api.NewRequest(http.MethodPost, "app-manifests/"+url.PathEscape(code)+"/conversions", nil)
	if err != nil {
		return MadeApp{}, fmt.Errorf("cannot %s: %w", doing, err)
	}
	var got struct {
		ID       int64         `json:"id"`
		ClientID string        `json:"client_id"`
		Name     string        `json:"name"`
		Page     string        `json:"html_url"`
		Key      secret.String `json:"pem"`
	}
	if _, err = api.Do(ctx, req, &got); err == nil && (got.ID == 0 || got.Key.Empty()) {
		err = errNoAnswer
	}
	if err != nil {
		if res := reply(err); res != nil {
			err = errors.New(words(err, res))
		}
		return MadeApp{}, fmt.Errorf("cannot %s: %w: if GitHub lists the App by now, delete it there and try again", doing, err)
	}
	return MadeApp{ID: got.ID, ClientID: got.ClientID, Name: got.Name, Page: got.Page, Key: got.Key}, nil
}

// nobody is an identity without a credential.
func nobody(a *Account) *identity {
	return &identity{gate: newGate(a.opt.Random), log: a.log, now: a.now, turn: make(chan struct{}, 1)}
}

// IsOrganisation says whether an account at GitHub is an organisation rather
// than a person.
func (a *Account) IsOrganisation(ctx context.Context, login string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id := nobody(a)
	var got struct {
		Type string `json:"type"`
	}
	_, err := id.send(ctx, a.client(id), request{http.MethodGet, "users/" + url.PathEscape(login), nil}, &got)
	if err == nil && got.Type == "" {
		err = errNoAnswer
	}
	if err != nil {
		if res := reply(err); res != nil {
			err = errors.New(words(err, res))
		}
		return false, fmt.Errorf("cannot look at the account %q: %w", login, err)
	}
	return got.Type == "Organization", nil
}

// installPace is how often GitHub is asked whether the App is installed by now.
var installPace = backoff.Policy{First: time.Second, Most: 5 * time.Second}

// AwaitInstallation returns when the account's App is installed for the owner of
// the scope. At the end of ctx it returns what was in the way.
func (c *Client) AwaitInstallation(ctx context.Context) error {
	if c.id.app == nil {
		return errors.New("cannot wait for an installation: the account is no GitHub App")
	}
	var last error
	for tries := 1; ; tries++ {
		api, err := c.id.app.asApp(ctx)
		if err == nil {
			_, err = c.id.app.search(ctx, api)
		}
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // a call that was cut off says nothing
			last = err
		}
		pause := installPace.Delay(tries, c.account.opt.Random)
		if limit, ok := errors.AsType[*LimitError](err); ok {
			pause = max(pause, limit.After)
		}
		if backoff.Sleep(ctx, pause) != nil {
			return last
		}
	}
}

// same compares two texts in a time that says nothing of them.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// CheckScope says whether a text is a scope: "owner/repository", "organisation"
// or "enterprises/name".
func CheckScope(name string) error {
	_, err := parseScope(name)
	return err
}

// Needs says for a person which permission a credential needs for a scope; ""
// for what is none.
func Needs(name string) string {
	s, err := parseScope(name)
	if err != nil {
		return ""
	}
	return strings.ToUpper(s.needs[:1]) + s.needs[1:]
}
