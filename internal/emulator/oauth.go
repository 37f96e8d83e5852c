package emulator

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// clockSkew is how wrong a runner's clock may be: a guest resumed from a snapshot starts with an old one.
const clockSkew = 5 * time.Minute

const accessTokenLife = time.Hour

// postAccessToken exchanges a runner's signed assertion for an access token.
func (e *Emulator) postAccessToken(w http.ResponseWriter, r *http.Request) {
	refuse := func(code, why string) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": code, "error_description": why})
	}
	if r.FormValue("grant_type") != "client_credentials" {
		refuse("unsupported_grant_type", "grant_type must be client_credentials")
		return
	}
	assertion := r.FormValue("client_assertion")
	claims := jwt.RegisteredClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(assertion, &claims); err != nil {
		refuse("invalid_request", "client_assertion is no JWT: "+err.Error())
		return
	}
	e.mu.Lock()
	found := e.runnerByClient(claims.Subject)
	known := found != nil && found.gone != deleted
	e.mu.Unlock()
	if !known {
		refuse("invalid_client", fmt.Sprintf("Registration %s was not found.", claims.Subject))
		return
	}
	_, err := jwt.ParseWithClaims(assertion, &jwt.RegisteredClaims{},
		func(*jwt.Token) (any, error) { return found.key, nil },
		jwt.WithValidMethods([]string{"RS256", "PS256"}), jwt.WithLeeway(clockSkew), jwt.WithExpirationRequired(),
		jwt.WithIssuer(found.clientID), jwt.WithAudience(found.tokenURL))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired) || errors.Is(err, jwt.ErrTokenNotValidYet):
		refuse("invalid_request", fmt.Sprintf("The token is not valid at this time. Current server time is %s.",
			time.Now().UTC().Format(time.RFC3339)))
		return
	case err != nil:
		refuse("invalid_client", err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": e.mint(kindRunner, found.clientID, accessTokenLife, nil),
		"expires_in":   int(accessTokenLife.Seconds()),
		"token_type":   "JWT",
	})
}
