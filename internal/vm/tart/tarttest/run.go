package tarttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

const (
	whose     = "stand-in" // the installation of the back ends' guests
	guestUser = "runner"   // of images that name none
)

// backend gives machines their life.
type backend struct {
	driver interface {
		vm.Driver
		vm.PowerOffer
		vm.Addresser
	}
	dialer guest.Dialer
}

// backend returns what runs this machine, of this image.
func (t *tart) backend(img image.Local, name string) (backend, error) {
	if img.Kernel == "" || t.faults.Backend == "process" {
		d, err := fake.New(fake.Options{
			Dir: t.own("process"), Installation: whose,
			BootDelay: func(string) time.Duration { return time.Duration(t.faults.Boot) },
		})
		return backend{d, local.Dialer{}}, err
	}
	d, err := qemu.New(qemu.Options{
		Home: t.own("qemu"), Installation: whose, Prefix: name[:1], Relay: []string{t.self, roleRelay},
	})
	return backend{d, &ssh.Dialer{}}, err
}

// runOptions are those of run that change what happens here.
type runOptions struct {
	arguments
	name string
}

func (t *tart) run(args []string) error {
	a, err := parse(args, 1, "--no-graphics", "--no-audio", "--no-clipboard", "--no-pointer", "--no-keyboard", "--no-trackpad",
		"--nested", "--suspendable", "--vnc", "--vnc-experimental", "--recovery", "--net-softnet", "--net-host", "--serial",
		"--dir=", "--disk=", "--root-disk-opts=", "--net-softnet-allow=", "--net-softnet-block=", "--net-softnet-expose=",
		"--net-bridged=", "--serial-path=", "--rosetta=")
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	softnet := a.has("--net-softnet") || a.has("--net-softnet-allow") || a.has("--net-softnet-block") || a.has("--net-softnet-expose")
	if softnet && (a.has("--net-bridged") || a.has("--net-host")) || a.has("--net-bridged") && a.has("--net-host") {
		return usage("--net-softnet, --net-bridged and --net-host are mutually exclusive")
	}
	m := t.machine(a.words[0])
	if !m.initialized() { // by validate(), which hides the status 2
		return fail(1, "Error: the specified VM %q does not exist", a.words[0])
	}
	fmt.Fprintln(t.stdout, banner)
	// Whoever sees the lock may ask for a suspend at once.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	lock, err := t.hold(m, softnet)
	if err != nil {
		return err
	}
	defer lock.Close() // the process ends with it
	if says := t.faults.RunSays; says != "" {
		fmt.Fprintln(t.stdout, says)
		return trouble{code: t.faults.RunStatus}
	}
	return t.power(m, signals)
}

// hold takes the machine's lock, under the lock of the home, and checks what
// the hypervisor checks.
func (t *tart) hold(m machine, softnet bool) (*os.File, error) {
	unlock, err := t.lockHome()
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := m.config()
	if err != nil {
		return nil, err
	}
	if pid, err := m.holder(); err != nil || pid != 0 {
		return nil, errors.Join(err, fail(2, "VM %q is already running!", m.name))
	}
	others, err := t.running()
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		if oc, err := o.config(); err == nil && oc.MAC == c.MAC {
			fmt.Fprintln(t.stdout, "There is already a running VM with the same MAC address!")
			c.MAC = randomMAC()
			if err := m.writeConfig(c); err != nil {
				return nil, err
			}
		}
	}
	// What is needed later is copied: see power.
	if err := os.WriteFile(m.path(macFile), []byte(c.MAC), 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.path(configFile), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		return nil, fail(2, "VM %q is already running!", m.name)
	}
	return f, t.refusal(c, others, softnet)
}

// refusal is why the hypervisor does not start a machine.
func (t *tart) refusal(c vmConfig, others []machine, softnet bool) error {
	if t.faults.Keychain {
		return fail(1, "Error: Failed to generate keypair: SecKeyCreateRandomKey_ios failed: Interaction is not allowed with the Security Server.")
	}
	if softnet && t.faults.NoSoftnet {
		return fail(1, "Error: SoftnetError: Softnet process terminated prematurely, softnet is not configured to run with the SUID bit")
	}
	if c.OS != image.OSDarwin {
		return nil
	}
	limit, names := 2, []string{}
	if t.faults.Limit > 0 {
		limit = t.faults.Limit
	}
	for _, o := range others {
		if oc, err := o.config(); err == nil && oc.OS == image.OSDarwin {
			names = append(names, o.name)
		}
	}
	if len(names)+t.faults.Leaked+t.faults.Elsewhere < limit && !t.spend("limit", t.faults.LimitFor) {
		return nil
	}
	text := "The number of VMs exceeds the system limit"
	if len(names) > 0 {
		text += " (other running VMs: " + strings.Join(names, ", ") + ")"
	}
	return fail(1, "%s", text)
}

func (t *tart) running() ([]machine, error) {
	all, err := t.machines()
	if err != nil {
		return nil, err
	}
	var out []machine
	for _, m := range all {
		if pid, err := m.holder(); err == nil && pid != 0 {
			out = append(out, m)
		}
	}
	return out, nil
}

// power gives the machine its life until it ends or a signal does. The lock is
// held by this process, which therefore never opens config.json again.
func (t *tart) power(m machine, signals chan os.Signal) error {
	signal.Notify(signals, os.Interrupt)
	_ = os.Remove(m.path(stateFile)) // a suspended machine is resumed
	img, err := m.image()
	if err != nil {
		return err
	}
	b, err := t.backend(img, m.name)
	if err != nil {
		return err
	}
	done, err := t.watchOver(m)
	if err != nil {
		return err
	}
	defer done()
	l, err := t.boot(m, b, img)
	if err != nil {
		return err
	}
	defer l.close(m.name)
	return errors.Join(t.live(m, l, signals), l.persist(m))
}

// life is a machine with power.
type life struct {
	backend
	target  guest.Target
	control net.Listener
	address string
	booted  time.Time // when its agent answers

	mu     sync.Mutex
	inside guest.Channel // nil until somebody needed it
}

func (l *life) close(name string) {
	_ = l.control.Close()
	_ = l.driver.PowerOff(nowhere(), name)
}

// persist writes what a guest that shut down left on its disk into the machine's,
// where the real one has it all along. One whose power was cut is about to be
// deleted, and what it wrote is lost here.
func (l *life) persist(m machine) error {
	keeper, ok := l.driver.(vm.DiskKeeper)
	if !ok || l.runs(m.name) {
		return nil
	}
	dir, err := os.MkdirTemp(m.dir, "power-off-")
	if err != nil {
		return err
	}
	src, err := keeper.Export(nowhere(), m.name, dir)
	if err == nil {
		err = os.Rename(src.Disk, m.path(diskFile))
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// boot starts the machine and opens its control socket.
func (t *tart) boot(m machine, b backend, img image.Local) (*life, error) {
	private, public, err := t.loginKey()
	if err != nil {
		return nil, err
	}
	l := &life{backend: b, booted: time.Now().Add(time.Duration(t.faults.Boot))}
	user := img.Labels[image.LabelUser]
	if user == "" {
		user = guestUser
	}
	l.target = guest.Target{Guest: m.name, User: user, Key: private, HostKey: img.Labels[image.LabelHostKey]}
	spec := vm.Spec{
		Name: m.name, Owner: vm.Owner{Installation: whose}, Image: img, LoginKey: public, MemoryMiB: 1024,
		Network: vm.Network{Mode: vm.Isolated, Forwards: forwards()},
	}
	spec.Image.Disk = m.path(diskFile)
	// What runs here is no macOS, whatever the image plays.
	spec.Image.Labels = maps.Clone(img.Labels)
	delete(spec.Image.Labels, image.LabelOS)
	// A second life has the disk of the first.
	if err := b.driver.PowerOff(nowhere(), m.name); err != nil {
		return nil, err
	}
	if img.Kernel != "" {
		if err := b.driver.Destroy(nowhere(), m.name); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(b.driver.Create(nowhere(), spec), b.driver.Start(nowhere(), m.name)); err != nil {
		return nil, err
	}
	if l.address, err = t.lease(m); err != nil {
		return nil, err
	}
	if l.control, err = listen(m); err != nil {
		return nil, err
	}
	return l, nil
}

// loginKey is how the stand-in gets into machines, one for all of a home: their
// disks remember it from one life to the next.
func (t *tart) loginKey() (private secret.String, public string, err error) {
	unlock, err := t.lockHome()
	if err != nil {
		return private, "", err
	}
	defer unlock()
	path := t.own("login-key")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if private, public, err = ssh.NewKey(); err != nil {
			return private, "", err
		}
		return private, public, os.WriteFile(path, []byte(private.Reveal()), 0o600)
	}
	if err != nil {
		return private, "", err
	}
	private = secret.New(string(data))
	public, err = ssh.Public(private)
	return private, public, err
}

// live serves the control socket until the machine ends.
func (t *tart) live(m machine, l *life, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go t.serve(ctx, l)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case s := <-signals:
			if over, err := t.signalled(m, s); over {
				return err
			}
		case <-tick.C:
			if f, err := readFaults(t.home); err == nil && f.Crash != "" && time.Now().After(l.booted) {
				fmt.Fprintf(t.stdout, "guest has stopped the virtual machine due to error: %s\n", f.Crash)
				return nil // with status 0
			}
			if !l.runs(m.name) {
				fmt.Fprintln(t.stdout, "guest has stopped the virtual machine")
				return nil
			}
		}
	}
}

// signalled says whether a signal ends the machine.
func (t *tart) signalled(m machine, s os.Signal) (over bool, err error) {
	f, _ := readFaults(t.home)
	switch {
	case s == syscall.SIGUSR2: // a macOS guest shows a dialog
		return false, nil
	case f.Deaf:
		return false, nil
	case s == syscall.SIGUSR1:
		return true, os.WriteFile(m.path(stateFile), []byte("suspended"), 0o600)
	}
	fmt.Fprintln(t.stdout, "Stopping VM...")
	return true, nil
}

func (l *life) runs(name string) bool {
	all, err := l.driver.List(nowhere())
	if err != nil {
		return true
	}
	for _, in := range all {
		if in.Name == name {
			return in.State == vm.Running
		}
	}
	return false
}

// watchOver starts a process that cuts the machine's power when this one dies
// without a chance to: Virtualization.framework's machines die with it. done
// ends it.
func (t *tart) watchOver(m machine) (done func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	id, err := proc.Detach(proc.Cmd{
		Path: t.self, Args: []string{roleReaper, m.name}, Files: []*os.File{r},
	}, t.own("reaper.log"))
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	return func() {
		_ = id.Kill(nowhere())
		_ = w.Close()
	}, nil
}

// reap waits until the process of run is gone and cuts the machine's power.
func (t *tart) reap(name string) error {
	signal.Ignore(os.Interrupt)
	_, _ = io.Copy(io.Discard, os.NewFile(3, "life"))
	img, err := t.machine(name).image()
	if err != nil {
		return nil // deleted meanwhile
	}
	b, err := t.backend(img, name)
	if err != nil {
		return err
	}
	return b.driver.PowerOff(nowhere(), name)
}

// listen opens the control socket, by a relative path: 104 bytes are all that
// macOS gives one.
func listen(m machine) (net.Listener, error) {
	if err := os.Chdir(m.dir); err != nil {
		return nil, err
	}
	_ = os.Remove(controlFile)
	return net.Listen("unix", controlFile)
}

// forwards are those of ForwardEnv.
func forwards() []vm.Forward {
	var out []vm.Forward
	for pair := range strings.FieldsSeq(os.Getenv(ForwardEnv)) {
		if guest, host, ok := strings.Cut(pair, "="); ok {
			out = append(out, vm.Forward{Guest: guest, Host: host})
		}
	}
	return out
}

// relay connects this process's streams to an address.
func relay(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(os.Stdout, conn)
		back <- err
	}()
	_, err = io.Copy(conn, os.Stdin)
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = errors.Join(err, tcp.CloseWrite())
	}
	return errors.Join(err, <-back)
}

// nowhere bounds nothing: the caller of the whole program does.
func nowhere() context.Context { return context.Background() }

func pause() { time.Sleep(100 * time.Millisecond) }

func (t *tart) leasesFile() string { return filepath.Join(t.home, "stand-in", "leases.json") }
