package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/vm"
)

// demoHost is what a demo's agent works on.
type demoHost struct {
	driver  vm.Driver
	dialer  guest.Dialer
	images  *registryImages
	tart    *tartImages // instead, with driver tart
	journal *journal.Journal
	newKey  func() (secret.String, string, error)
}

// demoMarker is the file that makes a folder a demo's.
const demoMarker = "this-is-a-demo"

// claimHome makes the folder a demo's, or refuses one that holds anything else:
// a demo removes guests and images from its folder without asking.
func claimHome(home string) error {
	entries, err := os.ReadDir(home)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot use the demo's folder: %w", err)
	}
	marker := filepath.Join(home, demoMarker)
	if _, err := os.Lstat(marker); err == nil {
		return nil
	}
	if len(entries) > 0 {
		return withHint(fmt.Errorf("cannot use %q for the demo: it is not empty, and a demo removes what it finds", home), "tasuki demo --home NEW-FOLDER")
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("cannot make the demo's folder: %w", err)
	}
	return os.WriteFile(marker, []byte("Everything here belongs to tasuki demo and may be deleted between demos.\n"), 0o600)
}

// openHost wires the hypervisor and the stores as a configured host has them.
func (d *demo) openHost() (_ *demoHost, err error) {
	task := d.view.Task("host", "finds out how guests can run here")
	defer func() {
		if err != nil {
			task.Fail()
		}
	}()
	h := &demoHost{newKey: ssh.NewKey}
	w := newWiring(&config.Config{Host: config.Host{Home: d.home, Prefix: "tasuki"}}, d.installation, d.log)
	if d.onTart() {
		err = d.openTart(w, h)
	} else {
		h.driver, h.dialer, err = w.driver("qemu")
	}
	if err != nil {
		return nil, err
	}
	if _, err = w.imagesFor("qemu"); err != nil {
		return nil, err
	}
	h.images = w.images
	if h.journal, err = journal.Open(d.path("journal")); err != nil {
		return nil, err
	}
	h.journal.Log = d.log
	caps := h.driver.Capabilities()
	how := "QEMU with " + strings.ToUpper(caps.Accel)
	switch {
	case d.onTart():
		how = caps.AccelReason + ", with QEMU behind it"
	case caps.Accel == "tcg":
		how = "QEMU, emulating: " + caps.AccelReason
	}
	task.Done("%s", how)
	return h, nil
}

// removeLeftovers takes away what a killed demo left. Its GitHub is gone with
// it, so only guests and their records can be there.
func (d *demo) removeLeftovers(ctx context.Context) error {
	guests, err := d.host.driver.List(ctx)
	if err != nil {
		return fmt.Errorf("cannot look for guests of an earlier demo: %w", err)
	}
	for _, g := range guests {
		if err := d.host.driver.Destroy(ctx, g.Name); err != nil {
			return fmt.Errorf("cannot remove a guest of an earlier demo: %w", err)
		}
	}
	records, err := d.host.journal.All()
	if err != nil {
		return err
	}
	for _, rec := range records {
		if err := d.host.journal.Delete(rec.Name); err != nil {
			return err
		}
	}
	if n := max(len(guests), len(records)); n > 0 {
		d.view.Say("  An earlier demo was cut off: %d of its guests removed.", n)
	}
	return nil
}

// left looks for what the demo left: at the hypervisor, in the process list, on
// the disk, at GitHub and in the journal.
func (d *demo) left(ctx context.Context) []demoview.Left {
	guests := demoview.Left{What: "virtual machine"}
	list, err := d.host.driver.List(ctx)
	guests.Err = err
	for _, g := range list {
		guests.Found = append(guests.Found, g.Name)
	}
	processes := demoview.Left{What: "process"}
	processes.Found, processes.Err = d.processes(ctx)
	disks := demoview.Left{What: "disk"}
	disks.Found, disks.Err = d.disks()
	registrations := demoview.Left{What: "registration at GitHub"}
	for _, r := range d.github.State().Runners {
		registrations.Found = append(registrations.Found, r.Name)
	}
	journal := demoview.Left{What: "record in the journal"}
	records, err := d.host.journal.All()
	journal.Err = err
	for _, rec := range records {
		journal.Found = append(journal.Found, rec.Name)
	}
	keys := demoview.Left{What: "login key"}
	keys.Found, keys.Err = filesBelow(d.path("keys"), "*")
	return []demoview.Left{guests, processes, disks, registrations, journal, keys}
}

// disks returns those of guests that are there.
func (d *demo) disks() (found []string, err error) {
	for _, place := range [][2]string{{d.path("guests"), "disk.qcow2"}, {filepath.Join(buildDir(d.home), "guests"), "disk.qcow2"}, {filepath.Join(d.tartHome(), "vms"), "disk.img"}, {filepath.Join(d.tartHome(), "stand-in", "qemu"), "disk.qcow2"}} {
		more, err := filesBelow(place[0], place[1])
		if err != nil {
			return found, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// filesBelow returns the files of such a name in dir and its folders.
func filesBelow(dir, pattern string) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if ok, _ := filepath.Match(pattern, filepath.Base(path)); ok && err == nil && !e.IsDir() {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

// names begins the name of every guest and runner of this demo's folder.
func (d *demo) names() string { return "tasuki-demo-" + d.installation + "-" }

// processes returns those that work for this demo: all whose command line
// names one of its guests, their folder or that of its builds, or its emulator.
func (d *demo) processes(ctx context.Context) ([]string, error) {
	lines, err := commandLines(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, pid := range slices.Sorted(maps.Keys(lines)) {
		words := lines[pid]
		ofGuests := strings.Contains(words, d.names()) || strings.Contains(words, d.path("guests")+"/") || strings.Contains(words, buildDir(d.home)+"/")
		isRelay := strings.Contains(words, " "+relayName+" "+d.address)
		if ofGuests || isRelay {
			name, _, _ := strings.Cut(words, " ")
			found = append(found, fmt.Sprintf("%s (%d)", filepath.Base(name), pid))
		}
	}
	return found, nil
}

// commandLines are those of all processes of this machine but us and who
// started us: from /proc, or as ps says where there is none.
func commandLines(ctx context.Context) (map[int]string, error) {
	lines := map[int]string{}
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && len(line) > 0 { // else it ended, or is the kernel's
			lines[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		var res proc.Result
		res, err = proc.Run(ctx, proc.Cmd{Path: "ps", Args: []string{"-axww", "-o", "pid=,command="}})
		for line := range strings.Lines(string(res.Stdout)) {
			pid, words, _ := strings.Cut(strings.TrimSpace(line), " ")
			if n, err := strconv.Atoi(pid); err == nil {
				lines[n] = strings.TrimSpace(words) + " "
			}
		}
	}
	delete(lines, os.Getpid())
	delete(lines, os.Getppid())
	return lines, err
}
