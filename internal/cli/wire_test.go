package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/registry"
)

// serveRegistry runs a registry and returns its address and what ends it.
func serveRegistry(t *testing.T) (address string, end func()) {
	t.Helper()
	r, err := registry.New(registry.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, l) }()
	over := false
	end = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return l.Addr().String(), end
}

// push uploads a disk with this content under ref.
func push(t *testing.T, ref, content string) {
	t.Helper()
	parsed, err := image.Parse(ref)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, []byte(strings.Repeat(content, 1<<20/len(content))), 0o600); err != nil {
		t.Fatal(err)
	}
	src := image.Source{Disk: disk, Labels: map[string]string{
		image.LabelOS: image.OSLinux, image.LabelArch: runtime.GOARCH, image.LabelBoot: image.BootFirmware,
	}}
	if _, err := transfer.Push(t.Context(), src, parsed, transfer.Options{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
}

func openImages(t *testing.T, dir string) *registryImages {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &registryImages{store: s, log: slog.New(slog.DiscardHandler)}
}

func TestIncidentRegistryDownCached(t *testing.T) {
	address, end := serveRegistry(t)
	ref, dir := address+"/linux:stable", t.TempDir()
	push(t, ref, "one ")
	first, err := openImages(t, dir).Image(t.Context(), ref, func(image.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	end()

	// The agent is started anew while the registry is down.
	images := openImages(t, dir)
	again, err := images.Image(t.Context(), ref, nil)
	if err != nil || again.Digest != first.Digest {
		t.Errorf("got %q, %v; want the image that is here, %q", again.Digest, err, first.Digest)
	}
	// From then on people are told; the agent keeps the image that it has.
	if _, err := images.Image(t.Context(), ref, nil); err == nil {
		t.Error("a registry that is down is not told of")
	}
}

func TestIncidentStaleTag(t *testing.T) {
	address, _ := serveRegistry(t)
	ref := address + "/linux:stable"
	images := openImages(t, t.TempDir())
	push(t, ref, "one ")
	first, err := images.Image(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	push(t, ref, "two ")
	second, err := images.Image(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Digest == second.Digest {
		t.Error("the tag was moved and the old image came again")
	}
	if second.Disk == first.Disk {
		t.Errorf("both images have the disk %q", second.Disk)
	}
}

func fakeConfig(t *testing.T, home, pools string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	c, err := config.Parse(filepath.Join(dir, "c.yaml"), fmt.Appendf(nil,
		"host: {name: h, home: %s}\ngithub: {url: \"http://127.0.0.1:1\"}\ndefaults: {driver: fake, scope: octo/demo, image: %s}\npools: %s\n", home, dir, pools))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAReloadKeepsWhatHasNotChanged(t *testing.T) {
	home := t.TempDir()
	c := fakeConfig(t, home, "[{name: a}, {name: b, scope: octo/other}]")
	w := newWiring(c, "abcdef", slog.New(slog.DiscardHandler))
	before, err := w.pools(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	after, err := w.pools(t.Context(), fakeConfig(t, home, "[{name: a, standby: 0}, {name: c}]"))
	if err != nil {
		t.Fatal(err)
	}
	// The agent tells drivers, scopes and images by identity: a new value of an
	// old one would let it forget guests.
	if before[0].Driver != after[0].Driver || before[0].GitHub != after[1].GitHub || before[0].Images != after[0].Images {
		t.Error("a reload made new what was there")
	}
	if before[0].GitHub == before[1].GitHub {
		t.Error("two scopes share a client")
	}
}

func TestAReloadRefusesWhatNeedsARestart(t *testing.T) {
	home := t.TempDir()
	c := fakeConfig(t, home, "[{name: a}]")
	w := newWiring(c, "abcdef", slog.New(slog.DiscardHandler))
	changed := fakeConfig(t, home, "[{name: a}]")
	changed.Host.Name, changed.Host.Prefix = "other", "other"
	if err := w.unchangeable(changed); err == nil || !strings.Contains(err.Error(), "host.name, host.prefix") {
		t.Errorf("got %v", err)
	}
	changed = fakeConfig(t, home, "[{name: a}]")
	changed.Host.Slots = 7
	if err := w.unchangeable(changed); err != nil {
		t.Error(err)
	}
}

func TestTheInstallationIsMadeOnce(t *testing.T) {
	home := t.TempDir()
	first, err := installationOf(home)
	if err != nil || !installationForm.MatchString(first) {
		t.Fatalf("got %q, %v", first, err)
	}
	if again, err := installationOf(home); err != nil || again != first {
		t.Errorf("got %q, %v; want %q", again, err, first)
	}
	if err := os.WriteFile(filepath.Join(home, "installation"), []byte("../..\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := installationOf(home); err == nil {
		t.Error("a damaged installation was taken")
	}
}

// Each pool goes to GitHub with the credential of its account; scopes of one
// account share its tokens.
func TestPoolsUseTheirAccounts(t *testing.T) {
	home := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"total_count":0,"runners":[]}`)
	}))
	defer srv.Close()
	load := func(extra string) *config.Config {
		cfg, err := config.Parse(filepath.Join(home, "c.yaml"), []byte(`
host: {name: h, home: home, slots: 4}
github:
  url: "`+srv.URL+`"
  token: {file: `+write("one", "ghp_one")+`}
  accounts:
    - {name: two, token: {file: `+write("two", "ghp_two")+`}}
defaults: {driver: fake, image: ., standby: 1}
pools:
  - {name: a, scope: octo}
  - {name: b, scope: octo, github: two}
  - {name: c, scope: acme, github: two`+extra+`}
`))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	w := newWiring(load(""), "abc234", slog.New(slog.DiscardHandler))
	pools, err := w.pools(t.Context(), load(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if _, err := p.GitHub.Runners(t.Context()); err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"/api/v3/orgs/octo/actions/runners Bearer ghp_one",
		"/api/v3/orgs/octo/actions/runners Bearer ghp_two",
		"/api/v3/orgs/acme/actions/runners Bearer ghp_two",
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}

	// What has not changed is the same after a reload, and a secret that cannot
	// be read is told before anything changes.
	again, err := w.pools(t.Context(), load(", group: macs"))
	if err != nil || again[0].GitHub != pools[0].GitHub || again[2].GitHub != pools[2].GitHub || again[0].GitHub == again[1].GitHub {
		t.Errorf("after a reload: %v", err)
	}
	cfg := load("")
	if err := os.Remove(filepath.Join(home, "two")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pools(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `cannot keep pool "b": github token`) {
		t.Errorf("a secret that is gone: %v", err)
	}
}
