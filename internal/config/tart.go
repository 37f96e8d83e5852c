package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Tart is what only guests under tart have.
type Tart struct {
	OS        string  `yaml:"os,omitempty" doc:"The system of the guests." enum:"darwin,linux"`
	Channel   string  `yaml:"channel,omitempty" doc:"How the agent gets into a guest. exec: by tart's guest agent, which needs no address of the guest and no permission for the local network. ssh: over SSH. auto: exec, and ssh where no guest agent answers." enum:"auto,exec,ssh"`
	GUI       string  `yaml:"gui,omitempty" doc:"Whether jobs must run inside the GUI session of a macOS guest, with its login keychain and simulators. required refuses guests where that cannot be." enum:"preferred,required"`
	Display   string  `yaml:"display,omitempty" doc:"Size of the guest's screen. Empty: the image's." example:"1920x1080"`
	Nested    bool    `yaml:"nested,omitempty" doc:"Virtual machines inside Linux guests, on an M3 or newer."`
	Filter    string  `yaml:"filter,omitempty" doc:"What keeps guests apart. softnet: out to the internet, and to nothing private: neither this host, nor its network, nor the other guest. none: no filter; then a guest of a stock image, whose password everybody knows, can be entered from the other guest and from this host's network." enum:"softnet,none"`
	DiskSync  string  `yaml:"disk_sync,omitempty" doc:"How the guest's disk is written to this host's. The disk is thrown away, so none loses nothing." enum:"none,fsync,full"`
	DiskCache string  `yaml:"disk_cache,omitempty" doc:"How this host caches the guest's disk." enum:"automatic,cached,uncached"`
	User      string  `yaml:"user,omitempty" doc:"Who logs in over SSH where the image names nobody. Empty: admin, as the public images have it."`
	Password  Source  `yaml:"password,omitempty" doc:"Password of that user. Empty: admin, which everybody knows. It never stands in this file."`
	Shares    []Share `yaml:"shares,omitempty" doc:"Folders of this host that guests see, macOS ones below /Volumes/My Shared Files. Each job can read all of it, and a job of anybody's who may open a pull request, perhaps."`
}

// Share is a folder of the host's that guests see.
type Share struct {
	Name     string `yaml:"name" doc:"The folder's name in the guest." example:"cache"`
	Path     string `yaml:"path" doc:"The folder on this host. Relative: to the configuration's folder." example:"/srv/tasuki/cache"`
	Writable bool   `yaml:"writable,omitempty" doc:"Guests may write. What one job writes the next ones read: a job can poison all that follow."`
}

// The user and the password of the public images for tart.
const (
	stockUser     = "admin"
	StockPassword = "admin"
)

// WithDefaults returns the settings with what is empty filled in.
func (t Tart) WithDefaults() Tart {
	for _, f := range []struct {
		to    *string
		value string
	}{{&t.OS, image.OSDarwin}, {&t.Channel, "auto"}, {&t.GUI, "preferred"}, {&t.Filter, "softnet"}, {&t.DiskSync, "none"}, {&t.DiskCache, "automatic"}, {&t.User, stockUser}} {
		if *f.to == "" {
			*f.to = f.value
		}
	}
	return t
}

// machine is what of the settings a guest is made from.
func (t Tart) machine() vm.Machine {
	t = t.WithDefaults()
	m := vm.Machine{Display: t.Display, Nested: t.Nested, DiskSync: t.DiskSync, DiskCache: t.DiskCache, OpenNetwork: t.Filter == "none"}
	for _, s := range t.Shares {
		m.Shares = append(m.Shares, vm.Share{Name: s.Name, Path: s.Path, Writable: s.Writable})
	}
	return m
}

var (
	displayForm = regexp.MustCompile(`^[1-9][0-9]{2,4}x[1-9][0-9]{2,4}(pt|px)?$`)
	shareForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// macCPUs is what a macOS guest gets where nothing is written: tart itself gives
// no fewer, since such guests freeze.
const macCPUs = 4

// onMac says whether the pool's guests run macOS.
func (k *poolChecker) onMac() bool {
	return k.p.Driver == "tart" && k.p.Tart.WithDefaults().OS == image.OSDarwin
}

// fill gives macOS guests the processors that they need, unless the file says how
// many.
func (k *poolChecker) fill() {
	_, own := k.c.at[k.path+".cpus"]
	_, everybodys := k.c.at["defaults.cpus"]
	if k.onMac() && !own && !everybodys {
		k.p.CPUs = macCPUs
	}
}

// tart checks what only guests under tart have.
func (k *poolChecker) tart() {
	k.networks()
	t := &k.p.Tart
	_, written := k.c.at[k.path+".tart"]
	if k.p.Driver != "tart" {
		if written {
			k.bad(at(k.path+".tart"), fmt.Sprintf("driver %s does not know these settings", k.p.Driver), "remove them, or write driver: tart")
		}
		return
	}
	d := t.WithDefaults()
	k.oneOf(k.key("tart.os"), "os", d.OS, image.OSDarwin, image.OSLinux)
	k.oneOf(k.key("tart.channel"), "channel", d.Channel, "auto", "exec", "ssh")
	k.oneOf(k.key("tart.gui"), "gui", d.GUI, "preferred", "required")
	k.oneOf(k.key("tart.filter"), "filter", d.Filter, "softnet", "none")
	k.oneOf(k.key("tart.disk_sync"), "disk_sync", d.DiskSync, "none", "fsync", "full")
	k.oneOf(k.key("tart.disk_cache"), "disk_cache", d.DiskCache, "automatic", "cached", "uncached")
	if t.Display != "" && !displayForm.MatchString(t.Display) {
		k.bad(k.key("tart.display"), fmt.Sprintf("%q is not the size of a screen", clip(t.Display)), "write WIDTHxHEIGHT, such as 1920x1080")
	}
	if t.Nested && d.OS == image.OSDarwin {
		k.bad(k.key("tart.nested"), "a macOS guest cannot hold virtual machines", "remove nested, or write os: linux")
	}
	if d.GUI == "required" && d.OS != image.OSDarwin {
		k.bad(k.key("tart.gui"), "a Linux guest has no GUI session of macOS", "remove gui, or write os: darwin")
	}
	if d.Filter == "none" && k.p.Network.Mode == vm.Isolated {
		k.bad(k.key("tart.filter"), "an isolated network needs the filter", "write filter: softnet, or mode: internet")
	}
	k.source(k.path+".tart.password", &t.Password)
	k.shares()
	if k.onMac() && k.p.CPUs > 0 && k.p.CPUs < macCPUs {
		k.warn(k.key("cpus"), fmt.Sprintf("macOS guests with %d processors freeze often", k.p.CPUs), fmt.Sprintf("give them %d", macCPUs))
	}
	if d.Filter == "none" {
		k.warn(k.key("tart.filter"), "nothing keeps guests from each other and from this host's network: one of a stock image, whose password everybody knows, can be entered from there",
			"write filter: softnet, or use an image with a login of its own")
	}
}

func (k *poolChecker) shares() {
	var seen []string
	shares := slices.Clone(k.p.Tart.Shares) // those of the defaults are everybody's
	k.p.Tart.Shares = shares
	for i := range shares {
		s, where := &shares[i], k.key(fmt.Sprintf("tart.shares[%d]", i))
		if !shareForm.MatchString(s.Name) {
			k.bad(where, fmt.Sprintf("%q is not a name for a share", clip(s.Name)), "use letters, digits, dots, hyphens and underscores")
		}
		if slices.Contains(seen, s.Name) {
			k.bad(where, fmt.Sprintf("share %q stands here a second time", clip(s.Name)), "give each a name of its own")
		}
		seen = append(seen, s.Name)
		s.Path = k.checker.path(s.Path)
		k.sharedFolder(where, s.Path)
		if s.Writable {
			k.warn(where, fmt.Sprintf("share %q is writable: what one job writes there, all that follow read", clip(s.Name)), "leave writable out, unless all who can start a job are trusted")
		}
	}
}

func (k *poolChecker) sharedFolder(where []string, path string) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		k.bad(where, fmt.Sprintf("%q is not a folder of this host", path), "make it, or remove the share")
		return
	}
	switch {
	case strings.ContainsAny(path, ":,"):
		k.bad(where, fmt.Sprintf("tart cannot share %q: its path has a colon or a comma", path), "share a folder with another name")
	case overlap(path, k.c.Host.Home):
		k.bad(where, fmt.Sprintf("%q is in, or holds, the agent's home: login keys of guests, and the images that all are made of", path), "share a folder of its own")
	case overlap(path, tartHome()):
		k.bad(where, fmt.Sprintf("%q is in, or holds, tart's folder: the images that all guests are made of", path), "share a folder of its own")
	}
}

// tartHome is where tart keeps images and machines; "" if that cannot be said.
func tartHome() string {
	if home := os.Getenv("TART_HOME"); home != "" {
		return home
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".tart")
	}
	return ""
}

// overlap says whether one of two folders is the other, or lies in it.
func overlap(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	in := func(inner, outer string) bool {
		rest, err := filepath.Rel(outer, inner)
		return err == nil && rest != ".." && !strings.HasPrefix(rest, "../")
	}
	a, b = followed(a), followed(b)
	return in(a, b) || in(b, a)
}

// followed is a path without symbolic links, as far as it is there.
func followed(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(followed(parent), filepath.Base(path))
	}
	return path
}

// networks checks what the filter lets through.
func (k *poolChecker) networks() {
	n := k.p.Network
	for _, list := range []struct {
		name string
		all  []string
	}{{"allow", n.Allow}, {"block", n.Block}} {
		for i, text := range list.all {
			where := k.key(fmt.Sprintf("network.%s[%d]", list.name, i))
			if k.p.Driver != "tart" {
				k.bad(where, fmt.Sprintf("driver %s has no filter for single networks", k.p.Driver), "remove "+list.name)
				break
			}
			if p, err := netip.ParsePrefix(text); err != nil || !p.Addr().Is4() || p.Masked() != p {
				k.bad(where, fmt.Sprintf("%q is not an IPv4 network", clip(text)), "write one such as 10.1.0.0/16 or 192.0.2.7/32")
			}
		}
	}
}
