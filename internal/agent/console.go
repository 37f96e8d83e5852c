package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/logtail"
)

// consoleTimeout bounds asking the hypervisor where a console is.
const consoleTimeout = 10 * time.Second

// ConsolePath returns the file with what a runner's guest wrote to its console:
// the hypervisor's own while the guest lives; then the end of it, up to 1 MiB,
// kept as the runner's log is. The file may not be there yet, or not any more.
func (a *Agent) ConsolePath(name string) string {
	kept := filepath.Join(a.opt.Home, "logs", name+".console")
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	a.mu.Lock()
	k := a.keepers[name]
	a.mu.Unlock()
	if k == nil {
		return kept
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.console == "" {
		return kept
	}
	return k.console
}

// keepConsole copies the end of the guest's console before the guest goes. That
// it cannot costs the console and nothing else.
func (k *keeper) keepConsole(ctx context.Context) {
	k.mu.Lock()
	path := k.console
	k.mu.Unlock()
	if path == "" { // it came and goes between two looks
		path = k.findConsole(ctx)
	}
	if path == "" {
		return
	}
	end, err := logtail.Read(path, consoleLength)
	if err != nil || len(end) == 0 {
		return // there is none, or it went with the guest
	}
	if err := atomicfile.Write(filepath.Join(k.a.opt.Home, "logs", k.name+".console"), end, 0o600); err != nil {
		k.a.log.Warn("cannot keep a guest's console", "runner", k.name, "err", err)
	}
}

func (k *keeper) findConsole(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	guests, err := k.pool.Driver.List(ctx)
	if err != nil {
		return ""
	}
	for _, g := range guests {
		if g.Name == k.name {
			return g.Console
		}
	}
	return ""
}
