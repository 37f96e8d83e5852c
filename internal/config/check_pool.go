package config

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

const (
	minMemory = 256 << 20
	maxCPUs   = 256
	// maxLabel is GitHub's bound on the length of a label.
	maxLabel = 256
)

// guestNet is the network that QEMU shows to a guest; its first addresses are
// those of the gateway, the name server and the guest itself.
var (
	guestNet      = netip.MustParsePrefix("10.0.2.0/24")
	guestNetTaken = []string{"10.0.2.0", "10.0.2.2", "10.0.2.3", "10.0.2.4", "10.0.2.15", "10.0.2.255"}
)

// poolChecker checks one pool by itself.
type poolChecker struct {
	*checker
	p    *Pool
	path string // "pools[1]"
}

// key is where a setting of the pool may stand: in the pool, in the defaults,
// or nowhere, which is shown at the pool.
func (k *poolChecker) key(name string) []string {
	return []string{k.path + "." + name, "defaults." + name, k.path}
}

func (k *poolChecker) all() {
	k.name()
	k.fill()
	k.oneOf(k.key("driver"), "driver", k.p.Driver, "qemu", "tart", "fake")
	k.oneOf(k.key("registration"), "registration", string(k.p.Registration), string(runner.ByEither), string(runner.ByJIT), string(runner.ByToken))
	k.oneOf(k.key("runner"), "runner", string(k.p.Runner), string(runner.FromHost), string(runner.FromImage), string(runner.FromOff))
	k.image()
	k.scope()
	k.labels()
	k.scaleSet()
	k.sizes()
	k.network()
	k.deadlines()
	k.env()
	k.tart()
	k.texts()
}

func (k *poolChecker) name() {
	where := []string{k.path + ".name", k.path}
	if k.p.Name == "" {
		k.bad(where, "a pool has no name", "add name: WORD")
		return
	}
	k.word(where, "pool name", k.p.Name, MaxPool)
}

func (k *poolChecker) image() {
	where := k.key("image")
	switch {
	case k.p.Image == "":
		k.bad(where, "a pool has no image", "add image: HOST/NAME:TAG")
	case k.p.Driver == "fake":
		k.p.Image = k.checker.path(k.p.Image)
		if info, err := os.Stat(k.p.Image); err != nil || !info.IsDir() {
			k.bad(where, fmt.Sprintf("%q is not a folder", k.p.Image), "with driver fake, image is the folder of a runner program")
		}
	default:
		if _, err := image.Parse(k.p.Image); err != nil {
			_, why, _ := strings.Cut(err.Error(), ": ")
			what, mend, _ := strings.Cut(why, "; ")
			k.bad(where, fmt.Sprintf("bad image reference %q: %s", clip(k.p.Image), what), mend)
		}
	}
}

func (k *poolChecker) scope() {
	where, s := k.key("scope"), k.p.Scope
	mend := "write owner/repository, organisation or enterprises/name"
	if s == "" {
		k.bad(where, "a pool has no scope", mend)
		return
	}
	owner, rest, two := strings.Cut(s, "/")
	if owner == "enterprises" && two {
		owner, two = rest, false
	}
	if !ownerForm.MatchString(owner) || two && !repoForm.MatchString(rest) {
		if strings.Contains(s, "://") {
			mend += ", without the address"
		}
		k.bad(where, fmt.Sprintf("%q is not a scope", clip(s)), mend)
	}
	if k.p.GitHub != "" && k.c.Account(k.p.GitHub) == nil {
		k.bad(k.key("github"), fmt.Sprintf("there is no account %q", clip(k.p.GitHub)), "write it under github.accounts, or name one of those")
	}
	if k.p.Group != "" && two {
		k.bad(k.key("group"), "a repository has no runner groups", "remove group, or register in the organisation")
	}
}

func (k *poolChecker) labels() {
	for i, l := range k.p.Labels {
		where := []string{fmt.Sprintf("%s.labels[%d]", k.path, i), fmt.Sprintf("defaults.labels[%d]", i), k.path}
		switch {
		case strings.TrimSpace(l) == "":
			k.bad(where, "a label is empty", "remove it")
		case strings.Contains(l, ","):
			k.bad(where, fmt.Sprintf("label %q has a comma, which separates labels at GitHub", clip(l)), "write two labels")
		case strings.TrimSpace(l) != l || strings.ContainsAny(l, "\n\r\t"):
			k.bad(where, fmt.Sprintf("label %q begins, ends or is broken with white space", clip(l)), "remove it")
		case len(l) > maxLabel:
			k.bad(where, fmt.Sprintf("label %q has %d letters", clip(l), len(l)), fmt.Sprintf("GitHub allows %d", maxLabel))
		case slices.ContainsFunc(k.p.Labels[:i], func(o string) bool { return strings.EqualFold(o, l) }):
			k.bad(where, fmt.Sprintf("label %q stands here a second time", clip(l)), "keep one; GitHub does not tell upper from lower case")
		}
	}
}

func (k *poolChecker) sizes() {
	p := k.p
	if p.CPUs < 1 || p.CPUs > maxCPUs {
		k.bad(k.key("cpus"), fmt.Sprintf("a guest cannot have %d processors", p.CPUs), fmt.Sprintf("choose 1 to %d", maxCPUs))
	}
	if p.Memory < minMemory {
		k.bad(k.key("memory"), fmt.Sprintf("%s of memory is too little for a guest", p.Memory), "give at least 256MiB")
	}
	if p.Standby < 0 {
		k.bad(k.key("standby"), fmt.Sprintf("standby is %d", p.Standby), "write 0 or more")
	}
	switch {
	case p.Max < 0:
		k.bad(k.key("max"), fmt.Sprintf("max is %d", p.Max), "write 0 (no bound) or more")
	case p.Max > 0 && p.Max < p.Standby:
		k.bad(k.key("max"), fmt.Sprintf("max %d is less than standby %d", p.Max, p.Standby), "raise max or lower standby")
	}
	if p.MaxJobTime <= 0 {
		k.bad(k.key("max_job_time"), "a job may take no time at all", "write a duration such as 6h")
	}
}

func (k *poolChecker) network() {
	n := k.p.Network
	k.oneOf(k.key("network.mode"), "network mode", string(n.Mode), string(vm.Internet), string(vm.Isolated))
	var seen []string
	for i, f := range n.Forwards {
		sub := fmt.Sprintf("network.forwards[%d]", i)
		where := []string{k.path + "." + sub, "defaults." + sub, k.path}
		if n.Mode == vm.Internet && i == 0 {
			k.bad(where, "forwards are for isolated guests, and this pool's network is internet", "write mode: isolated or remove them")
		}
		guest := []string{k.path + "." + sub + ".guest", "defaults." + sub + ".guest", where[0]}
		if err := checkHostPort(f.Guest); err != nil {
			k.bad(guest, err.Error(), "write an address in 10.0.2.0/24, such as 10.0.2.100:80")
		} else if ap, err := netip.ParseAddrPort(f.Guest); err != nil || !guestNet.Contains(ap.Addr()) || slices.Contains(guestNetTaken, ap.Addr().String()) {
			k.bad(guest, fmt.Sprintf("a guest cannot be offered %q", f.Guest), "write a free address in 10.0.2.0/24, such as 10.0.2.100:80")
		}
		if slices.Contains(seen, f.Guest) {
			k.bad(guest, fmt.Sprintf("%q is forwarded twice", f.Guest), "keep one")
		}
		seen = append(seen, f.Guest)
		if err := checkHostPort(f.Host); err != nil {
			k.bad([]string{k.path + "." + sub + ".host", "defaults." + sub + ".host", where[0]}, err.Error(), "write an address of this host, such as 127.0.0.1:8080")
		}
	}
}

func (k *poolChecker) deadlines() {
	var states []string
	for _, row := range runner.Table() {
		if row.Deadline > 0 && row.State != runner.Busy {
			states = append(states, string(row.State))
		}
	}
	for _, s := range slices.Sorted(maps.Keys(k.p.Deadlines)) {
		sub := "deadlines." + string(s)
		where := k.c.at.place(false, k.path+"."+sub, "defaults."+sub, k.path)
		switch {
		case s == runner.Busy:
			k.d.fail(where, `"busy" has no deadline of its own`, "write max_job_time")
		case s == runner.Held:
			k.d.fail(where, `"held" has no deadline of its own`, "write hold_after_failure")
		case !slices.Contains(states, string(s)):
			mend := "states with a deadline: " + strings.Join(states, ", ")
			if near := problem.Nearest(string(s), states); near != "" {
				mend = fmt.Sprintf("did you mean %q?", near)
			}
			k.d.fail(where, fmt.Sprintf("no runner is ever in state %q with a deadline", clip(string(s))), mend)
		case k.p.Deadlines[s] <= 0:
			k.bad(k.key(sub), fmt.Sprintf("%s may take no time at all", s), "write a duration such as 5m")
		}
	}
}

func (k *poolChecker) env() {
	for _, name := range slices.Sorted(maps.Keys(k.p.Env)) {
		where := k.c.at.place(false, k.path+".env."+name, "defaults.env."+name, k.path)
		switch {
		case !envForm.MatchString(name):
			k.d.fail(where, fmt.Sprintf("%q is not the name of an environment variable", clip(name)), "use letters, digits and underscores")
		case strings.HasPrefix(name, "ACTIONS_RUNNER_INPUT_"):
			k.d.fail(where, fmt.Sprintf("%q carries the runner's credential and is not yours to set", name), "remove it")
		case strings.ContainsRune(k.p.Env[name], 0):
			k.d.fail(where, fmt.Sprintf("the value of %q has a NUL byte", name), "remove it")
		}
	}
}

// texts reads the files and hooks of the pool.
func (k *poolChecker) texts() {
	var seen []string
	for i := range k.p.Files {
		f, sub := &k.p.Files[i], fmt.Sprintf("files[%d]", i)
		where := []string{k.path + "." + sub, "defaults." + sub, k.path}
		pathAt := append([]string{where[0] + ".path", where[1] + ".path"}, where...)
		if rest, ok := strings.CutPrefix(f.Path, "~/"); !path.IsAbs(f.Path) && (!ok || rest == "") || strings.HasSuffix(f.Path, "/") {
			k.bad(pathAt, fmt.Sprintf("%q is not a file's path in the guest", clip(f.Path)), "write an absolute path, or one that begins with ~/")
		}
		if slices.Contains(seen, f.Path) {
			k.bad(pathAt, fmt.Sprintf("%q is put into the guest twice", clip(f.Path)), "keep one")
		}
		seen = append(seen, f.Path)
		if f.Mode == 0 {
			f.Mode = fileMode
		}
		k.text(where, &f.Text)
	}
	// The hooks of the defaults are shared: what is read must be the pool's own.
	for name, hook := range map[string]**Text{"before_job": &k.p.Hooks.BeforeJob, "after_job": &k.p.Hooks.AfterJob} {
		if *hook != nil {
			own := **hook
			*hook = &own
			k.text(k.key("hooks."+name), &own)
		}
	}
}

func (k *poolChecker) text(where []string, t *Text) {
	switch {
	case t.Source != "" && t.Content != nil:
		k.bad(where, "it has both source and content", "keep one")
	case t.Source != "":
		t.Source = k.checker.path(t.Source)
		data, err := readSmall(t.Source)
		if err != nil {
			k.bad([]string{where[0] + ".source", where[1] + ".source", where[0]}, fmt.Sprintf("cannot read %q: %v", t.Source, err), "")
		}
		t.data = data
	case t.Content != nil:
		t.data = []byte(*t.Content)
	case !k.hasProblemAt(where[0]):
		k.bad(where, "it has no content", "write source: FILE or content: TEXT")
	}
}
