package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/runner"
)

// App is a GitHub App and its private key.
type App struct {
	// ID is the client id ("Iv23li...") or the app id (a number).
	ID string
	// Key gives the private key in PEM. It is asked for each token, once an hour
	// or so, so that a new key is picked up.
	Key func(context.Context) (secret.String, error)
	// Installation is its id; 0: it is found by the owner of the scope.
	Installation int64
}

const (
	// An App's own token is valid from a minute ago, for clocks that differ, and
	// GitHub takes none of more than 10 min. Source: docs.github.com,
	// "Generating a JSON Web Token (JWT) for a GitHub App".
	jwtBackdate = time.Minute
	jwtLife     = 9 * time.Minute
	// unsaidLife is for an installation's token that does not say when it expires.
	unsaidLife = 10 * time.Minute
)

// credentialError says that we have no credential; GitHub was not asked, or
// refused it.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// installed is an installation of an App, in GitHub's words.
type installed struct {
	ID      *int64 `json:"id"`
	Account struct {
		Login string `json:"login"`
		Slug  string `json:"slug"` // of an enterprise
	} `json:"account"`
	TargetType  string            `json:"target_type"` // User, Organization, Enterprise
	Selection   string            `json:"repository_selection"`
	Permissions map[string]string `json:"permissions"`
	HTMLURL     string            `json:"html_url"`
	SuspendedAt *time.Time        `json:"suspended_at"`
}

func (i installed) of(s scope) bool {
	if s.enterprise() {
		return strings.EqualFold(i.TargetType, "Enterprise") && (strings.EqualFold(i.Account.Slug, s.owner()) || strings.EqualFold(i.Account.Login, s.owner()))
	}
	return !strings.EqualFold(i.TargetType, "Enterprise") && strings.EqualFold(i.Account.Login, s.owner())
}

// installation gets the tokens of an App for one owner.
type installation struct {
	account *Account
	app     App
	scope   scope
	gate    *gate

	mu sync.Mutex
	id int64 // 0: not found yet
}

func newInstallation(a *Account, s scope, g *gate) *installation {
	return &installation{account: a, app: *a.opt.App, scope: s, gate: g, id: a.opt.App.Installation}
}

// fetch mints a token.
func (i *installation) fetch(ctx context.Context) (lease, error) {
	api, err := i.asApp(ctx)
	if err != nil {
		return lease{}, err
	}
	id, err := i.find(ctx, api)
	if err != nil {
		return lease{}, err
	}
	var got struct {
		Token     secret.String `json:"token"`
		ExpiresAt time.Time     `json:"expires_at"`
	}
	_, err = i.send(ctx, api, request{http.MethodPost, fmt.Sprintf("app/installations/%d/access_tokens", id), nil}, &got)
	if err == nil && got.Token.Empty() {
		err = errNoAnswer
	}
	if err != nil {
		if status(err) == http.StatusNotFound {
			i.forget() // it was removed, and perhaps installed anew
		}
		return lease{}, i.explain(fmt.Sprintf("get a token of installation %d", id), err)
	}
	if got.ExpiresAt.IsZero() {
		got.ExpiresAt = i.account.now().Add(unsaidLife)
	}
	return lease{got.Token, got.ExpiresAt}, nil
}

// find returns the installation's id.
func (i *installation) find(ctx context.Context, api *github.Client) (int64, error) {
	i.mu.Lock()
	id := i.id
	i.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	found, err := i.search(ctx, api)
	if err != nil {
		return 0, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.id = *found.ID
	return i.id, nil
}

func (i *installation) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.id = i.app.Installation
}

// search looks through all installations of the App.
func (i *installation) search(ctx context.Context, api *github.Client) (installed, error) {
	doing := "find the installation for " + i.scope.owner()
	var others []string
	for page := 1; page <= maxPages; page++ {
		var got []installed
		path := fmt.Sprintf("app/installations?per_page=%d&page=%d", perPage, page)
		res, err := i.send(ctx, api, request{http.MethodGet, path, nil}, &got)
		if err == nil && got == nil {
			err = errNoAnswer
		}
		if err != nil {
			return installed{}, i.explain(doing, err)
		}
		for _, in := range got {
			switch {
			case in.ID == nil:
				return installed{}, i.explain(doing, errNoAnswer)
			case in.of(i.scope) && in.SuspendedAt != nil:
				return installed{}, i.denied(doing, fmt.Sprintf("installation %d is suspended since %s: unsuspend it at %s",
					*in.ID, in.SuspendedAt.UTC().Format(time.DateOnly), in.HTMLURL))
			case in.of(i.scope):
				return in, nil
			}
			others = append(others, in.Account.Login+in.Account.Slug)
		}
		// Servers may give shorter pages than asked for: what says that there are
		// more is the link.
		if res.NextPage == 0 && len(got) < perPage {
			break
		}
	}
	where := "it is installed nowhere"
	if len(others) > 0 {
		where = "it is installed for " + strings.Join(others[:min(len(others), 10)], ", ")
	}
	return installed{}, i.denied(doing, fmt.Sprintf("%s; install it for %s", where, i.scope.owner()))
}

// send sends a request as the App itself. Its errors about the credential end
// up in those of the call that wanted a token.
func (i *installation) send(ctx context.Context, api *github.Client, r request, v any) (*github.Response, error) {
	res, err := api.NewRequest(r.method, r.path, r.body)
	if err != nil {
		return nil, err
	}
	got, err := api.Do(ctx, res, v)
	if limit := limitOf(err, i.account.now()); limit != nil {
		err = i.gate.observe(r, got, err, i.account.now())
	}
	return got, err
}

func (i *installation) explain(doing string, err error) error {
	if _, ok := errors.AsType[*LimitError](err); ok {
		return err
	}
	res := reply(err)
	if res == nil {
		return fmt.Errorf("cannot %s: %w", doing, err)
	}
	what := words(err, res)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return i.denied(doing, fmt.Sprintf("%s: GitHub does not take the key of app %q: it is another app's, was deleted, or this host's clock is wrong (%s)",
			what, i.app.ID, skewWords(res, i.account.now())))
	case http.StatusNotFound:
		return i.denied(doing, fmt.Sprintf("%s: GitHub knows no app %q, or its installation is no more", what, i.app.ID))
	case http.StatusForbidden:
		return i.denied(doing, what+": the installation is suspended")
	}
	return fmt.Errorf("cannot %s: %s", doing, what)
}

func (i *installation) denied(doing, why string) error {
	return &credentialError{fmt.Errorf("cannot %s: %w: %s", doing, runner.ErrDenied, why)}
}

// asApp returns a client that speaks as the App itself.
func (i *installation) asApp(ctx context.Context) (*github.Client, error) {
	key, err := i.app.Key(ctx)
	if err != nil {
		return nil, &credentialError{err}
	}
	token, err := appToken(i.app.ID, key, i.account.now())
	if err != nil {
		return nil, &credentialError{err}
	}
	return i.account.client(&identity{
		fetch: func(context.Context) (lease, error) { return lease{token: token}, nil },
		gate:  i.gate, log: i.account.log, now: i.account.now, turn: make(chan struct{}, 1),
	}), nil
}

// appToken signs what proves that we are the App.
func appToken(id string, key secret.String, now time.Time) (secret.String, error) {
	private, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(key.Reveal()))
	if err != nil {
		return secret.String{}, fmt.Errorf("the key of app %q is not an RSA private key in PEM: %w", id, err)
	}
	from := now.Add(-jwtBackdate)
	signed, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": id, "iat": from.Unix(), "exp": from.Add(jwtLife).Unix(),
	}).SignedString(private)
	if err != nil {
		return secret.String{}, fmt.Errorf("cannot sign as app %q: %w", id, err)
	}
	return secret.New(signed), nil
}

// skewWords says how this host's clock differs from GitHub's.
func skewWords(res *http.Response, now time.Time) string {
	ahead, known := skew(res, now)
	switch {
	case !known:
		return "GitHub does not tell its time"
	case ahead.Abs() < 2*time.Second:
		return "it agrees with GitHub's"
	case ahead > 0:
		return fmt.Sprintf("it is %s ahead of GitHub's", ahead)
	}
	return fmt.Sprintf("it is %s behind GitHub's", -ahead)
}

// skew is how far our clock is ahead of that of a reply.
func skew(res *http.Response, now time.Time) (time.Duration, bool) {
	if res == nil {
		return 0, false
	}
	at, err := http.ParseTime(res.Header.Get("Date"))
	return now.Sub(at).Round(time.Second), err == nil
}
