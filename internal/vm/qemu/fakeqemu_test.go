package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/vm/vmtest"
)

// roleEnv makes the test's own program play another one.
const roleEnv = "TASUKI_QEMU_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "qemu":
		err = fakeQEMU(os.Args[1:])
	case "qemu-img":
		err = os.WriteFile(os.Args[len(os.Args)-2], []byte("a disk"), 0o600)
	case "relay":
		err = relay(os.Args[len(os.Args)-1])
	case "caller":
		err = caller(os.Args[1])
	default:
		err = fmt.Errorf("no such role: %q", role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "qemu-system-fake: %v\n", err)
		os.Exit(1)
	}
}

// relay connects its stdin and stdout to an address, until both have ended.
func relay(addr string) error {
	conn, err := net.Dial("tcp", addr)
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
	return errors.Join(err, conn.(*net.TCPConn).CloseWrite(), <-back)
}

var hostfwd = regexp.MustCompile(`hostfwd=tcp:([0-9.:]+)-:22`)

// fakeQEMU is a process that has of QEMU what the driver sees: it locks its
// pid file, listens on the forwarded port, speaks QMP, and stays.
func fakeQEMU(args []string) error {
	pid, err := os.OpenFile(pidFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.FcntlFlock(pid.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	fmt.Fprintf(pid, "%d\n", os.Getpid())
	if m := hostfwd.FindStringSubmatch(strings.Join(args, " ")); m != nil {
		if _, err := net.Listen("tcp4", m[1]); err != nil {
			return fmt.Errorf("-netdev user: Could not set up host forwarding rule 'tcp:%s-:22'", m[1])
		}
	}
	console, err := os.OpenFile(consoleFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintln(console, "the fake boots")
	_ = os.Remove(qmpFile)
	l, err := net.Listen("unix", qmpFile)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		serveQMP(conn, func(command string) (any, error) {
			switch command {
			case "query-status":
				return map[string]any{"running": true, "status": "running"}, nil
			case "quit":
				os.Exit(0)
			}
			return struct{}{}, nil
		})
	}
}

// serveQMP speaks QMP as QEMU 7.2 does, an event between command and reply
// included.
func serveQMP(conn net.Conn, answer func(command string) (any, error)) {
	defer conn.Close()
	fmt.Fprint(conn, `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`+"\r\n")
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var request struct {
			Execute string
			ID      any
		}
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			return
		}
		fmt.Fprint(conn, `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {"offset": 0}}`+"\r\n")
		reply := map[string]any{"id": request.ID}
		if result, err := answer(request.Execute); err != nil {
			reply["error"] = map[string]string{"class": "GenericError", "desc": err.Error()}
		} else {
			reply["return"] = result
		}
		data, _ := json.Marshal(reply)
		if _, err := conn.Write(append(data, "\r\n"...)); err != nil {
			return
		}
	}
}

// fakeWorld is a world whose QEMU is fakeQEMU.
func fakeWorld(t *testing.T) *world {
	t.Helper()
	return newWorld(t, Options{QEMU: roleScript(t, "qemu", ""), Img: roleScript(t, "qemu-img", "")})
}

// roleScript makes a program that is this test in a role. before is shell code
// that runs first.
func roleScript(t *testing.T, role, before string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), role)
	script := fmt.Sprintf("#!/bin/sh\n%s\n%s=%s exec '%s' \"$@\"\n", before, roleEnv, role, self)
	// A fork of another test that still has the file open for writing would
	// make it "text file busy".
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConformanceOverAFakeQEMU(t *testing.T) {
	vmtest.Run(t, func(t *testing.T) vmtest.Harness { return fakeWorld(t).harness() })
}
