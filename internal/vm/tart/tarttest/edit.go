package tarttest

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// clone copies a machine, or a cached image, that is pulled first if it is not
// there. It does not look whether NEW exists: it is replaced, as tart does.
func (t *tart) clone(args []string) error {
	a, err := parse(args, 2, "--insecure", "--concurrency=", "--prune-limit=", "--stacked", "--deduplicate")
	if err == nil {
		err = a.needs(2, "new-name")
	}
	if err != nil {
		return err
	}
	if strings.Contains(a.words[1], "/") {
		return usage("<new-name> should be a local name")
	}
	source, err := t.source(a)
	if err != nil {
		return err
	}
	tmp, err := t.temporary()
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	guard, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer guard.Close()
	if err := syscall.Flock(int(guard.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	unlock, err := t.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	made := machine{a.words[1], tmp}
	if err := copyMachine(made, source); err != nil {
		return err
	}
	if err := t.newMAC(made); err != nil {
		return err
	}
	time.Sleep(time.Duration(t.faults.CloneTakes))
	to := t.machine(a.words[1])
	if err := os.RemoveAll(to.dir); err != nil {
		return err
	}
	return os.Rename(tmp, to.dir)
}

// source is what to clone: a local machine, or a cached image.
func (t *tart) source(a arguments) (machine, error) {
	name := a.words[0]
	ref, err := image.Parse(name)
	if err != nil {
		if m := t.machine(name); m.initialized() {
			return m, nil
		}
		return machine{}, noVM(name)
	}
	if m, ok := t.cached(ref); ok {
		return m, nil // the registry is not asked
	}
	if err := t.bring(ref, a.has("--insecure")); err != nil {
		return machine{}, err
	}
	m, ok := t.cached(ref)
	if !ok {
		return machine{}, noVM(name)
	}
	return m, nil
}

// newMAC changes the MAC address only where another local machine has it and
// the source is not suspended.
func (t *tart) newMAC(made machine) error {
	c, err := made.config()
	if err != nil || made.has(stateFile) {
		return err
	}
	all, err := t.machines()
	if err != nil {
		return err
	}
	for _, m := range all {
		if other, err := m.config(); err == nil && other.MAC == c.MAC {
			c.MAC = randomMAC()
			return made.writeConfig(c)
		}
	}
	return nil
}

// set changes config.json, whether or not the machine runs.
func (t *tart) set(args []string) error {
	a, err := parse(args, 1, "--cpu=", "--memory=", "--display=", "--display-refit", "--no-display-refit",
		"--random-mac", "--random-serial", "--disk=", "--disk-size=")
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	m := t.machine(a.words[0])
	if !m.initialized() {
		return noVM(a.words[0])
	}
	c, err := m.config()
	if err != nil {
		return err
	}
	if err := setNumbers(&c, a); err != nil {
		return err
	}
	if a.has("--random-mac") {
		c.MAC = randomMAC()
	}
	if a.has("--random-serial") {
		var b [8]byte
		_, _ = rand.Read(b[:])
		c.ECID = base64.StdEncoding.EncodeToString(b[:])
	}
	if gb := a.last("--disk-size", ""); gb != "" {
		if err := growDisk(m, gb); err != nil {
			return err
		}
	}
	return m.writeConfig(c)
}

func setNumbers(c *vmConfig, a arguments) error {
	if text := a.last("--cpu", ""); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return usage("The value '%s' is invalid for '--cpu <cpu>'", text)
		}
		if n < c.CPUMin {
			return fail(1, "VM should have %d CPU cores at minimum (requested %d)", c.CPUMin, n)
		}
		c.CPU = n
	}
	if text := a.last("--memory", ""); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 {
			return usage("The value '%s' is invalid for '--memory <memory>'", text)
		}
		if n<<20 < c.MemoryMin {
			return fail(1, "VM should have %d bytes of memory at minimum (requested %d)", c.MemoryMin, n<<20)
		}
		c.Memory = n << 20
	}
	if text := a.last("--display", ""); text != "" {
		size := strings.TrimSuffix(strings.TrimSuffix(text, "px"), "pt")
		if _, err := fmt.Sscanf(size, "%dx%d", &c.Display.Width, &c.Display.Height); err != nil {
			return usage("The value '%s' is invalid for '--display <display>'", text)
		}
	}
	return nil
}

func growDisk(m machine, gb string) error {
	n, err := strconv.ParseInt(gb, 10, 64)
	info, statErr := os.Stat(m.path(diskFile))
	if err != nil || statErr != nil {
		return usage("The value '%s' is invalid for '--disk-size <disk-size>'", gb)
	}
	if n*1e9 < info.Size() {
		return fail(1, "new disk size of %d GB should be larger than the current disk size", n)
	}
	return os.Truncate(m.path(diskFile), n*1e9)
}

// delete removes machines and cached images, up to the first that it cannot.
func (t *tart) delete(args []string) error {
	a, err := parse(args, 1<<10)
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	for _, name := range a.words {
		if ref, err := image.Parse(name); err == nil {
			if err := t.uncache(ref); err != nil {
				return err
			}
			continue
		}
		if err := t.deleteLocal(name); err != nil {
			return err
		}
	}
	return nil
}

func (t *tart) deleteLocal(name string) error {
	m := t.machine(name)
	if name == "" || strings.ContainsAny(name, "/") || !m.initialized() {
		return noVM(name)
	}
	pid, err := m.holder()
	if err != nil {
		return err
	}
	if pid != 0 || t.spend("held-"+name, t.faults.HeldAfterKill) {
		return fail(1, "VM %q is running", name)
	}
	if img, err := m.image(); err == nil {
		if b, err := t.backend(img, name); err == nil {
			_ = b.driver.Destroy(nowhere(), name)
		}
	}
	return os.RemoveAll(m.dir)
}

// stop cuts the power: SIGINT to the process of run, then SIGKILL.
func (t *tart) stop(args []string) error {
	a, err := parse(args, 1, "--timeout=", "-t=")
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
	if m.has(stateFile) {
		return os.Remove(m.path(stateFile))
	}
	seconds, err := strconv.Atoi(a.last("--timeout", a.last("-t", "30")))
	if err != nil {
		return usage("The value is invalid for '--timeout <timeout>'")
	}
	return t.end(m, syscall.SIGINT, seconds)
}

// suspend asks the process of run to write the machine's memory down.
func (t *tart) suspend(args []string) error {
	a, err := parse(args, 1)
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
	return t.end(m, syscall.SIGUSR1, 30)
}

// end signals the process of run and polls its lock each 100 ms.
func (t *tart) end(m machine, sig syscall.Signal, seconds int) error {
	pid, err := m.holder()
	if err != nil {
		return err
	}
	if pid == 0 {
		return fail(2, "VM %q is not running", m.name)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return err
	}
	for range seconds * 10 {
		if now, err := m.holder(); err != nil || now != pid {
			return err
		}
		pause()
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
