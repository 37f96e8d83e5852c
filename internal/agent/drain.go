package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/event"
)

// drainFile holds what a person drained: the next agent goes on with it.
const drainFile = "drained.json"

// drainState is what a person drained.
type drainState struct {
	Host  bool     `json:"host,omitempty"`
	Pools []string `json:"pools,omitempty"`
}

// Drain takes no new runners, in one pool or with an empty name on the whole
// host, and lets those that wait for a job go. It lasts until Resume, over
// restarts too. Errors: ErrNoPool.
func (a *Agent) Drain(poolName string) error { return a.setDrained(poolName, true) }

// Resume ends a Drain of the same name. Errors: ErrNoPool.
func (a *Agent) Resume(poolName string) error { return a.setDrained(poolName, false) }

func (a *Agent) setDrained(poolName string, drained bool) error {
	if err := a.changeDrained(poolName, drained); err != nil {
		return err
	}
	kind := event.HostResumed
	if drained {
		kind = event.HostDraining
	}
	a.emit(event.Event{Kind: kind, Pool: poolName})
	a.poke()
	return nil
}

func (a *Agent) changeDrained(poolName string, drained bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	host, pools := a.drained, map[string]bool{}
	for _, p := range a.pools {
		pools[p.Spec.Name] = p.drained
	}
	if _, known := pools[poolName]; !known && poolName != "" {
		names := slices.Sorted(maps.Keys(pools))
		return fmt.Errorf("cannot find pool %q among %s: %w", poolName, strings.Join(names, ", "), ErrNoPool)
	}
	if poolName == "" {
		host = drained
	} else {
		pools[poolName] = drained
	}
	if err := a.writeDrained(host, pools); err != nil {
		return err
	}
	a.drained = host
	for _, p := range a.pools {
		p.drained = pools[p.Spec.Name]
	}
	a.tellDrain()
	return nil
}

// writeDrained makes durable what is drained, before it is.
func (a *Agent) writeDrained(host bool, pools map[string]bool) error {
	state := drainState{Host: host}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		if pools[name] {
			state.Pools = append(state.Pools, name)
		}
	}
	path := filepath.Join(a.opt.Home, drainFile)
	var err error
	if !state.Host && len(state.Pools) == 0 {
		err = atomicfile.Remove(path)
	} else {
		b, _ := json.Marshal(state) // plain data
		err = atomicfile.Write(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write down what is drained: %w", err)
	}
	return nil
}

// readDrained goes on with what was drained when the last agent ended. The
// caller holds a.mu.
func (a *Agent) readDrained() error {
	path := filepath.Join(a.opt.Home, drainFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var state drainState
	if err == nil {
		err = json.Unmarshal(b, &state)
	}
	if err != nil {
		return fmt.Errorf("cannot read what is drained from %q (without that file, nothing is): %w", path, err)
	}
	a.drained = state.Host
	for _, p := range a.pools {
		p.drained = slices.Contains(state.Pools, p.Spec.Name)
	}
	return nil
}
