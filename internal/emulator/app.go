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

// firstInstallation is the id of an App's first installation.
const firstInstallation = 9001

// accounts are where the App is installed, by installation from the first on; the last is the owner.
func (e *Emulator) accounts() []string {
	return append(slices.Clone(e.opts.App.Elsewhere), e.owner())
}

func (e *Emulator) owner() string {
	owner, _, _ := strings.Cut(e.opts.Repository, "/")
	return owner
}

// longest life of an App's assertion.
const assertionLife = 10 * time.Minute

// asApp answers requests that carry an assertion of the App.
func (e *Emulator) asApp(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if status, why := e.checkAssertion(bearer(r)); status != 0 {
			githubError(w, status, why)
			return
		}
		h(w, r)
	}
}

// checkAssertion says with which status and words an App's assertion is refused; 0 if it is good.
func (e *Emulator) checkAssertion(assertion string) (int, string) {
	a := e.opts.App
	if a == nil {
		return http.StatusNotFound, "Integration not found"
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(assertion, claims); err != nil {
		return http.StatusUnauthorized, "A JSON web token could not be decoded"
	}
	issuer := fmt.Sprint(claims["iss"])
	if n, ok := claims["iss"].(float64); ok {
		issuer = strconv.FormatInt(int64(n), 10)
	}
	if issuer != a.clientID() && issuer != strconv.FormatInt(a.id(), 10) {
		return http.StatusNotFound, "Integration not found"
	}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).
		ParseWithClaims(assertion, jwt.MapClaims{}, func(*jwt.Token) (any, error) { return a.PublicKey, nil })
	if err != nil || a.PublicKey == nil {
		return http.StatusUnauthorized, "A JSON web token could not be decoded"
	}
	now := time.Now()
	exp, err := claims.GetExpirationTime()
	switch {
	case err != nil || exp == nil || !exp.After(now):
		return http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
	case exp.After(now.Add(assertionLife)):
		return http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future"
	}
	iat, err := claims.GetIssuedAt()
	if err != nil || iat == nil || iat.After(now) || iat.After(exp.Time) {
		return http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
	}
	return 0, ""
}

func (e *Emulator) getApp(w http.ResponseWriter, _ *http.Request) {
	a := e.opts.App
	writeJSON(w, http.StatusOK, map[string]any{
		"id": a.id(), "client_id": a.clientID(), "slug": "tasuki", "name": "tasuki", "permissions": a.permissions(), "events": []string{},
		"owner": map[string]any{"login": e.owner(), "id": 1, "type": "Organization"}, "installations_count": len(e.accounts()),
	})
}

// installation writes the App's installation of that index.
func (e *Emulator) installation(i int, base string) map[string]any {
	account, id := e.accounts()[i], firstInstallation+int64(i)
	return map[string]any{
		"id": id, "app_id": e.opts.App.id(), "client_id": e.opts.App.clientID(), "app_slug": "tasuki", "target_type": "Organization",
		"account":              map[string]any{"login": account, "id": i + 1, "type": "Organization"},
		"repository_selection": "all", "permissions": e.opts.App.permissions(), "events": []string{},
		"access_tokens_url": fmt.Sprintf("%s/api/v3/app/installations/%d/access_tokens", base, id),
	}
}

func (e *Emulator) listInstallations(w http.ResponseWriter, r *http.Request) {
	base, out := e.baseFor(r), []map[string]any{}
	page := e.page(w, r, len(e.accounts()))
	for i := page.from; i < page.to; i++ {
		out = append(out, e.installation(i, base))
	}
	writeJSON(w, http.StatusOK, out)
}

// installationAt returns the index of the installation that a path names; -1 if there is none.
func (e *Emulator) installationAt(r *http.Request) int {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if i := id - firstInstallation; err == nil && i >= 0 && i < int64(len(e.accounts())) {
		return int(i)
	}
	return -1
}

func (e *Emulator) getInstallation(w http.ResponseWriter, r *http.Request) {
	e.writeInstallation(w, r, e.installationAt(r))
}

func (e *Emulator) writeInstallation(w http.ResponseWriter, r *http.Request, i int) {
	if i < 0 {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, e.installation(i, e.baseFor(r)))
}

// findInstallation serves the installation of an organization, a user or a repository.
func (e *Emulator) findInstallation(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("owner")
	i := slices.IndexFunc(e.accounts(), func(a string) bool { return strings.EqualFold(a, name) })
	if repo := r.PathValue("repo"); repo != "" && !strings.EqualFold(name+"/"+repo, e.opts.Repository) {
		i = -1
	}
	e.writeInstallation(w, r, i)
}

// postInstallationToken makes an installation token. It is as long as GitHub's are by now, more than 500 characters.
func (e *Emulator) postInstallationToken(w http.ResponseWriter, r *http.Request) {
	i := e.installationAt(r)
	if i < 0 {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	a := e.opts.App
	life := a.TokenLife
	if life <= 0 {
		life = time.Hour
	}
	expires := time.Now().Add(life)
	token := fmt.Sprintf("ghs_%d_%s", a.id(), e.mint(kindInstallation, strconv.Itoa(i), life, jwt.MapClaims{
		"repository_selection": "all", "permissions": a.permissions(),
	}))
	writeJSON(w, http.StatusCreated, map[string]any{
		"token": token, "expires_at": expires.UTC().Format(time.RFC3339), "permissions": a.permissions(), "repository_selection": "all",
	})
}

// ofInstallation returns the account that an installation token is for; false if it is none, or not good.
func (e *Emulator) ofInstallation(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, "ghs_")
	if !ok || e.opts.App == nil {
		return "", false
	}
	_, signed, _ := strings.Cut(rest, "_")
	i, err := strconv.Atoi(e.subject(signed, kindInstallation))
	if err != nil || i >= len(e.accounts()) {
		return "", false
	}
	return e.accounts()[i], true
}
