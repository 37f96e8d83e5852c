package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

// Releases are the releases of the runner program that this host keeps.
type Releases interface {
	// Latest returns the newest one for a platform in GOOS and GOARCH form, from
	// memory; false: there is none yet.
	Latest(system, arch string) (runner.Release, bool)
}

// deprecatedPace is how a pool asks again whether GitHub gives jobs to its
// runners' version. Only a new version helps, or GitHub that changed its mind.
var deprecatedPace = backoff.Policy{First: time.Minute, Most: 30 * time.Minute}

// deprecated is that GitHub gives no jobs to a version of the runner program.
type deprecated struct {
	version string // empty: not known
	image   string // digest of the image that it came from
}

func (e deprecated) Error() string {
	version := e.version
	if version == "" {
		version = "of unknown version"
	}
	return fmt.Sprintf("GitHub gives no jobs to runner %s of image %s: put a newer runner program into the image, or let the host do it (runner: host)", version, shortDigest(e.image))
}

func shortDigest(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return algorithm + ":" + hex[:min(12, len(hex))]
}

// refusal is what a pool remembers of a deprecated version.
type refusal struct {
	deprecated
	times   int    // in a row
	offered string // the version that the host could put into guests then
	again   time.Time
}

// refuse lets the pool ask again slowly, and says so. The caller holds a.mu.
func (a *Agent) refuse(p *poolState, name string, d deprecated, now time.Time) {
	p.deprecated++
	if r := p.refused; r == nil || !now.Before(r.again) { // not another of the same time
		next := &refusal{deprecated: d, times: 1, offered: a.offered(p)}
		if r != nil {
			next.times = r.times + 1
		}
		next.again = now.Add(deprecatedPace.Delay(next.times, nil))
		p.refused = next
	}
	p.notBefore = p.refused.again
	a.emit(event.Event{Kind: event.RunnerDeprecated, Pool: p.Spec.Name, Runner: name, Image: d.image, Reason: d.Error(), Failed: true})
}

// offered is the version of the runner program that the host would put into a
// guest of the pool. The caller holds a.mu.
func (a *Agent) offered(p *poolState) string {
	if a.opt.Releases == nil || p.Spec.Runner == runner.FromImage || p.Spec.Runner == runner.FromOff {
		return ""
	}
	caps := p.Driver.Capabilities()
	r, _ := a.opt.Releases.Latest(caps.GuestOS, caps.GuestArch)
	return r.Version
}

// reconsider forgets a refusal once the pool's guests would run another version.
// The caller holds a.mu.
func (a *Agent) reconsider(p *poolState) {
	if p.refused != nil && (p.refused.image != p.image.Digest || p.refused.offered != a.offered(p)) {
		p.succeeded()
	}
}

// newerRunner returns the release of the host that a guest shall get because its
// image's runner program is older; false: the image's will do.
func (k *keeper) newerRunner(ctx context.Context) (runner.Release, bool, error) {
	labels, source := k.rec.ImageLabels, k.pool.Spec.Runner
	if k.a.opt.Releases == nil || labels[image.LabelRunnerKind] != image.RunnerOfficial || source == runner.FromOff {
		return runner.Release{}, false, nil
	}
	caps := k.pool.Driver.Capabilities()
	newest, known := k.a.opt.Releases.Latest(caps.GuestOS, caps.GuestArch)
	if !known {
		return runner.Release{}, false, nil
	}
	version, err := k.runnerVersion(ctx)
	if err != nil {
		return runner.Release{}, false, err
	}
	old, problem := older(version, newest.Version), ""
	if old && source == runner.FromImage {
		problem = fmt.Sprintf("its image carries runner %s; the newest is %s, and GitHub gives no jobs to old ones", version, newest.Version)
	}
	k.a.problem(runnerProblem(k.rec.Pool), problem)
	return newest, old && source != runner.FromImage, nil
}

func runnerProblem(pool string) string { return "runner program of pool " + pool }

// runnerVersion is the version of the image's runner program, by its label, or
// else by its own word.
func (k *keeper) runnerVersion(ctx context.Context) (string, error) {
	if v := k.rec.ImageLabels[image.LabelRunnerVersion]; v != "" {
		return v, nil
	}
	v, err := guest.RunnerVersion(ctx, k.channel, k.program())
	if err != nil || v == "" {
		return "", err
	}
	if !k.note(ctx, func(r *runner.Record) { r.RunnerVersion = v }) {
		return "", errAgentEnds
	}
	return v, nil
}

// bringRunner puts the host's release of the runner program into the guest where
// the image's is older, and returns the program to launch.
func (k *keeper) bringRunner(ctx context.Context) (guest.Program, error) {
	program := k.program()
	newest, wanted, err := k.newerRunner(ctx)
	if err != nil || !wanted {
		return program, err
	}
	archive, err := os.Open(newest.Path)
	if err != nil {
		return program, fmt.Errorf("cannot bring runner %s into the guest: %w", newest.Version, err)
	}
	defer archive.Close()
	began := time.Now()
	program.Dir, err = guest.Unpack(ctx, k.channel, program, newest.Version, archive)
	if err != nil {
		return program, fmt.Errorf("cannot bring runner %s into the guest: %w", newest.Version, err)
	}
	k.a.log.Info("brought a newer runner program into a guest", "runner", k.name, "version", newest.Version, "took", time.Since(began))
	if !k.note(ctx, func(r *runner.Record) { r.RunnerVersion = newest.Version }) {
		return program, errAgentEnds
	}
	return program, nil
}

// refusedVersion is why a runner ends to which GitHub gives no jobs.
func (k *keeper) refusedVersion() error {
	version := k.rec.RunnerVersion
	if version == "" {
		version = k.rec.ImageLabels[image.LabelRunnerVersion]
	}
	return deprecated{version: version, image: k.rec.Image}
}

// older says whether a version of the form 1.2.3 is lower than another. What
// cannot be read is not.
func older(version, than string) bool {
	a, errA := numbers(version)
	b, errB := numbers(than)
	if errA != nil || errB != nil {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func numbers(version string) (out [3]int, err error) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) != len(out) {
		return out, errors.New("not a version")
	}
	for i, p := range parts {
		if out[i], err = strconv.Atoi(p); err != nil {
			return out, err
		}
	}
	return out, nil
}
