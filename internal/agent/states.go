package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

const credentialTimeout = time.Minute

// stateWork does the work of one state. It returns the next state and why, or
// an error: then the runner leaves, or goes on ending if it ends already.
type stateWork func(k *keeper, ctx context.Context) (runner.State, string, error)

type stateTable map[runner.State]stateWork

// states is what a keeper does in each state of the runner's life.
var states = stateTable{
	runner.Preparing:   (*keeper).prepare,
	runner.Requesting:  (*keeper).request,
	runner.Cloning:     (*keeper).clone,
	runner.Connecting:  (*keeper).connect,
	runner.Launching:   (*keeper).launch,
	runner.Registering: (*keeper).register,
	runner.Idle:        (*keeper).idle,
	runner.Busy:        (*keeper).busy,
	runner.Leaving:     (*keeper).leave,
	runner.Held:        (*keeper).hold,
	runner.Stopping:    (*keeper).powerOff,
	runner.Deleting:    (*keeper).remove,
	runner.Lingering:   (*keeper).linger,
}

// after returns the state that follows when the work of an ending state could
// not be done, or Leaving.
func (stateTable) after(s runner.State) runner.State {
	switch s {
	case runner.Leaving, runner.Held:
		return runner.Stopping
	case runner.Stopping:
		return runner.Deleting
	case runner.Deleting:
		return runner.Lingering
	case runner.Lingering:
		return runner.Gone
	}
	return runner.Leaving
}

// unmade is why an adopted runner without a guest ends: making a new one is
// as good.
const unmade = "the agent ended before the guest was made"

// prepare makes the guest's login key. The image is on the host already.
func (k *keeper) prepare(context.Context) (runner.State, string, error) {
	if k.image.Digest == "" {
		return runner.Leaving, unmade, nil
	}
	private, public, err := k.a.opt.NewKey()
	if err != nil {
		return "", "", fmt.Errorf("cannot make a login key: %w", err)
	}
	if err := atomicfile.Write(k.a.keyPath(k.name)+".pub", []byte(public), 0o600); err != nil {
		return "", "", err
	}
	if err := atomicfile.Write(k.a.keyPath(k.name), []byte(private.Reveal()), 0o600); err != nil {
		return "", "", err
	}
	return runner.Requesting, "", nil
}

// request gets a credential. What was asked for under this name before is
// taken away first: its credential is lost.
func (k *keeper) request(ctx context.Context) (runner.State, string, error) {
	if k.image.Digest == "" && !k.rec.Up {
		return runner.Leaving, unmade, nil
	}
	if k.rec.Asked && !k.rec.Left {
		if err := k.unregister(ctx); err != nil {
			return "", "", err
		}
	}
	if !k.note(ctx, func(r *runner.Record) { r.Asked, r.Left, r.RemoteID = true, false, 0 }) {
		return "", "", errAgentEnds
	}
	// What was asked of GitHub is waited for, whoever wants to stop us: an answer
	// that we do not hear leaves a registration behind.
	ask, cancel := context.WithTimeoutCause(k.a.life, credentialTimeout, fmt.Errorf("GitHub did not answer within %v", credentialTimeout))
	defer cancel()
	cred, err := k.pool.GitHub.Credential(ask, runner.Registration{
		Name: k.name, Group: k.pool.Spec.Group, Labels: k.labels, WorkFolder: k.pool.Spec.WorkFolder,
		Way: k.pool.Spec.Registration,
	})
	if err != nil {
		if refused(err) {
			// Certain: GitHub knows nothing under this name.
			k.note(ctx, func(r *runner.Record) { r.Asked = false })
		}
		return "", "", fmt.Errorf("cannot get a credential: %w", err)
	}
	k.credential = cred
	k.mu.Lock()
	k.remote = remoteView{}
	k.mu.Unlock()
	if !k.note(ctx, func(r *runner.Record) { r.RemoteID, r.ByToken = cred.ID, cred.Setup != nil }) {
		return "", "", errAgentEnds
	}
	if k.rec.Up {
		return runner.Launching, "", nil
	}
	return runner.Cloning, "", nil
}

// refused says whether GitHub has certainly not done what it was asked for.
func refused(err error) bool {
	var paced interface{ RetryAfter() time.Duration }
	return errors.Is(err, runner.ErrDenied) || errors.As(err, &paced)
}

// clone makes the guest and starts it. Both are idempotent by name.
func (k *keeper) clone(ctx context.Context) (runner.State, string, error) {
	public, err := os.ReadFile(k.a.keyPath(k.name) + ".pub")
	if err != nil {
		return "", "", fmt.Errorf("cannot read the guest's login key: %w", err)
	}
	if k.image.Digest == "" {
		return runner.Leaving, unmade, nil
	}
	s := k.pool.Spec
	spec := vm.Spec{
		Name: k.name, Image: k.image, CPUs: s.CPUs, MemoryMiB: s.MemoryMiB, DiskGB: s.DiskGB, Network: s.Network,
		Owner:    vm.Owner{Installation: k.a.opt.Installation, Pool: s.Name, Runner: k.name},
		LoginKey: strings.TrimSpace(string(public)), Hostname: k.name, Machine: s.Machine,
	}
	if err := k.pool.Driver.Create(ctx, spec); err != nil {
		return "", "", fmt.Errorf("cannot clone the image: %w", err)
	}
	if err := k.pool.Driver.Start(ctx, k.name); err != nil {
		return "", "", fmt.Errorf("cannot start the guest: %w", err)
	}
	return runner.Connecting, "", nil
}

// connect waits until the guest lets us in.
func (k *keeper) connect(ctx context.Context) (runner.State, string, error) {
	if err := k.dial(ctx); err != nil {
		return "", "", err
	}
	way := k.way()
	if !k.note(ctx, func(r *runner.Record) { r.Up, r.Way, r.User, r.HostKey = true, way.String(), way.User, way.HostKey }) {
		return "", "", errAgentEnds
	}
	if k.credential.IsZero() {
		return runner.Requesting, "the credential was lost with the agent that held it", nil
	}
	return runner.Launching, "", nil
}

// launch puts the pool's files, runs its hook and launches the program. A
// channel that breaks meanwhile is opened again: launching twice starts one
// program.
func (k *keeper) launch(ctx context.Context) (runner.State, string, error) {
	for n := 1; ; n++ {
		to, reason, err := k.launchOnce(ctx)
		if !errors.Is(err, guest.ErrUnreachable) {
			return to, reason, err
		}
		k.hangUp()
		if backoff.Sleep(ctx, retryPace.Delay(n, nil)) != nil {
			return "", "", err
		}
	}
}

func (k *keeper) launchOnce(ctx context.Context) (runner.State, string, error) {
	if err := k.dial(ctx); err != nil {
		return "", "", err
	}
	launched, err := guest.Launched(ctx, k.channel)
	if err != nil {
		return "", "", err
	}
	if launched {
		return runner.Registering, "", nil
	}
	if k.credential.IsZero() {
		return runner.Requesting, "the credential was lost with the agent that held it", nil
	}
	s := k.pool.Spec
	for _, f := range s.Files {
		if err := guest.Put(ctx, k.channel, f.Path, fs.FileMode(f.Mode).Perm(), bytes.NewReader(f.Content)); err != nil {
			return "", "", err
		}
	}
	if err := k.hook(ctx, "before_job", s.BeforeJob); err != nil {
		return "", "", err
	}
	program, err := k.bringRunner(ctx)
	if err != nil {
		return "", "", err
	}
	program.Env, program.Secrets, program.Setup = env(k.pool), k.credential.Env, k.credential.Setup
	if err := guest.Launch(ctx, k.channel, program); err != nil {
		return "", "", err
	}
	return runner.Registering, "", nil
}

// program is what the image says about its runner.
func (k *keeper) program() guest.Program {
	labels := k.rec.ImageLabels
	return guest.Program{Dir: labels[image.LabelRunnerDir], Kind: labels[image.LabelRunnerKind]}
}

// hook runs a script of the pool's in the guest.
func (k *keeper) hook(ctx context.Context, name, script string) error {
	if script == "" {
		return nil
	}
	var out tail
	status, err := k.channel.Run(ctx, guest.Command{Script: script, Stdout: &out, Stderr: &out})
	if err != nil {
		return fmt.Errorf("cannot run hook %s: %w", name, err)
	}
	if status != 0 {
		return fmt.Errorf("hook %s ended with status %d: %s", name, status, out.String())
	}
	return nil
}

// dial opens the channel if it is not open, and tries until it is. It gives up
// when ctx ends, so also when the guest dies, or when the guest refuses us for
// good.
func (k *keeper) dial(ctx context.Context) error {
	if k.channel != nil {
		return nil
	}
	private, err := os.ReadFile(k.a.keyPath(k.name))
	if err != nil {
		return fmt.Errorf("cannot read the guest's login key: %w", err)
	}
	labels := k.rec.ImageLabels
	target := guest.Target{
		Guest: k.name, User: labels[image.LabelUser], HostKey: labels[image.LabelHostKey],
		Key: secret.New(string(private)),
	}
	if target.HostKey == "" { // whoever was let in once must be the same from then on
		target.HostKey, target.Seen = k.rec.HostKey, k.rec.HostKey != ""
	}
	// The first tries are milliseconds apart: a guest that is up is found at once.
	pace := backoff.Policy{First: 20 * time.Millisecond, Most: 500 * time.Millisecond}
	for n := 1; ; n++ {
		ch, err := k.dialOnce(ctx, target)
		if err == nil {
			k.channel = ch
			return nil
		}
		if errors.Is(err, guest.ErrRefused) {
			return err
		}
		if backoff.Sleep(ctx, pace.Delay(n, nil)) != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (k *keeper) dialOnce(ctx context.Context, target guest.Target) (guest.Channel, error) {
	d, addressed := k.pool.Driver.(vm.Addresser)
	if _, ok := k.pool.Dialer.(guest.Resolver); ok && addressed {
		target.Resolve = func(ctx context.Context) (string, error) { return d.Address(ctx, k.name) }
	} else if addressed {
		address, err := d.Address(ctx, k.name)
		if err != nil {
			return nil, err
		}
		target.Address = address
	}
	return k.pool.Dialer.Dial(ctx, target)
}

// way is how the guest was reached.
func (k *keeper) way() guest.Way {
	if w, ok := k.channel.(guest.Wayfarer); ok {
		return w.Way()
	}
	return guest.Way{}
}

// hangUp closes the channel; the next dial opens a new one.
func (k *keeper) hangUp() {
	if k.channel != nil {
		_ = k.channel.Close()
		k.channel = nil
	}
}

// tail keeps the end of what is written to it, for error texts.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-2048):]
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }
