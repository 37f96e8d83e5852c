package github_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
)

// Each runner that ends on its own is gone at GitHub when we remove it: within a
// minute the scope itself is asked for once.
func TestTheScopeIsAskedForOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := emulator.New(emulator.Options{})
		calls := map[string]int{}
		c, err := github.New(github.Options{
			URL: "http://127.0.0.1:1", Scope: "octo", HTTP: emulator.Transport{Handler: e.Handler()},
			Observe: func(c github.Call) { calls[c.Method]++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		remove := func(times int) {
			t.Helper()
			for range times {
				if err := c.Remove(t.Context(), 4711); err != nil {
					t.Fatal(err)
				}
			}
		}
		remove(5)
		if calls["DELETE"] != 5 || calls["GET"] != 1 {
			t.Errorf("within a minute: %v, want the scope asked for once", calls)
		}
		time.Sleep(time.Minute)
		remove(2)
		if calls["GET"] != 2 {
			t.Errorf("a minute later: %v, want it asked for once more", calls)
		}
	})
}
