package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/guesttest"
	"github.com/mirego/tasuki/internal/guest/local"
)

// guestFolder makes a fake guest with power, and ends it with the test.
func guestFolder(t *testing.T) (root string, power proc.ID) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "a guest", "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	power, err := proc.Detach(proc.Cmd{Path: "sleep", Args: []string{"100000"}}, filepath.Join(filepath.Dir(root), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_ = power.Kill(ctx)
		for range 3 {
			inside, err := proc.Marked(local.Mark + "=" + root)
			if err != nil {
				t.Error(err)
			}
			for _, id := range inside {
				_ = id.Kill(ctx)
			}
		}
	})
	text, err := json.Marshal(power)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+".on", text, 0o600); err != nil {
		t.Fatal(err)
	}
	return root, power
}

func dial(t *testing.T, root string) guest.Channel {
	t.Helper()
	ch, err := local.Dialer{}.Dial(t.Context(), guest.Target{Guest: "g", Address: root, User: "runner"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ch.Close() })
	return ch
}

func TestConformance(t *testing.T) {
	guesttest.Run(t, func(t *testing.T) guesttest.Harness {
		root, _ := guestFolder(t)
		return guesttest.Harness{
			Dial: func(t *testing.T) guest.Channel { return dial(t, root) },
			Cut:  func(_ *testing.T, ch guest.Channel) { _ = ch.Close() },
		}
	})
}

func TestAGuestWithoutPowerIsUnreachable(t *testing.T) {
	root, power := guestFolder(t)
	ch := dial(t, root)
	var err error
	started := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err = ch.Run(t.Context(), guest.Command{Script: "echo; exec sleep 600", Stdout: writer(func() { close(started) })})
	}()
	<-started
	if err := power.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	inside, markErr := proc.Marked(local.Mark + "=" + root)
	if markErr != nil || len(inside) != 1 {
		t.Errorf("inside runs %v, %v; want the sleep", inside, markErr)
	}
	for _, id := range inside {
		_ = id.Kill(t.Context())
	}
	<-ended
	if !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("the script that ran: %v, want ErrUnreachable", err)
	}
	if _, err := ch.Run(t.Context(), guest.Command{Script: "true"}); !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("a new script: %v, want ErrUnreachable", err)
	}
	for _, address := range []string{root, root + "-none", ""} {
		if _, err := (local.Dialer{}).Dial(t.Context(), guest.Target{Guest: "g", Address: address}); !errors.Is(err, guest.ErrUnreachable) {
			t.Errorf("Dial(%q): %v, want ErrUnreachable", address, err)
		}
	}
}

func TestNothingOfOurEnvironmentGetsInside(t *testing.T) {
	t.Setenv("TASUKI_TEST_SECRET", "x")
	root, _ := guestFolder(t)
	status, err := dial(t, root).Run(t.Context(), guest.Command{Script: `[ -z "${TASUKI_TEST_SECRET+x}" ] && [ "$HOME" = "$PWD" ] && [ "$USER" = runner ]`})
	if err != nil || status != 0 {
		t.Errorf("status %d, %v", status, err)
	}
}

type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }
