package github_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// withEmulator returns a client of one scope of an emulator, in memory.
func withEmulator(t *testing.T, scope string, opt emulator.Options) (*github.Client, *emulator.Emulator) {
	t.Helper()
	opt.Token = secret.New(token)
	e := emulator.New(opt)
	c, err := github.New(github.Options{
		URL: "http://127.0.0.1:1", Scope: scope, HTTP: emulator.Transport{Handler: e.Handler()},
		Token:  func(context.Context) (secret.String, error) { return secret.New(token), nil },
		Random: func() float64 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, e
}

func credential(t *testing.T, c *github.Client, name string) runner.Credential {
	t.Helper()
	got, err := c.Credential(t.Context(), runner.Registration{Name: name, Labels: []string{"self-hosted", "Linux", "X64"}})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEmulatorTheLifeOfARunner(t *testing.T) {
	for _, scope := range []string{"octo/demo", "octo", "enterprises/big"} {
		t.Run(scope, func(t *testing.T) {
			c, e := withEmulator(t, scope, emulator.Options{PollHold: 50 * time.Millisecond})
			cred := credential(t, c, "tasuki-a")
			waste := credential(t, c, "tasuki-b")

			w, err := workflow.Parse("ci.yml", []byte("on: push\njobs:\n  build:\n    runs-on: [self-hosted, Linux]\n    steps:\n      - run: true\n"))
			if err != nil {
				t.Fatal(err)
			}
			run, err := e.Submit(w, "")
			if err != nil {
				t.Fatal(err)
			}
			hold := protorunner.Options{Client: e.Client(), Hold: 100 * time.Millisecond, Conclusion: "failed"}
			done := make(chan error, 1)
			go func() { done <- protorunner.Run(t.Context(), cred.Env[github.JITConfigKey].Reveal(), hold) }()

			for busy := false; !busy; {
				got, there, err := c.Runner(t.Context(), cred.ID)
				if err != nil || !there {
					t.Fatalf("%t, %v", there, err)
				}
				busy = got.Busy
			}
			if err := c.Remove(t.Context(), cred.ID); !errors.Is(err, runner.ErrBusy) {
				t.Errorf("removing a busy runner: %v, want ErrBusy", err)
			}
			if all, err := c.Runners(t.Context()); err != nil || len(all) != 2 || !all[0].Busy || !all[0].Online || all[1].Online {
				t.Errorf("runners %+v, %v", all, err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if _, err := e.WaitRun(t.Context(), run); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second is gone already
				if err := c.Remove(t.Context(), waste.ID); err != nil {
					t.Error(err)
				}
			}
			if all, err := c.Runners(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("left are %v, %v", all, err)
			}
			job, found, err := c.Job(t.Context(), "tasuki-a", time.Now().Add(-time.Minute))
			if err != nil || found != (scope == "octo/demo") {
				t.Fatalf("job %v, %t, %v", job, found, err)
			}
			if found && (job.Name != "build" || job.Conclusion != "failure" || job.Started.IsZero() || job.RunID != run) {
				t.Errorf("job %+v", job)
			}
		})
	}
}

func TestEmulatorGroups(t *testing.T) {
	c, e := withEmulator(t, "octo", emulator.Options{Groups: []string{"Macs"}})
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "a", Group: "macs", Labels: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if got := e.State().Runners[0].Group; got != "Macs" {
		t.Errorf("group %q", got)
	}
}

// The whole incident: the reply is lost, the second try is refused, and the
// registration that nobody knows the id of is found by its name and removed.
func TestEmulatorIncidentJITLostReply(t *testing.T) {
	c, _ := withEmulator(t, "octo/demo", emulator.Options{Faults: []emulator.Fault{emulator.JITLostReply(1)}})
	ask := runner.Registration{Name: "tasuki-a", Labels: []string{"self-hosted"}}
	if _, err := c.Credential(t.Context(), ask); err == nil || errors.Is(err, runner.ErrExists) {
		t.Fatalf("got %v, want a cut connection", err)
	}
	if _, err := c.Credential(t.Context(), ask); !errors.Is(err, runner.ErrExists) {
		t.Fatalf("got %v, want ErrExists", err)
	}
	all, err := c.Runners(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "tasuki-a" {
		t.Fatalf("got %v, %v", all, err)
	}
	if err := c.Remove(t.Context(), all[0].ID); err != nil {
		t.Fatal(err)
	}
	credential(t, c, "tasuki-a")
}

func TestEmulatorLimits(t *testing.T) {
	c, _ := withEmulator(t, "octo/demo", emulator.Options{Faults: []emulator.Fault{emulator.RateLimited("generate-jitconfig", 1, 17*time.Second)}})
	_, err := c.Credential(t.Context(), runner.Registration{Name: "a", Labels: []string{"x"}})
	var limit *github.LimitError
	if !errors.As(err, &limit) || limit.RetryAfter() != 17*time.Second {
		t.Errorf("got %v, want a pause of 17 s", err)
	}
}
