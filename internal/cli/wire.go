package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// host is one agent with everything that it works on.
type host struct {
	agent  *agent.Agent
	bus    *event.Bus
	events *eventlog.Log
	wiring *wiring
	watch  *monitoring
}

// newHost wires a host from its configuration. The caller holds the home's
// claim. The sinks get each event after the log; Close the host at the end.
func newHost(ctx context.Context, cfg *config.Config, log *slog.Logger, sinks ...event.Sink) (_ *host, err error) {
	home := cfg.Host.Home
	installation, err := installationOf(home)
	if err != nil {
		return nil, err
	}
	w := newWiring(cfg, installation, log)
	pools, err := w.pools(ctx, cfg)
	if err != nil {
		return nil, err
	}
	records, err := journal.Open(filepath.Join(home, "journal"))
	if err != nil {
		return nil, err
	}
	records.Log = log
	events, err := eventlog.Open(eventsDir(home), eventlog.Options{Log: log})
	if err != nil {
		return nil, err
	}
	watch, err := newMonitoring(cfg, w, events)
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	bus := &event.Bus{Sinks: slices.Concat([]event.Sink{events}, watch.sinks(), sinks)}
	a, err := agent.New(agent.Options{
		Host: cfg.Host.Name, Installation: installation, Prefix: cfg.Host.Prefix, Version: versionName(),
		Home: home, Slots: cfg.Host.Slots,
		DrainTimeout: time.Duration(cfg.Host.DrainTimeout), Tick: time.Duration(cfg.Host.Tick),
		Reboot: rebootOf(cfg.Host), Pools: pools, Journal: records, Events: bus, Log: log, NewKey: ssh.NewKey,
		ImageRefresh: time.Duration(cfg.Images.Refresh), ImageFloor: w.floor,
		Releases: watch.releases, Logs: agent.Logs{Runs: cfg.Logs.Runs, Age: time.Duration(cfg.Logs.Age)},
	})
	if err != nil {
		return nil, errors.Join(err, watch.close(), events.Close())
	}
	if live, err := records.All(); err == nil { // the agent says what is wrong with a journal
		watch.settle(ctx, live)
	}
	watch.metrics.Watch(watch.status(a.Status))
	w.scaleSets.settled()
	return &host{agent: a, bus: bus, events: events, wiring: w, watch: watch}, nil
}

// Close writes the last events out. Call it after the agent's Run.
func (h *host) Close() error { return errors.Join(h.watch.close(), h.events.Close()) }

// reconfigure takes a changed configuration over, or says why it cannot and
// changes nothing.
func (h *host) reconfigure(ctx context.Context, cfg *config.Config) error {
	if err := h.wiring.unchangeable(cfg); err != nil {
		return err
	}
	if err := h.watch.unchangeable(cfg); err != nil {
		return err
	}
	pools, err := h.wiring.pools(ctx, cfg)
	if err != nil {
		return err
	}
	if err := h.agent.Reconfigure(pools, cfg.Host.Slots, time.Duration(cfg.Host.DrainTimeout)); err != nil {
		return err
	}
	h.wiring.scaleSets.settled()
	return nil
}

// rebootOf is the command that reboots the host where slots leaked; nil: none.
func rebootOf(h config.Host) []string {
	switch {
	case h.Reboot != config.RebootLeaked:
		return nil
	case len(h.RebootCommand) == 0:
		return []string{"sudo", "-n", "/sbin/shutdown", "-r", "now"}
	}
	return h.RebootCommand
}

func eventsDir(home string) string { return filepath.Join(home, "events") }

// wiring makes what pools work on, and gives the same again where nothing has
// changed: the agent knows drivers, scopes and image sources by identity.
type wiring struct {
	host         config.Host
	kept         config.Images
	floor        int64 // bytes of the home's disk that stay free
	installation string
	log          *slog.Logger
	ssh          *ssh.Dialer
	mu           sync.Mutex // guards drivers: a scrape asks for their slots
	drivers      map[string]vm.Driver
	gitHubs      *gitHubs
	scaleSets    *scaleSets
	images       *registryImages
	folders      *folderImages
	tarts        map[string]*tartImages // by the guests' system
	arch         string                 // of QEMU's guests; "" means this machine's
}

func newWiring(cfg *config.Config, installation string, log *slog.Logger) *wiring {
	return &wiring{
		host: cfg.Host, kept: cfg.Images, floor: keepFree(cfg), installation: installation, log: log,
		ssh: &ssh.Dialer{}, drivers: map[string]vm.Driver{}, gitHubs: newGitHubs(log),
		scaleSets: newScaleSets(cfg.Host, installation, log),
		folders:   &folderImages{}, tarts: map[string]*tartImages{},
	}
}

// unchangeable refuses a configuration that differs in what an agent keeps for
// its whole life.
func (w *wiring) unchangeable(cfg *config.Config) error {
	var changed []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"host.name", w.host.Name == cfg.Host.Name},
		{"host.home", w.host.Home == cfg.Host.Home},
		{"host.prefix", w.host.Prefix == cfg.Host.Prefix},
		{"host.tick", w.host.Tick == cfg.Host.Tick},
		{"host.accel", w.host.Accel == cfg.Host.Accel},
		{"host.reboot", w.host.Reboot == cfg.Host.Reboot && slices.Equal(w.host.RebootCommand, cfg.Host.RebootCommand)},
		{"images", w.kept == cfg.Images},
	} {
		if !f.same {
			changed = append(changed, f.name)
		}
	}
	if len(changed) > 0 {
		return withHint(fmt.Errorf("cannot change %s while the agent runs", strings.Join(changed, ", ")), "restart the agent; its guests go on meanwhile")
	}
	return nil
}

// pools returns the configured pools with all that they work on. Secrets that
// cannot be read are errors now and not with the first job.
func (w *wiring) pools(ctx context.Context, cfg *config.Config) ([]agent.Pool, error) {
	w.scaleSets.settle = nil
	logins, err := registryLogins(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var out []agent.Pool
	scopes := map[string]*github.Client{}
	for i, spec := range cfg.Specs() {
		p, account := agent.Pool{Spec: spec}, *cfg.Account(cfg.Pools[i].GitHub)
		if err := readable(ctx, account); err != nil {
			return nil, fmt.Errorf("cannot keep pool %q: %w", spec.Name, err)
		}
		if p.Driver, p.Dialer, err = w.driverOf(ctx, cfg.Pools[i]); err != nil {
			return nil, fmt.Errorf("cannot keep pool %q: %w", spec.Name, err)
		}
		client, err := w.gitHubs.scope(account, spec.Scope)
		if err != nil {
			return nil, fmt.Errorf("cannot keep pool %q: %w", spec.Name, err)
		}
		p.GitHub, scopes[spec.Scope] = client, client
		if of := cfg.Pools[i].ScaleSet; of != nil {
			if err := w.scaleSets.wire(&p, of, client, cfg.Host.Slots); err != nil {
				return nil, fmt.Errorf("cannot keep pool %q: %w", spec.Name, err)
			}
		}
		if p.Images, err = w.imagesOf(cfg.Pools[i]); err != nil {
			return nil, fmt.Errorf("cannot keep pool %q: %w", spec.Name, err)
		}
		out = append(out, p)
	}
	if w.images != nil {
		w.images.logins.Store(&logins)
	}
	w.gitHubs.use(scopes)
	return out, nil
}

// driver returns the driver of that name and the channel into its guests.
func (w *wiring) driver(name string) (vm.Driver, guest.Dialer, error) {
	dialer := guest.Dialer(w.ssh)
	if name == "fake" {
		dialer = local.Dialer{}
	}
	if d, ok := w.known(name); ok {
		return d, dialer, nil
	}
	d, err := w.newDriver(name)
	if err != nil {
		return nil, nil, err
	}
	w.know(name, d)
	return d, dialer, nil
}

func (w *wiring) known(name string) (vm.Driver, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.drivers[name]
	return d, ok
}

func (w *wiring) know(name string, d vm.Driver) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drivers[name] = d
}

// leaked is how many slots the hypervisors have lost.
func (w *wiring) leaked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.drivers {
		if c, ok := d.(vm.SlotCounter); ok {
			n += c.Slots().Leaked
		}
	}
	return n
}

func (w *wiring) newDriver(name string) (vm.Driver, error) {
	switch name {
	case "qemu":
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("cannot find this program's own file: %w", err)
		}
		return qemu.New(qemu.Options{
			Home: filepath.Join(w.host.Home, "guests"), Installation: w.installation, Prefix: w.host.Prefix + "-",
			Accel: w.host.Accel, Arch: w.arch, Relay: []string{self, relayName}, Log: w.log,
		})
	case "fake":
		return fake.New(fake.Options{
			Dir: filepath.Join(w.host.Home, "fake"), Installation: w.installation, Prefix: w.host.Prefix + "-",
		})
	}
	return nil, fmt.Errorf("there is no driver %q: %w", name, vm.ErrUnsupported)
}

// imagesFor returns where the images of a driver's guests come from.
func (w *wiring) imagesFor(driver string) (agent.Images, error) {
	if driver == "fake" {
		return w.folders, nil
	}
	if w.images == nil {
		s, err := store.Open(imagesDir(w.host.Home))
		if err != nil {
			return nil, err
		}
		w.images = &registryImages{store: s, log: w.log, floor: w.floor}
		if w.kept.Limit > 0 {
			w.images.limit = transfer.NewLimiter(int64(w.kept.Limit))
		}
	}
	return w.images, nil
}

func imagesDir(home string) string { return filepath.Join(home, "images") }

var installationForm = regexp.MustCompile(`^[a-z2-7]{6}$`)

// installationOf returns the word that tells this home from any other, kept in
// HOME/installation. It is made with the home.
func installationOf(home string) (string, error) {
	path := filepath.Join(home, "installation")
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if !installationForm.MatchString(id) {
			return "", withHint(fmt.Errorf("cannot use %q: %q is not an installation's name", path, id),
				"the names of this home's guests carry the old one: restore the file, or destroy them and remove it")
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the installation's name: %w", err)
	}
	id := strings.ToLower(rand.Text()[:6]) // base32: letters and 2 to 7
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the agent's home: %w", err)
	}
	return id, atomicfile.Write(path, []byte(id+"\n"), 0o600)
}
