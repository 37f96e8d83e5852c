package emulator

import (
	"crypto/rsa"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// App is a GitHub App that is installed for the repository's owner.
type App struct {
	// ID and ClientID are what its assertions may name as issuer; 1 and "Iv23.tasuki" when empty.
	ID       int64
	ClientID string
	// PublicKey is the other half of the key that signs its assertions.
	PublicKey *rsa.PublicKey
	// Elsewhere are other accounts that it is installed for. They come first in lists, so that a client that
	// reads one page alone may miss the owner's.
	Elsewhere []string
	// Permissions are what it may do, such as "administration": "write"; everything that runners need when
	// nil.
	Permissions map[string]string
	// TokenLife is how long an installation token is good: 1 h when zero.
	TokenLife time.Duration
}

// NewApp returns an App that signs with the private key, which is in PEM as GitHub gives it.
func NewApp(private []byte) (*App, error) {
	key, err := jwt.ParseRSAPrivateKeyFromPEM(private)
	if err != nil {
		return nil, fmt.Errorf("it is no RSA private key in PEM: %w", err)
	}
	return &App{PublicKey: &key.PublicKey}, nil
}

// What the App of a manager of runners needs.
var neededPermissions = map[string]string{
	"actions": "write", "administration": "write", "metadata": "read", "organization_self_hosted_runners": "write",
}

func (a *App) id() int64 {
	if a.ID != 0 {
		return a.ID
	}
	return 1
}

func (a *App) clientID() string {
	if a.ClientID != "" {
		return a.ClientID
	}
	return "Iv23.tasuki"
}

func (a *App) permissions() map[string]string {
	if a.Permissions != nil {
		return a.Permissions
	}
	return neededPermissions
}

// firstInstallation is the id of the first installation that there is.
const firstInstallation = 9001

// registeredApp is a GitHub App and where it is installed.
type registeredApp struct {
	*App
	slug, name string
	owner      string // whose App it is
	public     bool   // others may install it as well
	installs   []appInstall
}

// appInstall is one installation of an App.
type appInstall struct {
	id      int64
	account string
}

func (e *Emulator) owner() string {
	owner, _, _ := strings.Cut(e.opts.Repository, "/")
	return owner
}

// addApp makes an App known. The lock is held, or nobody else knows the emulator yet.
func (e *Emulator) addApp(a *registeredApp, accounts ...string) {
	e.apps = append(e.apps, a)
	for _, account := range accounts {
		e.install(a, account)
	}
}

// install installs an App for an account. The lock is held, or nobody else knows the emulator yet.
func (e *Emulator) install(a *registeredApp, account string) {
	a.installs = append(a.installs, appInstall{firstInstallation - 1 + e.next("installation"), account})
}

func (a *registeredApp) installedFor(account string) bool {
	return slices.ContainsFunc(a.installs, func(i appInstall) bool { return strings.EqualFold(i.account, account) })
}

// appWhere returns a copy of the App that matches; false if none does. The lock is not held.
func (e *Emulator) appWhere(match func(*registeredApp) bool) (registeredApp, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.apps, match)
	if i < 0 {
		return registeredApp{}, false
	}
	a := *e.apps[i]
	a.installs = slices.Clone(a.installs)
	return a, true
}

// longest life of an App's assertion.
const assertionLife = 10 * time.Minute

// asApp answers requests that carry an assertion of an App.
func (e *Emulator) asApp(h func(http.ResponseWriter, *http.Request, registeredApp)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, status, why := e.checkAssertion(bearer(r))
		if status != 0 {
			githubError(w, status, why)
			return
		}
		h(w, r, a)
	}
}

// checkAssertion returns the App whose assertion it is, or says with which status and words it is refused.
func (e *Emulator) checkAssertion(assertion string) (a registeredApp, status int, why string) {
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(assertion, claims); err != nil {
		return a, http.StatusUnauthorized, "A JSON web token could not be decoded"
	}
	issuer := fmt.Sprint(claims["iss"])
	if n, ok := claims["iss"].(float64); ok {
		issuer = strconv.FormatInt(int64(n), 10)
	}
	a, ok := e.appWhere(func(a *registeredApp) bool {
		return issuer == a.clientID() || issuer == strconv.FormatInt(a.id(), 10)
	})
	if !ok {
		return a, http.StatusNotFound, "Integration not found"
	}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).
		ParseWithClaims(assertion, jwt.MapClaims{}, func(*jwt.Token) (any, error) { return a.PublicKey, nil })
	if err != nil || a.PublicKey == nil {
		return a, http.StatusUnauthorized, "A JSON web token could not be decoded"
	}
	now := time.Now()
	exp, err := claims.GetExpirationTime()
	switch {
	case err != nil || exp == nil || !exp.After(now):
		return a, http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	case exp.After(now.Add(assertionLife)):
		return a, http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future"
	}
	iat, err := claims.GetIssuedAt()
	if err != nil || iat == nil || iat.After(now) || iat.After(exp.Time) {
		return a, http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	}
	return a, 0, ""
}

// shown is what everybody may know of an App.
func (a registeredApp) shown(base string) map[string]any {
	return map[string]any{
		"id": a.id(), "client_id": a.clientID(), "slug": a.slug, "name": a.name, "permissions": a.permissions(), "events": []string{},
		"owner":    map[string]any{"login": a.owner, "id": 1, "type": "Organization"},
		"html_url": base + "/apps/" + a.slug, "installations_count": len(a.installs),
	}
}

func (e *Emulator) getApp(w http.ResponseWriter, r *http.Request, a registeredApp) {
	writeJSON(w, http.StatusOK, a.shown(e.baseFor(r)))
}

// installation writes the App's installation of that index.
func (a registeredApp) installation(i int, base string) map[string]any {
	account, id := a.installs[i].account, a.installs[i].id
	return map[string]any{
		"id": id, "app_id": a.id(), "client_id": a.clientID(), "app_slug": a.slug, "target_type": "Organization",
		"account":              map[string]any{"login": account, "id": i + 1, "type": "Organization"},
		"repository_selection": "all", "permissions": a.permissions(), "events": []string{},
		"html_url":          fmt.Sprintf("%s/organizations/%s/settings/installations/%d", base, account, id),
		"access_tokens_url": fmt.Sprintf("%s/api/v3/app/installations/%d/access_tokens", base, id),
	}
}

func (e *Emulator) listInstallations(w http.ResponseWriter, r *http.Request, a registeredApp) {
	base, out := e.baseFor(r), []map[string]any{}
	page := e.page(w, r, len(a.installs))
	for i := page.from; i < page.to; i++ {
		out = append(out, a.installation(i, base))
	}
	writeJSON(w, http.StatusOK, out)
}

// installationAt returns the index of the installation that a path names; -1 if there is none.
func (a registeredApp) installationAt(r *http.Request) int {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return -1
	}
	return slices.IndexFunc(a.installs, func(i appInstall) bool { return i.id == id })
}

func (e *Emulator) getInstallation(w http.ResponseWriter, r *http.Request, a registeredApp) {
	e.writeInstallation(w, r, a, a.installationAt(r))
}

func (e *Emulator) writeInstallation(w http.ResponseWriter, r *http.Request, a registeredApp, i int) {
	if i < 0 {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, a.installation(i, e.baseFor(r)))
}

// findInstallation serves the installation of an organization, a user or a repository.
func (e *Emulator) findInstallation(w http.ResponseWriter, r *http.Request, a registeredApp) {
	name := r.PathValue("owner")
	i := slices.IndexFunc(a.installs, func(i appInstall) bool { return strings.EqualFold(i.account, name) })
	if repo := r.PathValue("repo"); repo != "" && !strings.EqualFold(name+"/"+repo, e.opts.Repository) {
		i = -1
	}
	e.writeInstallation(w, r, a, i)
}

// postInstallationToken makes an installation token. It is as long as GitHub's are by now, more than 500 characters.
func (e *Emulator) postInstallationToken(w http.ResponseWriter, r *http.Request, a registeredApp) {
	i := a.installationAt(r)
	if i < 0 {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	life := a.TokenLife
	if life <= 0 {
		life = time.Hour
	}
	expires := time.Now().Add(life)
	token := fmt.Sprintf("ghs_%d_%s", a.id(), e.mint(kindInstallation, strconv.FormatInt(a.installs[i].id, 10), life, jwt.MapClaims{
		"repository_selection": "all", "permissions": a.permissions(),
	}))
	writeJSON(w, http.StatusCreated, map[string]any{
		"token": token, "expires_at": expires.UTC().Format(time.RFC3339), "permissions": a.permissions(), "repository_selection": "all",
	})
}

// ofInstallation returns the App of an installation token and the account that the token is for; false if it
// is none, or not good.
func (e *Emulator) ofInstallation(token string) (a registeredApp, account string, ok bool) {
	rest, ok := strings.CutPrefix(token, "ghs_")
	if !ok {
		return a, "", false
	}
	_, signed, _ := strings.Cut(rest, "_")
	id, err := strconv.ParseInt(e.subject(signed, kindInstallation), 10, 64)
	if err != nil {
		return a, "", false
	}
	is := func(i appInstall) bool { return i.id == id }
	a, ok = e.appWhere(func(a *registeredApp) bool { return slices.ContainsFunc(a.installs, is) })
	if !ok {
		return a, "", false
	}
	return a, a.installs[slices.IndexFunc(a.installs, is)].account, true
}
