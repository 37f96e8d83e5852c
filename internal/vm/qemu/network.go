package qemu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// An isolated guest has QEMU's user network with restrict=on: without that it
// would reach every loopback port of the host at 10.0.2.2, which QEMU 7.2
// cannot close in any other way. What a forward names is served by a relay
// program that QEMU starts for each connection; the plain form of guestfwd
// opens one connection when QEMU starts and serves no second one.
//
// A guest on the internet has passt, which opens sockets of this machine for
// it. The two are joined by a socket pair: there is no path to be too long, no
// folder that passt, which makes itself "nobody" under root, must be able to
// write, and passt ends when QEMU does.
var userNet = netip.MustParsePrefix("10.0.2.0/24")

// taken are the addresses of the user network that are not free for a
// forward: the network, gateway, name server, guest and broadcast.
var taken = []string{"10.0.2.0", "10.0.2.2", "10.0.2.3", "10.0.2.15", "10.0.2.255"}

func (d *Driver) checkNetwork(n vm.Network) error {
	switch n.Mode {
	case vm.Isolated:
	case vm.Internet:
		if len(n.Forwards) > 0 {
			return fmt.Errorf("forwards are for isolated guests, its network is %q: %w", n.Mode, vm.ErrSpec)
		}
		_, err := d.passt()
		return err
	default:
		return fmt.Errorf("its network %q is neither %q nor %q: %w", n.Mode, vm.Isolated, vm.Internet, vm.ErrSpec)
	}
	if len(n.Forwards) > 0 && len(d.opt.Relay) == 0 {
		return fmt.Errorf("no relay program serves its forwards: %w", vm.ErrUnsupported)
	}
	seen := map[string]bool{}
	for _, f := range n.Forwards {
		if err := checkForward(f); err != nil {
			return err
		}
		if seen[f.Guest] {
			return fmt.Errorf("two forwards have the guest's address %q: %w", f.Guest, vm.ErrSpec)
		}
		seen[f.Guest] = true
	}
	return nil
}

func checkForward(f vm.Forward) error {
	at, err := netip.ParseAddrPort(f.Guest)
	if err != nil || !userNet.Contains(at.Addr()) || at.Port() == 0 {
		return fmt.Errorf("the guest's address %q of a forward is not of the form %s: %w", f.Guest, "10.0.2.100:80", vm.ErrSpec)
	}
	for _, t := range taken {
		if at.Addr().String() == t {
			return fmt.Errorf("the guest's address %q of a forward is taken by the network itself: %w", f.Guest, vm.ErrSpec)
		}
	}
	host, port, err := net.SplitHostPort(f.Host)
	if err != nil || host == "" || strings.HasPrefix(host, "-") || strings.ContainsFunc(host, unusableInHost) {
		return fmt.Errorf("the host's address %q of a forward is not of the form %s: %w", f.Host, "127.0.0.1:8080", vm.ErrSpec)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("the host's address %q of a forward has no port from 1 to 65535: %w", f.Host, vm.ErrSpec)
	}
	return nil
}

func unusableInHost(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`'",\/`, r)
}

// passt returns the path of passt, or ErrUnsupported with a hint.
func (d *Driver) passt() (string, error) {
	name := d.opt.Passt
	if name == "" {
		name = "passt"
	}
	path, err := proc.Look(name)
	if err != nil {
		return "", fmt.Errorf("a guest on the internet needs passt: %w; install it: sudo apt-get install passt: %w", err, vm.ErrUnsupported)
	}
	return path, nil
}

// startPasst starts the network of a guest that is on the internet. The file
// is QEMU's end of it.
func (d *Driver) startPasst(g *guest, port int) (proc.ID, *os.File, error) {
	path, err := d.passt()
	if err != nil {
		return proc.ID{}, nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return proc.ID{}, nil, err
	}
	defer theirs.Close()
	// In this version of passt "--no-map-gw" is what keeps the host's loopback
	// out of the guest's reach.
	id, err := proc.Detach(proc.Cmd{
		Path: path, Dir: g.dir, Files: []*os.File{theirs},
		Args: []string{"-f", "-q", "--no-map-gw", "-t", fmt.Sprintf("127.0.0.1/%d:22", port), "-u", "none", "-F", "3"},
	}, g.path(passtLog))
	if err != nil {
		return proc.ID{}, nil, errors.Join(err, ours.Close())
	}
	return id, ours, nil
}

func socketPair() (ours, theirs *os.File, err error) {
	// A program started in between would inherit an end and keep passt alive.
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "qemu"), os.NewFile(uintptr(fds[1]), "passt"), nil
}

// freePort returns a loopback port that nobody listens on this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("cannot find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
