package fake

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// Names in a guest's folder.
const (
	rootDir     = "root"
	recordFile  = "guest.json"
	bootFile    = "boot.json"
	consoleFile = "console.log"
	halfPrefix  = ".half-"
	leakedFile  = "leaked"
)

// record says who a guest is for.
type record struct {
	Owner    vm.Owner  `json:"owner"`
	Image    string    `json:"image"`
	Created  time.Time `json:"created"`
	LoginKey string    `json:"login_key,omitempty"`
}

// boot says when a started guest has an address.
type boot struct {
	Ready time.Time `json:"ready"`
	Never bool      `json:"never,omitempty"`
}

func (d *Driver) folder(name string) string     { return filepath.Join(d.dir, name) }
func (d *Driver) half(name string) string       { return filepath.Join(d.dir, halfPrefix+name) }
func (d *Driver) root(name string) string       { return filepath.Join(d.dir, name, rootDir) }
func (d *Driver) file(name, file string) string { return filepath.Join(d.dir, name, file) }
func (d *Driver) mark(name string) string       { return Mark + "=" + d.root(name) }

// power returns the process that stands for a guest's hypervisor; false if the
// guest was not started, or was powered off.
func (d *Driver) power(name string) (id proc.ID, ok bool) {
	err := readJSON(d.root(name)+".on", &id)
	return id, err == nil
}

// look returns a guest of ours as it is now.
func (d *Driver) look(name string) (in vm.Instance, ok bool) {
	var r record
	err := readJSON(d.file(name, recordFile), &r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, dir := range []string{d.folder(name), d.half(name)} {
			if _, err := os.Lstat(dir); err == nil {
				return vm.Instance{Name: name, State: vm.Broken, Reason: "it was made or deleted by half"}, true
			}
		}
		return vm.Instance{}, false
	case err != nil:
		return vm.Instance{Name: name, State: vm.Broken, Reason: fmt.Sprintf("cannot read who it is for: %v", err)}, true
	case d.opts.Installation != "" && r.Owner.Installation != d.opts.Installation:
		return vm.Instance{}, false
	}
	in = vm.Instance{Name: name, State: vm.Stopped, Owner: r.Owner, Created: r.Created, Image: r.Image}
	power, on := d.power(name)
	switch {
	case on && power.Alive():
		in.State = vm.Running
	case on:
		in.Reason = "its process is gone; last on its console: " + d.lastWords(name)
	}
	if _, err := os.Lstat(d.file(name, consoleFile)); err == nil {
		in.Console = d.file(name, consoleFile)
	}
	return in, true
}

// lastWords returns the last line of a guest's console.
func (d *Driver) lastWords(name string) string {
	text, _ := os.ReadFile(d.file(name, consoleFile))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf("%q", lines[len(lines)-1])
}

// list returns every guest of ours by name. What this process is just making
// or deleting is not there yet, or no more.
func (d *Driver) list() ([]vm.Instance, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var all []vm.Instance
	for _, e := range entries {
		name, half := strings.CutPrefix(e.Name(), halfPrefix)
		if !e.IsDir() || vm.CheckName(name) != nil || !strings.HasPrefix(name, d.opts.Prefix) {
			continue
		}
		if half && d.names.Busy(name) {
			continue
		}
		if in, ok := d.look(name); ok {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b vm.Instance) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b vm.Instance) bool { return a.Name == b.Name }), nil
}

// running counts the guests that run, those of other installations too.
func (d *Driver) running() int {
	entries, _ := os.ReadDir(d.dir)
	n := 0
	for _, e := range entries {
		if power, ok := d.power(e.Name()); ok && power.Alive() {
			n++
		}
	}
	return n
}

// check returns an ErrSpec for a guest that this driver cannot make.
func (d *Driver) check(spec vm.Spec) error {
	switch {
	case !strings.HasPrefix(spec.Name, d.opts.Prefix):
		return fmt.Errorf("its name must begin with %q: %w", d.opts.Prefix, vm.ErrSpec)
	case d.opts.Installation != "" && spec.Owner.Installation != d.opts.Installation:
		return fmt.Errorf("it is for the installation %q, this is %q: %w", spec.Owner.Installation, d.opts.Installation, vm.ErrSpec)
	}
	return vm.CheckSpec(spec, d.Capabilities())
}
