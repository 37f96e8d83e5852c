package qemu_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// bootTimeout is how long a guest may take to its first answer over SSH, under
// emulation on a machine that is busy with other tests.
const bootTimeout = 8 * time.Minute

// TestAnIsolatedGuestReachesOnlyItsForwards boots the image that we build, logs
// in with the guest's own key, and tries from within what this host listens on.
func TestAnIsolatedGuestReachesOnlyItsForwards(t *testing.T) {
	if os.Getenv("TASUKI_TEST_QEMU") != "1" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1")
	}
	img := guestImage(t)
	echo, served := echoServer(t)
	d, err := qemu.New(qemu.Options{
		Home: filepath.Join(t.TempDir(), "guests"), Installation: "inst", Prefix: "tk-", Accel: "auto",
		Relay: relayProgram(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	signer, line := loginKey(t)
	const forward = "10.0.2.100:80"
	name := "tk-isolated"
	t.Cleanup(func() {
		if list, err := d.List(context.WithoutCancel(t.Context())); err == nil && len(list) == 1 && t.Failed() {
			words, _ := os.ReadFile(filepath.Join(filepath.Dir(list[0].Console), "qemu.log"))
			t.Logf("QEMU and the relays said:\n%s", words)
		}
		if err := d.Destroy(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	spec := vm.Spec{
		Name: name, Owner: vm.Owner{Installation: "inst"}, Image: img, MemoryMiB: 1024, DiskGB: 6, LoginKey: line,
		Hostname: "relay-one",
		Network:  vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{{Guest: forward, Host: echo}}},
	}
	started := time.Now()
	if err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	addr, err := d.Address(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	user := cmp.Or(img.Labels[image.LabelUser], "root")
	client := logIn(t, d, name, addr, user, img.Labels[image.LabelHostKey], signer)
	t.Logf("%s from Create to an answer over SSH", time.Since(started).Round(10*time.Millisecond))

	t.Run("hostname", func(t *testing.T) {
		if got := strings.TrimSpace(run(t, client, "hostname")); got != "relay-one" {
			t.Errorf("the guest calls itself %q, want %q", got, "relay-one")
		}
	})
	t.Run("disk has grown", func(t *testing.T) {
		sectors := strings.TrimSpace(run(t, client, "cat /sys/block/vda/size"))
		if n, err := strconv.ParseInt(sectors, 10, 64); err != nil || n*512 < 6e9 {
			t.Errorf("the disk has %s sectors, want 6 GB", sectors)
		}
	})
	t.Run("only its own key", func(t *testing.T) {
		other, _ := loginKey(t)
		if c, err := dial(t.Context(), addr, user, img.Labels[image.LabelHostKey], other); err == nil {
			c.Close()
			t.Error("another key is let in")
		}
	})
	t.Run("many connections through one forward", func(t *testing.T) { manyConnections(t, client, forward) })
	t.Run("no listening port of the host", func(t *testing.T) { noPortOfTheHost(t, client, forward, served) })
	t.Run("no datagram", func(t *testing.T) { noDatagram(t, client) })
}

// manyConnections opens connections at once, each with words of its own.
func manyConnections(t *testing.T, client *ssh.Client, forward string) {
	const n = 40
	out := run(t, client, fmt.Sprintf(`
		talk() {
			exec 3<>/dev/tcp/%s || return
			for round in 1 2 3; do
				echo "words $1 $round" >&3
				read -r -t 60 answer <&3
				[ "$answer" = "words $1 $round" ] || return
			done
			echo whole
		}
		for i in $(seq %d); do talk $i & done; wait`, strings.Replace(forward, ":", "/", 1), n))
	if got := strings.Count(out, "whole"); got != n {
		t.Errorf("%d of %d connections got their own words back:\n%s", got, n, out)
	}
}

// prober prints each of its arguments ADDRESS/PORT that answers, from within
// the guest. A connection that is made and said nothing on counts.
const prober = `
	probe() { timeout 5 bash -c "exec 3<>/dev/tcp/$1" 2>/dev/null && echo "open $1"; }
	n=0
	while read -r at; do
		probe "$at" &
		n=$((n + 1))
		[ $((n % 25)) = 0 ] && wait
	done
	wait
	echo done`

func noPortOfTheHost(t *testing.T, client *ssh.Client, forward string, served func() int) {
	ports := listeningPorts(t)
	if len(ports) < 2 {
		t.Fatalf("this host listens on %v; the echo server and the guest's own SSH port should be there", ports)
	}
	addrs := append([]string{"10.0.2.2", "10.0.2.3", "10.0.2.4"}, hostAddresses(t)...)
	control := "127.0.0.1/22" // the guest's own sshd: shows that the prober can see
	targets := []string{control, strings.Replace(forward, ":", "/", 1)}
	for _, addr := range addrs {
		for _, port := range ports {
			targets = append(targets, fmt.Sprintf("%s/%d", addr, port))
		}
	}
	before := served()
	out := runWith(t, client, "bash -c "+quote(prober), strings.Join(targets, "\n")+"\n")
	var open []string
	for line := range strings.Lines(out) {
		if at, ok := strings.CutPrefix(strings.TrimSpace(line), "open "); ok {
			open = append(open, at)
		}
	}
	slices.Sort(open)
	want := []string{"10.0.2.100/80", control}
	slices.Sort(want)
	t.Logf("tried %d ports of the host on %v", len(ports), addrs)
	if !slices.Equal(open, want) || !strings.Contains(out, "done") {
		t.Errorf("reached %q, want %q; output:\n%s", open, want, out)
	}
	if got := served() - before; got > 1 {
		t.Errorf("the echo server was reached %d times, want once, by its forward", got)
	}
}

func noDatagram(t *testing.T, client *ssh.Client) {
	l, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.LocalAddr().(*net.UDPAddr).Port
	var script strings.Builder
	for _, addr := range append([]string{"10.0.2.2", "10.0.2.3"}, hostAddresses(t)...) {
		fmt.Fprintf(&script, "echo words >/dev/udp/%s/%d; ", addr, port)
	}
	// A question to the name server: 10.0.2.3 must not hand it on.
	script.WriteString(`exec 3<>/dev/udp/10.0.2.3/53; printf '\0\1\1\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1' >&3; ` +
		`timeout 3 head -c 1 <&3 | wc -c; echo sent`)
	out := run(t, client, "bash -c "+quote(script.String())+" 2>&1")
	if !strings.Contains(out, "sent") || !strings.Contains(out, "0\n") {
		t.Errorf("the name server answered, or nothing was sent:\n%s", out)
	}
	_ = l.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	buf := make([]byte, 100)
	if n, from, err := l.ReadFrom(buf); err == nil {
		t.Errorf("the host got %q from %v", buf[:n], from)
	}
}

// echoServer answers each line with itself and counts its connections.
func echoServer(t *testing.T) (addr string, served func() int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var n int
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			mu.Lock()
			n++
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return l.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// listeningPorts are all TCP ports that this host listens on, whatever the
// address.
func listeningPorts(t *testing.T) []int {
	t.Helper()
	var ports []int
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue // no IPv6
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 || fields[3] != "0A" { // LISTEN
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			ports = append(ports, int(port))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// hostAddresses are this host's own, beyond loopback.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			out = append(out, n.IP.String())
		}
	}
	return out
}

func loginKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// logIn dials until the guest lets us in, and gives up when its QEMU ends.
func logIn(t *testing.T, d *qemu.Driver, name, addr, user, hostKey string, key ssh.Signer) *ssh.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	for {
		client, err := dial(ctx, addr, user, hostKey, key)
		if err == nil {
			t.Cleanup(func() { client.Close() })
			return client
		}
		list, listErr := d.List(ctx)
		if listErr != nil || len(list) != 1 || list[0].State != vm.Running {
			t.Fatalf("the guest is %+v, %v; last: %v", list, listErr, err)
		}
		if ctx.Err() != nil {
			console, _ := os.ReadFile(list[0].Console)
			t.Fatalf("no login within %v: %v; console:\n%s", bootTimeout, err, console[max(0, len(console)-4000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// dial tries once. QEMU accepts before the guest listens, so the banner has a
// short deadline of its own.
func dial(ctx context.Context, addr, user, hostKey string, key ssh.Signer) (*ssh.Client, error) {
	check := ssh.InsecureIgnoreHostKey()
	if hostKey != "" {
		want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
		if err != nil {
			return nil, err
		}
		check = ssh.FixedHostKey(want)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	peeked := bufio.NewReader(conn)
	if _, err := peeked.Peek(1); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c, chans, reqs, err := ssh.NewClientConn(bufferedConn{conn, peeked}, addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: check,
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	return ssh.NewClient(c, chans, reqs), nil
}

// bufferedConn is a connection of which some bytes were read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func run(t *testing.T, client *ssh.Client, script string) string {
	t.Helper()
	return runWith(t, client, "bash -c "+quote(script), "")
}

func runWith(t *testing.T, client *ssh.Client, command, stdin string) string {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var out bytes.Buffer
	session.Stdin, session.Stdout = strings.NewReader(stdin), &out
	if err := session.Run(command); err != nil {
		t.Fatalf("%v; output:\n%s", err, out.String())
	}
	return out.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
