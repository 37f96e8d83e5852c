package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

// mac is a host whose tart is the stand-in.
type mac struct {
	*testing.T
	tartHome, home, shared string
	images                 map[string]image.Local // by the guests' system
}

func newMac(t *testing.T) *mac {
	t.Helper()
	dir := t.TempDir()
	m := &mac{T: t, tartHome: filepath.Join(dir, "tart"), home: filepath.Join(dir, "home"), shared: t.TempDir(), images: map[string]image.Local{}}
	bin := t.TempDir()
	if _, err := tarttest.Command(bin); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("TART_HOME", m.tartHome)
	for _, guestOS := range []string{image.OSDarwin, image.OSLinux} {
		img, err := tarttest.Cache(m.tartHome, "registry.test:5000/"+guestOS, map[string]string{image.LabelOS: guestOS})
		if err != nil {
			t.Fatal(err)
		}
		m.images[guestOS] = img
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := tarttest.End(ctx, m.tartHome); err != nil {
			t.Error(err)
		}
	})
	return m
}

// pools wires the pools of a configuration: their settings, one a line.
func (m *mac) pools(settings ...string) (*config.Config, []agent.Pool) {
	m.Helper()
	text := fmt.Sprintf("host: {name: h, home: %s}\ngithub: {url: \"http://127.0.0.1:1\"}\npools:\n", m.home)
	for i, s := range settings {
		text += fmt.Sprintf("  - {name: p%d, driver: tart, image: r.test/mac:1, scope: octo/demo, %s}\n", i, s)
	}
	cfg, err := config.Parse(filepath.Join(m.TempDir(), "c.yaml"), []byte(text))
	if err != nil {
		m.Fatal(err)
	}
	w := newWiring(cfg, "abcdef", slog.New(slog.DiscardHandler))
	pools, err := w.pools(m.Context(), cfg)
	if err != nil {
		m.Fatal(err)
	}
	return cfg, pools
}

// guest makes and starts a guest as the agent does, and returns the pool's driver.
func (m *mac) guest(p agent.Pool, name string) error {
	m.Helper()
	s, caps := p.Spec, p.Driver.Capabilities()
	err := p.Driver.Create(m.Context(), vm.Spec{
		Name: name, Owner: vm.Owner{Installation: "abcdef", Pool: s.Name, Runner: name}, Image: m.images[caps.GuestOS],
		CPUs: s.CPUs, MemoryMiB: s.MemoryMiB, DiskGB: s.DiskGB, Network: s.Network, Machine: s.Machine,
	})
	if err != nil {
		m.Fatal(err)
	}
	return p.Driver.Start(m.Context(), name)
}

// call returns the last call of a command, without what is always the same.
func (m *mac) call(command string) string {
	m.Helper()
	calls, err := tarttest.Calls(m.tartHome, command)
	if err != nil || len(calls) == 0 {
		m.Fatalf("no call of %s: %v", command, err)
	}
	return strings.Join(calls[len(calls)-1], " ")
}

// What the file says of a pool, and what tart gets to hear of it.
func TestTartOptionsFromTheFileToTheCommand(t *testing.T) {
	m := newMac(t)
	shares := fmt.Sprintf("shares: [{name: cache, path: %s}, {name: out, path: %s, writable: true}]", m.shared, m.shared)
	const always, name = "run --no-graphics --no-audio --no-clipboard --root-disk-opts ", "tasuki-x"
	const disk = "sync=none,caching=automatic"
	for _, c := range []struct{ settings, set, run string }{
		{"standby: 1", "--cpu 4 --memory 4096", disk + " --net-softnet"},
		{"cpus: 6, memory: 16GiB, disk: 120GB", "--cpu 6 --memory 16384 --disk-size 120", disk + " --net-softnet"},
		{"tart: {display: 1920x1080}", "--cpu 4 --memory 4096 --display 1920x1080", disk + " --net-softnet"},
		{"tart: {disk_sync: full, disk_cache: cached}", "--cpu 4 --memory 4096", "sync=full,caching=cached --net-softnet"},
		{"tart: {" + shares + "}", "--cpu 4 --memory 4096", disk + " --dir cache:" + m.shared + ":ro --dir out:" + m.shared + " --net-softnet"},
		{"network: {allow: [10.1.0.0/16, 192.168.3.4/32], block: [198.51.100.0/24]}", "--cpu 4 --memory 4096",
			disk + " --net-softnet --net-softnet-allow 10.1.0.0/16,192.168.3.4/32 --net-softnet-block 198.51.100.0/24"},
		{"network: {mode: isolated, allow: [10.1.0.0/16]}", "--cpu 4 --memory 4096",
			disk + " --net-softnet --net-softnet-allow 10.1.0.0/16 --net-softnet-block 0.0.0.0/0"},
		{"tart: {filter: none}", "--cpu 4 --memory 4096", disk},
		{"tart: {os: linux, nested: true}", "--cpu 2 --memory 4096", disk + " --nested --net-softnet"},
	} {
		_, pools := m.pools(c.settings)
		if err := m.guest(pools[0], name); err != nil {
			t.Errorf("%s: %v", c.settings, err)
		}
		if got, want := m.call("set"), "set "+name+" --random-mac --random-serial "+c.set; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.settings, got, want)
		}
		if got, want := m.call("run"), always+c.run+" "+name; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.settings, got, want)
		}
		if err := pools[0].Driver.Destroy(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// A folder of the host's is shared to be read, unless the file says otherwise,
// which is warned of; the images that all guests are made of are shared with none.
func TestSharedCacheWritable(t *testing.T) {
	m := newMac(t)
	cfg, pools := m.pools(fmt.Sprintf("tart: {shares: [{name: cache, path: %s}]}", m.shared))
	if err := m.guest(pools[0], "tasuki-x"); err != nil {
		t.Fatal(err)
	}
	if run := m.call("run"); !strings.Contains(run, "--dir cache:"+m.shared+":ro ") || len(cfg.Warnings()) > 0 {
		t.Errorf("%s; warnings: %v", run, cfg.Warnings())
	}
	cfg, _ = m.pools(fmt.Sprintf("tart: {shares: [{name: cache, path: %s, writable: true}]}", m.shared))
	if w := cfg.Warnings(); len(w) != 1 || !strings.Contains(w[0].What, "all that follow read") {
		t.Errorf("warnings: %v", w)
	}
	for _, own := range []string{m.tartHome, filepath.Dir(m.tartHome), filepath.Join(m.tartHome, "cache")} {
		text := fmt.Sprintf("host: {name: h, home: %s}\ngithub: {url: \"http://127.0.0.1:1\"}\npools: [{name: p, driver: tart, image: r.test/mac:1, scope: o/r, tart: {shares: [{name: a, path: %s}]}}]\n", m.home, own)
		if _, err := config.Parse(filepath.Join(m.TempDir(), "c.yaml"), []byte(text)); err == nil || !strings.Contains(err.Error(), "images that all") {
			t.Errorf("sharing %s: %v", own, err)
		}
	}
}

// Two macOS guests per Mac, over all pools; its Linux guests are not counted,
// and those of a person are.
func TestTheLimitOfAMacIsOverAllPools(t *testing.T) {
	m := newMac(t)
	_, pools := m.pools("standby: 1", "standby: 1", "tart: {os: linux}, standby: 0")
	if pools[0].Driver != pools[1].Driver || pools[0].Driver == pools[2].Driver {
		t.Error("pools of one system share a driver, those of others have one of their own")
	}
	for i, name := range []string{"tasuki-a", "tasuki-b", "tasuki-c"} {
		if err := m.guest(pools[i], name); err != nil {
			t.Fatal(err)
		}
	}
	err := m.guest(pools[1], "tasuki-d")
	if !errors.Is(err, vm.ErrLimit) || errors.Is(err, vm.ErrLeaked) || !strings.Contains(err.Error(), "2 of 2 macOS guests") {
		t.Errorf("a third macOS guest: %v", err)
	}
	if calls, err := tarttest.Calls(m.tartHome, "run"); err != nil || len(calls) != 3 {
		t.Errorf("tart run was called %d times, %v; want 3: a start that cannot succeed is not tried", len(calls), err)
	}
	for _, p := range pools {
		all, err := p.Driver.List(t.Context())
		if err != nil || !slices.ContainsFunc(all, func(in vm.Instance) bool { return in.Name == "tasuki-c" }) {
			t.Errorf("pool %s does not see the guest of another: %v, %v", p.Spec.Name, all, err)
		}
	}
}

// tasuki config check says what may hurt, and the status is that of a good file.
func TestConfigCheckWarns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("host: {name: h, home: /h}\ngithub: {url: \"http://127.0.0.1:1\"}\npools: [{name: p, driver: tart, image: r.test/mac:1, scope: o/r, tart: {filter: none}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := newConfigCheck(&app{stdout: &out, stderr: &errs})
	cmd.SetArgs([]string{file})
	if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), "is well") || !strings.Contains(errs.String(), "warning: "+file+":3:") {
		t.Errorf("%v\n%s%s", err, out.String(), errs.String())
	}
}

// images.tart: own brings an image by our own transfer, to where tart has its
// own; nothing of it stays in our store.
func TestOwnTransferIntoTartsCache(t *testing.T) {
	m := newMac(t)
	address, _ := serveRegistry(t)
	ref, err := image.Parse(address + "/mac:stable")
	if err != nil {
		t.Fatal(err)
	}
	disk, nvram := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "nvram")
	// The stand-in takes from the NVRAM what the machine is.
	if err := errors.Join(os.WriteFile(disk, make([]byte, 1<<20), 0o600), os.WriteFile(nvram, []byte(`{"digest":"sha256:any","labels":{}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	src := image.Source{Disk: disk, NVRAM: nvram, Labels: map[string]string{image.LabelOS: image.OSDarwin, image.LabelArch: runtime.GOARCH}}
	if _, err := transfer.Push(t.Context(), src, ref, transfer.Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(filepath.Join(t.TempDir(), "c.yaml"), fmt.Appendf(nil,
		"host: {name: h, home: %s}\ngithub: {url: \"http://127.0.0.1:1\"}\nimages: {tart: own}\npools: [{name: p, driver: tart, image: %q, scope: o/r}]\n", m.home, ref))
	if err != nil {
		t.Fatal(err)
	}
	w := newWiring(cfg, "abcdef", slog.New(slog.DiscardHandler))
	pools, err := w.pools(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	img, err := pools[0].Images.Image(t.Context(), ref.String(), func(image.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	m.images[image.OSDarwin] = img
	if err := m.guest(pools[0], "tasuki-x"); err != nil {
		t.Error(err)
	}
	if calls, err := tarttest.Calls(m.tartHome, "pull"); err != nil || len(calls) > 0 {
		t.Errorf("tart pulled: %v, %v", calls, err)
	}
	if left, err := w.images.store.List(); err != nil || len(left) > 0 {
		t.Errorf("our own store has %v, %v", left, err)
	}
}

// The doctor hears which pools need softnet, and which do without a filter.
func TestDoctorKnowsWhichGuestsAreApart(t *testing.T) {
	for filter, want := range map[string][2]bool{"softnet": {true, false}, "none": {false, true}} {
		cfg, err := config.Parse(filepath.Join(t.TempDir(), "c.yaml"), fmt.Appendf(nil,
			"host: {name: h, home: /h}\ngithub: {url: \"http://127.0.0.1:1\"}\npools: [{name: p, driver: tart, image: r.test/mac:1, scope: o/r, tart: {filter: %s}}]\n", filter))
		if err != nil {
			t.Fatal(err)
		}
		var h doctor.Host
		describeHost(&h, cfg)
		if got := [2]bool{h.Softnet, h.Open}; got != want {
			t.Errorf("filter %s: softnet and open are %v, want %v", filter, got, want)
		}
	}
}

// What the agent holds is not removed from tart's cache, however old its list of
// what is needed; and what is being removed is held by nobody.
func TestAnImageOfTartsThatIsHeldStays(t *testing.T) {
	images := &tartImages{holds: map[string]int{}, going: map[string]bool{}}
	release, err := images.Hold("sha256:x")
	if err != nil || images.claim("sha256:x") {
		t.Errorf("a held image may go (%v)", err)
	}
	release()
	release()
	if !images.claim("sha256:x") {
		t.Error("an image that was let go stays")
	}
	if _, err := images.Hold("sha256:x"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("an image that is being removed was held: %v", err)
	}
}
