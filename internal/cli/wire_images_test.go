package cli

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// The password of a registry may last for hours only: it is read again, and
// the one before goes on while that fails.
func TestTheLoginOfARegistryIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, fails, reads := "first", error(nil), 0
		p := &renewed{source: func(context.Context) (secret.String, error) {
			reads++
			return secret.New(value), fails
		}}
		logins := registryAccess{byHost: map[string]login{"r.example.com": {username: "AWS", password: p}}}
		ref, err := image.Parse("r.example.com/team/linux:stable")
		if err != nil {
			t.Fatal(err)
		}
		check := func(what, want string, wantReads int) {
			t.Helper()
			var opt transfer.Options
			if err := logins.apply(t.Context(), ref, &opt); err != nil || opt.Username != "AWS" || opt.Password.Reveal() != want || reads != wantReads {
				t.Errorf("%s: %q after %d reads, %v; want %q after %d", what, opt.Password.Reveal(), reads, err, want, wantReads)
			}
		}
		check("at the start", "first", 1)
		value = "second"
		check("right afterwards", "first", 1)
		time.Sleep(passwordAge)
		check("later", "second", 2)
		value, fails = "", errors.New("the network is down")
		time.Sleep(passwordAge)
		check("while the source fails", "second", 3)
		check("it is not asked all the time", "second", 3)
		value, fails = "third", nil
		time.Sleep(passwordAge)
		check("when it is back", "third", 4)

		never := &renewed{source: func(context.Context) (secret.String, error) { return secret.String{}, errors.New("no") }}
		if _, err := never.read(t.Context()); err == nil {
			t.Error("a source that never gave a password is no error")
		}
	})
}
