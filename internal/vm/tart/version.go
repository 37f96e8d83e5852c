package tart

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// The releases of tart that this driver is written for. Source of the first:
// tart's change of licence; the second is the release that package tarttest
// plays.
const (
	firstRelease  = "2.33"
	testedRelease = "2.35"
)

// program is the tart that is installed. It can be replaced at any time, under
// running guests too, which keep the one that they were started with.
type program struct {
	version string
	file    fs.FileInfo // of what was asked for its version
}

var versionForm = regexp.MustCompile(`^\d+\.\d+\.\d+\S*`)

// readVersion asks tart for its version, unless it is the program that was
// asked before.
func (d *Driver) readVersion(ctx context.Context) error {
	d.asked.Lock()
	before := d.program
	d.asked.Unlock()
	now, err := os.Stat(d.opt.Path)
	if err == nil && before.file != nil && os.SameFile(now, before.file) && now.ModTime().Equal(before.file.ModTime()) {
		return nil
	}
	out, err := d.call(ctx, call{args: []string{"--version"}, limit: d.times.version})
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", d.opt.Path, err)
	}
	text := strings.TrimSpace(out)
	version := cmp.Or(versionForm.FindString(text), text)
	d.asked.Lock()
	d.program = program{version, now}
	d.asked.Unlock()
	if before.version != "" && before.version != version {
		d.log.Info("tart was replaced", "version", version, "before", before.version)
	}
	if remark := remarkOn(version); remark != "" {
		d.log.Warn("this release of tart was not looked at", "version", version, "remark", remark)
	}
	return nil
}

// remarkOn says what a person should know of a version; "" if nothing.
func remarkOn(version string) string {
	switch {
	case versionForm.FindString(version) == "":
		return "it is no release"
	case older(version, firstRelease):
		return "before " + firstRelease + " its licence limits a company to 100 processor cores: brew install openai/tools/tart"
	case older(testedRelease, version):
		return "newer than " + testedRelease + ", the newest one that was looked at"
	}
	return ""
}

// older compares the first two numbers of versions.
func older(a, b string) bool {
	number := func(version string, i int) int {
		parts := strings.Split(version, ".")
		if i >= len(parts) {
			return 0
		}
		n, _ := strconv.Atoi(parts[i])
		return n
	}
	if x, y := number(a, 0), number(b, 0); x != y {
		return x < y
	}
	return number(a, 1) < number(b, 1)
}

// Version is what tart --version said last.
func (d *Driver) Version() string {
	d.asked.Lock()
	defer d.asked.Unlock()
	return d.program.version
}
