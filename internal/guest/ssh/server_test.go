package ssh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	guestssh "github.com/mirego/tasuki/internal/guest/ssh"
)

// server is an SSH server in this process whose user lives in a folder of this
// host. Between it and its clients is a proxy whose connections can be cut.
type server struct {
	home, mark string
	config     *ssh.ServerConfig
	hostKey    string // authorized_keys form
	key        secret.String
	addr       string

	mu     sync.Mutex
	frozen bool
	conns  []net.Conn
	wg     sync.WaitGroup
}

const password = "correct horse"

func newServer(t *testing.T, change func(*server)) *server {
	t.Helper()
	s := &server{home: t.TempDir()}
	s.mark = "TASUKI_TEST_SSHD=" + s.home
	key, public, err := guestssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s.key = key
	s.config = &ssh.ServerConfig{
		PublicKeyCallback: func(meta ssh.ConnMetadata, got ssh.PublicKey) (*ssh.Permissions, error) {
			if meta.User() == "runner" && strings.TrimSpace(string(ssh.MarshalAuthorizedKey(got))) == public {
				return nil, nil
			}
			return nil, errors.New("no such key")
		},
		KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password:"}, []bool{false})
			if err != nil || len(answers) != 1 || answers[0] != password {
				return nil, errors.New("wrong password")
			}
			return nil, nil
		},
	}
	s.hostKey = s.addHostKey(t)
	if change != nil {
		change(s)
	}
	s.listen(t)
	return s
}

func (s *server) addHostKey(t *testing.T) string {
	t.Helper()
	private, public, err := guestssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey([]byte(private.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	s.config.AddHostKey(signer)
	return public
}

func (s *server) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			near, far := net.Pipe()
			s.mu.Lock()
			s.conns = append(s.conns, conn, near)
			s.mu.Unlock()
			s.wg.Go(func() { s.forward(near, conn) })
			s.wg.Go(func() { s.forward(conn, near) })
			s.wg.Go(func() { s.serve(ctx, far) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.cut()
		cancel()
		s.wg.Wait()
		for range 3 { // what scripts left behind
			ids, _ := proc.Marked(s.mark)
			for _, id := range ids {
				_ = id.Kill(context.WithoutCancel(t.Context()))
			}
		}
	})
}

// forward copies until an end is closed; once frozen, into nothing.
func (s *server) forward(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		frozen := s.frozen
		s.mu.Unlock()
		if frozen {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut closes every connection.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

// freeze makes every connection half-open: nothing arrives any more.
func (s *server) freeze(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = on
}

func (s *server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	sshConn, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	defer sshConn.Close()
	s.wg.Go(func() {
		for req := range requests {
			if req.WantReply {
				_ = req.Reply(false, nil) // as sshd answers a keepalive
			}
		}
	})
	for offered := range channels {
		ch, reqs, err := offered.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { s.session(ctx, ch, reqs) })
	}
}

func (s *server) session(ctx context.Context, ch ssh.Channel, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for req := range reqs {
		if req.WantReply {
			_ = req.Reply(true, nil)
		}
		switch req.Type {
		case "exec":
			var exec struct{ Command string }
			_ = ssh.Unmarshal(req.Payload, &exec)
			s.wg.Go(func() { s.exec(ctx, ch, exec.Command) })
		case "signal":
			cancel()
		}
	}
}

// exec runs a command as sshd does: by the user's shell, in the user's home.
func (s *server) exec(ctx context.Context, ch ssh.Channel, command string) {
	defer ch.Close()
	stdin, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer stdin.Close()
	s.wg.Go(func() {
		defer w.Close()
		_, _ = io.Copy(w, ch)
	})
	_, err = proc.Run(ctx, proc.Cmd{
		Path: "sh", Args: []string{"-c", command}, Dir: s.home, Bare: true,
		Env:   []string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH"), s.mark},
		Stdin: stdin, Stdout: ch, Stderr: ch.Stderr(),
	})
	var exit *proc.ExitError
	if errors.As(err, &exit) && exit.Code < 0 {
		_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal     string
			CoreDumped bool
			Text, Lang string
		}{"KILL", false, "", ""}))
		return
	}
	var status struct{ Status uint32 }
	if exit != nil {
		status.Status = uint32(exit.Code)
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(status))
}
