package tarttest

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
)

const gigabyte = 1_000_000_000

// row is one machine or image as list prints it. tart writes these keys.
type row struct {
	Source   string    `json:"Source"`
	Name     string    `json:"Name"`
	Disk     int64     `json:"Disk"`
	Size     int64     `json:"Size"`
	Accessed time.Time `json:"Accessed"`
	Running  bool      `json:"Running"`
	State    string    `json:"State"`
}

func (t *tart) list(args []string) error {
	a, err := parse(args, 0, "--source=", "--format=", "-q", "--quiet")
	if err != nil {
		return err
	}
	source := a.last("--source", "")
	if !slices.Contains([]string{"", "local", "oci"}, source) {
		return usage("'%s' is not a valid <source>", source)
	}
	if t.spend("torn-list", t.faults.TornList) {
		return fail(1, "Error: The file “config.json” couldn’t be opened because there is no such file.")
	}
	rows := []row{}
	if source != "oci" {
		all, err := t.machines()
		if err != nil {
			return err
		}
		for _, m := range all {
			state, err := m.state()
			if err != nil {
				return err
			}
			rows = append(rows, newRow("local", m.name, m, state))
		}
	}
	if source != "local" {
		for _, m := range t.cachedAll() {
			rows = append(rows, newRow("OCI", m.name, m, "stopped"))
		}
	}
	return t.print(rows, a)
}

func newRow(source, name string, m machine, state string) row {
	r := row{Source: source, Name: name, State: state, Running: state == "running", Accessed: m.accessed().Truncate(time.Second)}
	if info, err := os.Stat(m.path(diskFile)); err == nil {
		r.Disk, r.Size = info.Size()/gigabyte, sparse.Allocated(info)/gigabyte
	}
	return r
}

func (t *tart) print(rows []row, a arguments) error {
	if a.has("-q") || a.has("--quiet") {
		for _, r := range rows {
			fmt.Fprintln(t.stdout, r.Name)
		}
		return nil
	}
	if a.last("--format", "text") == "json" {
		return t.json(rows)
	}
	fmt.Fprintln(t.stderr, banner)
	w := tabwriter.NewWriter(t.stdout, 0, 8, 1, ' ', 0)
	fmt.Fprintln(w, "Source\tName\tDisk\tSize\tAccessed\tState")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", r.Source, r.Name, r.Disk, r.Size, r.Accessed.Format(time.RFC3339), r.State)
	}
	return w.Flush()
}

func (t *tart) json(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err == nil && t.spend("torn-json", t.faults.TornJSON) {
		data = data[:len(data)/2]
	}
	if err == nil {
		_, err = fmt.Fprintf(t.stdout, "%s\n", data)
	}
	return err
}

func (t *tart) get(args []string) error {
	a, err := parse(args, 1, "--format=")
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	m := t.machine(a.words[0])
	if !m.initialized() {
		return noVM(m.name)
	}
	c, err := m.config()
	if err != nil {
		return err
	}
	state, err := m.state()
	if err != nil {
		return err
	}
	r := newRow("", "", m, state)
	info, err := os.Stat(m.path(diskFile))
	if err != nil {
		return err
	}
	v := struct {
		OS         string `json:"OS"`
		CPU        int    `json:"CPU"`
		Memory     int64  `json:"Memory"`
		Disk       int64  `json:"Disk"`
		DiskFormat string `json:"DiskFormat"`
		Size       string `json:"Size"` // a string, as tart has it
		Display    string `json:"Display"`
		Running    bool   `json:"Running"`
		State      string `json:"State"`
	}{
		c.OS, c.CPU, c.Memory >> 20, r.Disk, "raw", fmt.Sprintf("%.3f", float64(sparse.Allocated(info))/gigabyte),
		fmt.Sprintf("%dx%d%s", c.Display.Width, c.Display.Height, c.Display.Unit), r.Running, state,
	}
	if a.last("--format", "text") == "json" {
		return t.json(v)
	}
	w := tabwriter.NewWriter(t.stdout, 0, 8, 1, ' ', 0)
	fmt.Fprintln(w, "OS\tCPU\tMemory\tDisk\tDiskFormat\tSize\tDisplay\tState")
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", v.OS, v.CPU, v.Memory, v.Disk, v.DiskFormat, v.Size, v.Display, v.State)
	return w.Flush()
}

func (t *tart) fqn(args []string) error {
	a, err := parse(args, 1)
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	ref, err := image.Parse(a.words[0])
	if err != nil {
		return noVM(a.words[0])
	}
	digest, ok := t.digest(ref)
	if !ok {
		return noVM(a.words[0])
	}
	fmt.Fprintln(t.stdout, ref.WithDigest(digest).String())
	return nil
}

// arch is the architecture of images that say nothing: this host's, since the
// back ends run nothing else.
func arch() string { return runtime.GOARCH }
