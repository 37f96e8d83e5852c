package emulator_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/emulator"
)

func TestIncidentTokenCallFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{emulator.TokenCallFails(1)}})
		if token, _, err := w.rest.Actions.CreateRegistrationToken(t.Context(), owner, repo); err == nil {
			t.Errorf("an error page is read as the token %+v", token)
		}
		if token, _, err := w.rest.Actions.CreateRegistrationToken(t.Context(), owner, repo); err != nil || token.GetToken() == "" {
			t.Errorf("the next try: %+v, %v", token, err)
		}
	})
}

func TestIncidentRateLimitBurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Quota: emulator.Quota{Core: 3, Registration: 1}})
		// Another bucket; and another client, since go-github counts it in the first.
		jit(t, client(t, w.base, w.Client(), ""), "vm-1", "self-hosted")
		list := func() (*github.Response, error) {
			_, resp, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, nil)
			return resp, err
		}
		for left := 2; left >= 0; left-- {
			resp, err := list()
			if err != nil || resp.Rate.Remaining != left || resp.Rate.Limit != 3 || resp.Header.Get("X-RateLimit-Resource") != "core" {
				t.Errorf("the rate is %+v, %v; want %d left", resp.Rate, err, left)
			}
		}
		reset := time.Now().Add(time.Hour)
		_, err := list()
		limited, ok := errors.AsType[*github.RateLimitError](err)
		if !ok || !limited.Rate.Reset.Time.Equal(reset) {
			t.Errorf("beyond the quota: %v; want a rate limit until %v", err, reset)
		}
		limits, _, err := w.rest.RateLimit.Get(t.Context())
		if err != nil || limits.Core.Remaining != 0 || limits.ActionsRunnerRegistration.Remaining != 0 {
			t.Errorf("GET /rate_limit says %+v, %v", limits, err)
		}
		time.Sleep(time.Hour)
		if resp, err := list(); err != nil || resp.Rate.Remaining != 2 {
			t.Errorf("an hour later: %+v, %v", resp.Rate, err)
		}
	})
}

func TestIncidentLongToken(t *testing.T) {
	key, _ := appKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{
			App:          &emulator.App{PublicKey: &key.PublicKey},
			AdvertiseURL: "https://pipelinesghubeus23.actions.githubusercontent.test/h7sJpAVdsBWzKDhGmFvcUkQx", // as long as GitHub's
		})
		now := time.Now()
		assertion, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"iss": "1", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := client(t, w.base, w.Client(), assertion).Apps.CreateInstallationToken(t.Context(), 9001, nil)
		if n := len(token.GetToken()); err != nil || n < 500 || !strings.HasPrefix(token.GetToken(), "ghs_1_ey") {
			t.Fatalf("the token has %d characters, %v", n, err)
		}
		w.rest = client(t, w.base, w.Client(), token.GetToken())
		if _, config := jit(t, w.rest, "vm-1", "self-hosted"); len(config) < 4096 {
			t.Errorf("the JIT configuration has %d characters, want more than 4096", len(config))
		}
	})
}
