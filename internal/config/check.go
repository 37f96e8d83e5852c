package config

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/image"
)

// The name of a runner, and of its guest, is
// PREFIX-HOST-INSTALLATION-POOL-RANDOM and must be a host name of at most 63
// letters (GitHub allows 64): installation and random have 6 each.
const (
	MaxPrefix = 12
	MaxHost   = 16
	MaxPool   = 63 - MaxPrefix - MaxHost - 6 - 6 - len("----")
)

// What a value must look like.
var (
	wordForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	envForm   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	ownerForm = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98}[A-Za-z0-9])?$`)
	repoForm  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
)

// RebootLeaked is the value of host.reboot that lets the agent reboot its host.
const RebootLeaked = "leaked"

// checker looks for values that cannot work, and reads the files that the
// configuration names.
type checker struct {
	d   *decoder
	c   *Config
	dir string
	// unread is how many problems there were before the checks began: values
	// that could not be read.
	unread int
}

// bad reports a value at the first of the paths that the file has, unless it
// could not be read at all and was reported for that.
func (k *checker) bad(paths []string, what, mend string) {
	where := k.c.at.place(true, paths...)
	for _, p := range k.d.problems[:k.unread] {
		if p.Line == where.Line && p.Column == where.Column {
			return
		}
	}
	k.d.fail(where, what, mend)
}

// warn notes a value that works and may hurt, at the first of the paths that the
// file has.
func (k *checker) warn(paths []string, what, mend string) {
	p := k.c.at.place(true, paths...)
	k.c.warnings = append(k.c.warnings, Problem{File: k.d.file, Line: max(p.Line, 1), Column: max(p.Column, 1), What: what, Mend: mend})
}

// at is a single path, for bad.
func at(path string) []string { return []string{path} }

func (k *checker) all() {
	k.host()
	k.github()
	k.registries()
	k.images()
	k.monitoring()
	k.console()
	k.registryServer()
	for i := range k.c.Pools {
		p := &poolChecker{checker: k, p: &k.c.Pools[i], path: fmt.Sprintf("pools[%d]", i)}
		p.all()
	}
	k.pools()
}

func (k *checker) host() {
	h := &k.c.Host
	k.word(at("host.name"), "host name", h.Name, MaxHost)
	k.word(at("host.prefix"), "prefix", h.Prefix, MaxPrefix)
	if h.Slots < 1 {
		k.bad(at("host.slots"), fmt.Sprintf("slots: %d guests at once is none", h.Slots), "give the host at least 1")
	}
	if h.Tick < Duration(100*time.Millisecond) || h.Tick > Duration(10*time.Minute) {
		k.bad(at("host.tick"), fmt.Sprintf("tick of %s", h.Tick), "choose one between 100ms and 10m")
	}
	k.oneOf(at("host.accel"), "accel", h.Accel, "auto", "kvm", "hvf", "tcg")
	k.oneOf(at("host.reboot"), "reboot", h.Reboot, "never", RebootLeaked)
	if len(h.RebootCommand) > 0 && h.RebootCommand[0] == "" {
		k.bad(at("host.reboot_command"), "the command has no program", "write [PROGRAM, ARGUMENT], or remove it for sudo -n /sbin/shutdown -r now")
	}
	h.Home = k.path(h.Home)
	if len(h.Home) == 0 || !filepath.IsAbs(h.Home) {
		k.bad(at("host.home"), fmt.Sprintf("home %q is not a folder's path", h.Home), "write an absolute path, or one that begins with ~/")
	}
}

// word checks a part of the names of runners.
func (k *checker) word(where []string, what, word string, most int) {
	if !wordForm.MatchString(word) {
		k.bad(where, fmt.Sprintf("%s %q cannot be part of a runner's name", what, clip(word)), "use lower-case letters, digits and hyphens")
	} else if len(word) > most {
		k.bad(where, fmt.Sprintf("%s %q is too long for the names of runners: it has %d letters", what, clip(word), len(word)), fmt.Sprintf("%d are allowed", most))
	}
}

func (k *checker) registries() {
	var seen []string
	for i := range k.c.Registries {
		r, path := &k.c.Registries[i], fmt.Sprintf("registries[%d]", i)
		where := []string{path + ".host", path}
		if _, err := image.Parse(r.Host + "/x"); err != nil {
			k.bad(where, fmt.Sprintf("registry %q is not a host or host:port", clip(r.Host)), "write it as image references do, such as registry.example.com:5000")
		}
		if slices.Contains(seen, r.Host) {
			k.bad(where, fmt.Sprintf("registry %q stands here a second time", r.Host), "keep one entry")
		}
		seen = append(seen, r.Host)
		k.source(path+".password", &r.Password)
		k.authorities(path+".ca", &r.CA)
		if (r.Username == "") != r.Password.IsZero() {
			k.bad(at(path), fmt.Sprintf("registry %q has only one of username and password", clip(r.Host)), "give both or neither")
		}
	}
}

// source checks where a secret is, without reading it.
func (k *checker) source(path string, s *Source) {
	n := 0
	for _, given := range []bool{s.Env != "", s.File != "", len(s.Command) > 0} {
		if given {
			n++
		}
	}
	if _, written := k.c.at[path]; written && n == 0 && !k.hasProblemAt(path) {
		k.bad(at(path), "it does not say where the secret is", "write {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}")
	}
	if n > 1 {
		k.bad(at(path), "it names more than one place for the secret", "keep one of env, file and command")
	}
	if s.Env != "" && !envForm.MatchString(s.Env) {
		k.bad(at(path+".env"), fmt.Sprintf("%q is not the name of an environment variable", clip(s.Env)), "write the name, not the secret itself")
	}
	if s.File != "" {
		s.File = k.path(s.File)
		if err := checkPrivate(s.File); err != nil {
			what, mend, _ := strings.Cut(err.Error(), "; ")
			k.bad(at(path+".file"), fmt.Sprintf("cannot use the secret in %q: %s", s.File, what), mend)
		}
	}
	if len(s.Command) > 0 && s.Command[0] == "" {
		k.bad(at(path+".command"), "the command has no program", "write [PROGRAM, ARGUMENT]")
	}
}

// hasProblemAt says whether the value at path was refused already.
func (k *checker) hasProblemAt(path string) bool {
	p := k.c.at.place(true, path)
	return slices.ContainsFunc(k.d.problems, func(q Problem) bool { return q.Line == p.Line && q.Column == p.Column })
}

// pools checks what pools are together.
func (k *checker) pools() {
	if len(k.c.Pools) == 0 && !k.hasProblemAt("pools") {
		k.bad(at("pools"), "no pool is configured", "add one under pools: with a name, an image and a scope")
	}
	slots, sum := k.c.Host.Slots, 0
	macs, names := 0, map[string]int{}
	if _, written := k.c.at["defaults.tart"]; written && !slices.ContainsFunc(k.c.Pools, func(p Pool) bool { return p.Driver == "tart" }) {
		k.bad(at("defaults.tart"), "no pool has driver tart, and no other driver knows these settings", "remove them, or write driver: tart")
	}
	k.sharedSets()
	for i := range k.c.Pools {
		p, path := &k.c.Pools[i], fmt.Sprintf("pools[%d]", i)
		if line, twice := names[p.Name]; twice && p.Name != "" {
			k.bad([]string{path + ".name", path}, fmt.Sprintf("pool %q stands here a second time", clip(p.Name)), fmt.Sprintf("the first is in line %d; give each a name of its own", line))
		}
		names[p.Name] = k.c.at.place(true, path+".name", path).Line
		where := []string{path + ".standby", path + ".scaleset.warm", "defaults.standby", "defaults.scaleset.warm", path}
		waiting := p.Standby + p.warm()
		if before := sum; waiting > 0 {
			sum += waiting
			if sum > slots && before <= slots && slots > 0 {
				k.bad(where, fmt.Sprintf("the pools want %d runners waiting up to here and the host has %d slots", sum, slots), "lower a standby or raise host.slots")
			}
		}
		if p.Driver == "tart" && p.Tart.WithDefaults().OS == image.OSDarwin && waiting > 0 {
			macs += waiting
			if macs > maxMacGuests && macs-waiting <= maxMacGuests {
				k.bad(where, fmt.Sprintf("the pools want %d macOS guests up to here and a Mac may run %d", macs, maxMacGuests), "lower a standby; Apple's licence and the hypervisor allow no more")
			}
		}
	}
}

// maxMacGuests is how many macOS guests one Mac may run, over all pools.
// Source: the macOS software licence agreement, section 2.B.(iii); the
// Virtualization framework enforces it.
const maxMacGuests = 2

func (k *checker) oneOf(paths []string, what, value string, known ...string) {
	if slices.Contains(known, value) {
		return
	}
	mend := "choose one of " + strings.Join(known, ", ")
	if near := problem.Nearest(value, known); near != "" {
		mend = fmt.Sprintf("did you mean %q?", near)
	}
	k.bad(paths, fmt.Sprintf("unknown %s %q", what, clip(value)), mend)
}

// path makes a path of the file absolute.
func (k *checker) path(p string) string {
	if p == "" {
		return ""
	}
	p = expandHome(p)
	if !filepath.IsAbs(p) {
		p = filepath.Join(k.dir, p)
	}
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkHostPort returns why s is not "address:port".
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not ADDRESS:PORT", clip(s))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q has no port between 1 and 65535", clip(s))
	}
	if host == "" || strings.ContainsAny(host, " /,'\"") {
		return fmt.Errorf("%q names no host", clip(s))
	}
	return nil
}
