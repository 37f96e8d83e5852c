package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/wait"
)

// failurePace is how a pool waits after runners that failed in a row.
var failurePace = backoff.Policy{First: 2 * time.Second, Most: 5 * time.Minute}

// poolState is a pool and what the agent knows of it. Its fields are guarded
// by Agent.mu; the Pool itself never changes.
type poolState struct {
	Pool
	config string // fingerprint of the settings that a guest is made from
	labels []string

	image    image.Local
	from     string // the reference that image came from
	hasImage bool
	imageErr string
	works    bool          // a runner of image listened, and none failed since
	trial    *trial        // a newer image; nil: there is none
	pull     *pull         // what is on its way; nil: nothing
	held     []string      // digests that are held for it
	ask      chan struct{} // somebody wants it refreshed now

	drained    bool
	failures   int       // runners that failed in a row
	failedAt   time.Time // when the last of them did
	notBefore  time.Time // no new runner before
	lastError  wait.Reason
	refused    *refusal    // GitHub gives no jobs to its runners' version
	deprecated int         // how many runners that happened to since the agent started
	waiting    wait.Reason // why the pool has fewer runners than it wants

	hungry    time.Time // since when it wants a runner and has none; zero: it has
	contented time.Time // since when it wants none, while it is hungry
	yielded   time.Time // when a runner of it gave way to another pool last

	stop context.CancelFunc // ends its image watcher
}

func (p *poolState) ready() bool { return p.hasImage }

// blocked says why no runner can be started for the pool now.
func (p *poolState) blocked(now time.Time) wait.Reason {
	const clock = "15:04:05 UTC"
	switch {
	case !p.hasImage && p.imageErr != "":
		return wait.Reason{Code: wait.NoImage, Text: "image not on this host: " + p.imageErr}
	case !p.hasImage:
		return wait.Reason{Code: wait.Pulling, Text: "image is being brought to this host: " + p.Spec.Image}
	case p.refused != nil && now.Before(p.notBefore):
		return wait.Reason{Code: wait.Deprecated, Text: fmt.Sprintf("%v; asked again at %s", p.refused, p.notBefore.UTC().Format(clock))}
	case now.Before(p.notBefore) && p.failures == 0:
		return wait.Reason{Code: p.lastError.Code, Text: fmt.Sprintf("next try at %s: %s", p.notBefore.UTC().Format(clock), p.lastError)}
	case now.Before(p.notBefore):
		return wait.Reason{Code: p.lastError.Code, Text: fmt.Sprintf("%d failed in a row, next try at %s: %s",
			p.failures, p.notBefore.UTC().Format(clock), p.lastError)}
	}
	return wait.Reason{}
}

// hungerLasts is how long a pool may want nothing and count as hungry all the
// same: a job that GitHub took back may be given to it again.
const hungerLasts = 10 * time.Minute

// hunger returns since when the pool wants a runner and has none.
func (p *poolState) hunger(now time.Time, has, wants bool) time.Time {
	switch {
	case has:
		p.hungry, p.contented = time.Time{}, time.Time{}
	case wants:
		p.hungry, p.contented = orDefault(p.hungry, now), time.Time{}
	case !p.hungry.IsZero():
		p.contented = orDefault(p.contented, now)
		if now.Sub(p.contented) > hungerLasts {
			p.hungry, p.contented = time.Time{}, time.Time{}
		}
	}
	return p.hungry
}

// kindOf is the code of what went wrong before a runner had a job.
func kindOf(err error) wait.Code {
	var paced interface{ RetryAfter() time.Duration }
	var old deprecated
	switch {
	case errors.Is(err, runner.ErrDenied):
		return wait.Denied
	case errors.As(err, &old):
		return wait.Deprecated
	case errors.As(err, &paced):
		return wait.Limited
	case errors.Is(err, vm.ErrLimit):
		return wait.NoSlot
	}
	return wait.Failing
}

// failed lets the pool wait before its next runner, longer each time. Runners
// that were made before the last failure failed together with it and count once;
// that GitHub wants to be left alone is no failure of the pool's.
func (p *poolState) failed(reason string, err error, made, now time.Time) {
	p.lastError = wait.Reason{Code: kindOf(err), Text: reason}
	var paced interface{ RetryAfter() time.Duration }
	if errors.As(err, &paced) && !errors.Is(err, runner.ErrDenied) {
		p.pause(now.Add(paced.RetryAfter()))
		return
	}
	if made.After(p.failedAt) {
		p.failures++
	}
	p.failedAt = now
	delay := failurePace.Delay(max(p.failures, 1), nil)
	if errors.Is(err, runner.ErrDenied) || errors.Is(err, vm.ErrLimit) {
		delay = max(delay, 30*time.Second)
	}
	p.pause(now.Add(delay))
}

// pausePool lets a pool wait a little before its next runner.
func (a *Agent) pausePool(name, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.poolNamed(name); p != nil {
		p.lastError = wait.Reason{Code: wait.Failing, Text: reason}
		p.pause(time.Now().Add(failurePace.First))
	}
}

// pause makes no new runner before a time; an earlier one changes nothing.
func (p *poolState) pause(until time.Time) {
	if until.After(p.notBefore) {
		p.notBefore = until
	}
}

func (p *poolState) succeeded() {
	p.failures, p.failedAt, p.notBefore, p.lastError, p.refused = 0, time.Time{}, time.Time{}, wait.Reason{}, nil
}

type standby int

func (s standby) Want() pool.Demand {
	return pool.Demand{Warm: int(s), Why: fmt.Sprintf("standby: %d", s)}
}

// fingerprint covers what a guest is made from, and not how many there are.
func fingerprint(s pool.Spec, labels []string) string {
	s.Name, s.Standby, s.Most, s.HoldAfterFailure, s.Deadlines, s.MaxJob, s.Image = "", 0, 0, 0, nil, 0, ""
	b, err := json.Marshal(struct {
		Spec   pool.Spec
		Labels []string
	}{s, labels})
	if err != nil {
		panic(err) // a Spec is plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// setPools replaces the pools and keeps what is known of those that stay. The
// caller holds a.mu, or is New.
func (a *Agent) setPools(pools []Pool) error {
	seen := map[string]bool{}
	var next []*poolState
	for _, p := range pools {
		if p.Driver == nil || p.Dialer == nil || p.GitHub == nil || p.Images == nil {
			return fmt.Errorf("cannot keep pool %q without driver, dialer, GitHub and images", p.Spec.Name)
		}
		if seen[p.Spec.Name] {
			return fmt.Errorf("cannot keep two pools named %q", p.Spec.Name)
		}
		seen[p.Spec.Name] = true
		if p.Demand == nil {
			p.Demand = standby(p.Spec.Standby)
		}
		labels := p.Spec.PublishedLabels(p.Driver.Capabilities())
		s := &poolState{Pool: p, labels: labels, config: fingerprint(p.Spec, labels), ask: make(chan struct{}, 1)}
		if old := a.poolNamed(p.Spec.Name); old != nil {
			s.drained = old.drained
			s.deprecated = old.deprecated
			s.hungry, s.contented, s.yielded = old.hungry, old.contented, old.yielded
			s.waiting = old.waiting
			if old.Images == p.Images && old.Driver == p.Driver {
				// Another reference means another image to try, no more.
				s.image, s.from, s.hasImage, s.works, s.held, old.held = old.image, old.from, old.hasImage, old.works, old.held, nil
				if old.Spec.Image == p.Spec.Image {
					s.trial = old.trial
				}
			}
		}
		next = append(next, s)
	}
	for _, old := range a.pools {
		if old.stop != nil {
			old.stop()
		}
		a.holdFor(old)
		if !seen[old.Spec.Name] {
			delete(a.problems, imageProblem(old))
			delete(a.problems, trialProblem(old))
			delete(a.problems, runnerProblem(old.Spec.Name))
		}
	}
	a.pools = next
	return nil
}

const nameLetters = "abcdefghijkmnpqrstuvwxyz23456789"

// newName returns a name for a runner and its guest that nobody had before:
// PREFIX-HOST-INSTALLATION-POOL-RANDOM, at most 63 characters.
func (a *Agent) newName(poolName string) string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // it never fails
	for i := range b {
		b[i] = nameLetters[int(b[i])%len(nameLetters)]
	}
	return strings.Join([]string{short(a.opt.Prefix, 12), short(a.opt.Host, 16), a.opt.Installation, short(poolName, 19), string(b)}, "-")
}

// ownName says whether a runner was named by this installation.
func (a *Agent) ownName(name string) bool { return Named(a.opt.Prefix, a.opt.Installation, name) }

// Named says whether a runner was named by an installation, under any name
// that its host ever had. Hosts of one name do not meet.
func Named(prefix, installation, name string) bool {
	return strings.HasPrefix(name, short(prefix, 12)+"-") && strings.Contains(name, "-"+installation+"-")
}

// short makes a word that fits into a guest's name.
func short(word string, most int) string {
	var b strings.Builder
	for _, r := range strings.ToLower(word) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	s := b.String()
	return strings.Trim(s[:min(len(s), most)], "-")
}

func randomFraction() float64 {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return float64(uint16(b[0])<<8|uint16(b[1])) / (1 << 16)
}
