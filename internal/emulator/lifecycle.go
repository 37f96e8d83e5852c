package emulator

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// collectAt returns when the registration is removed for being unused; zero if nothing is due. The lock is held.
func (e *Emulator) collectAt(r *runner) time.Time {
	if r.gone != registered || r.job != nil {
		return time.Time{}
	}
	var at time.Time
	if e.opts.CollectIdle > 0 {
		at = r.created.Add(e.opts.CollectIdle)
	}
	if s := r.session; s == nil || s.polls == 0 {
		since, life := r.created, e.opts.CollectOffline
		if s != nil {
			since = s.lastSeen
		}
		if !r.ephemeral {
			life *= 14
		}
		if end := since.Add(life); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	return at
}

// collect removes a registration that nobody used. The lock is held.
func (e *Emulator) collect(r *runner) {
	e.log.Info("registration collected", "runner", r.name)
	e.remove(r, deleted)
}

// versionTooOld is the kind of the broker's error for old runners.
const versionTooOld = "RunnerVersionTooOld"

func deprecation(version string) string {
	return fmt.Sprintf("Runner version v%s is deprecated and cannot receive messages.", version)
}

// tooOld refuses a runner of that version, if it is too old; one that does not say is let in.
func (e *Emulator) tooOld(w http.ResponseWriter, version string) bool {
	if version == "" || e.opts.MinRunnerVersion == "" || !older(version, e.opts.MinRunnerVersion) {
		return false
	}
	serviceError(w, http.StatusForbidden, brokerSource, versionTooOld, deprecation(version))
	return true
}

// older says whether a version comes before another; what is no number counts as 0.
func older(version, than string) bool {
	a, b := strings.Split(version, "."), strings.Split(than, ".")
	for i := range max(len(a), len(b)) {
		var x, y int
		if i < len(a) {
			x, _ = strconv.Atoi(a[i])
		}
		if i < len(b) {
			y, _ = strconv.Atoi(b[i])
		}
		if x != y {
			return x < y
		}
	}
	return false
}

// keyring makes the keys of JIT runners. It makes few and gives them out in turn: to make one takes longer
// than everything else about a runner, and who a runner is does not rest on its key alone.
type keyring struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
	next int
}

const keyringSize = 16

func (k *keyring) get() (*rsa.PrivateKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) < keyringSize {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("cannot make a runner's key: %w", err)
		}
		k.keys = append(k.keys, key)
		return key, nil
	}
	key := k.keys[k.next%keyringSize]
	k.next++
	return key, nil
}
