package guesttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing/iotest"

	"github.com/mirego/tasuki/internal/guest"
)

func testStatus(s *suite) {
	for _, c := range []struct {
		script      string
		status      int
		out, errOut string
	}{
		{"true", 0, "", ""},
		{"exit 3", 3, "", ""},
		{"exit 255", 255, "", ""},
		{"echo out; echo err >&2; exit 1", 1, "out\n", "err\n"},
		{"cat", 0, "", ""}, // no input is empty input
	} {
		var out, errOut bytes.Buffer
		status, err := s.ch.Run(s.ctx(), guest.Command{Script: c.script, Stdout: &out, Stderr: &errOut})
		if err != nil || status != c.status || out.String() != c.out || errOut.String() != c.errOut {
			s.Errorf("%s: status %d, %v, stdout %q, stderr %q", c.script, status, err, out.String(), errOut.String())
		}
	}
	status, err := s.ch.Run(s.ctx(), guest.Command{Script: "kill -9 $$"})
	if err != nil || status != -1 {
		s.Errorf("a script that was killed: status %d, %v; want -1", status, err)
	}
	if status, err := s.ch.Run(s.ctx(), guest.Command{Script: "echo to nobody; echo to nobody >&2"}); status != 0 || err != nil {
		s.Errorf("without writers: status %d, %v", status, err)
	}
}

func testBytes(s *suite) {
	data := make([]byte, 3<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	var out bytes.Buffer
	status, err := s.ch.Run(s.ctx(), guest.Command{Script: "cat", Stdin: bytes.NewReader(data), Stdout: &out})
	if err != nil || status != 0 || !bytes.Equal(out.Bytes(), data) {
		s.Errorf("status %d, %v; %d bytes came back of %d, equal: %v", status, err, out.Len(), len(data), bytes.Equal(out.Bytes(), data))
	}
}

func testUnreadInput(s *suite) {
	big := bytes.NewReader(make([]byte, 8<<20))
	if status, err := s.ch.Run(s.ctx(), guest.Command{Script: "exit 7", Stdin: big}); err != nil || status != 7 {
		s.Errorf("much input: status %d, %v; want 7", status, err)
	}
	silent, w := io.Pipe()
	defer w.Close()
	if status, err := s.ch.Run(s.ctx(), guest.Command{Script: "exit 8", Stdin: silent}); err != nil || status != 8 {
		s.Errorf("input that never comes: status %d, %v; want 8", status, err)
	}
}

func testAnyScript(s *suite) {
	word := `it's "$HOME" ` + "`id` \\ \t!%*" + ` $(id) ~ é`
	if got := s.sh("printf '%s' " + guest.Quote(word)); got != word {
		s.Errorf("got %q, want %q", got, word)
	}
	if got := s.sh("# a comment\n\ncat <<'END'\na $b\nEND\n"); got != "a $b" {
		s.Errorf("a here-document gave %q", got)
	}
	long := strings.Repeat("x", 60<<10)
	if got := s.sh("echo " + long); got != long {
		s.Errorf("a script of 60 KiB printed %d bytes", len(got))
	}
}

func testParallel(s *suite) {
	var wg sync.WaitGroup
	ctx := s.ctx()
	for i := range 8 { // sshd allows 10 sessions in one connection
		wg.Go(func() {
			var out bytes.Buffer
			status, err := s.ch.Run(ctx, guest.Command{Script: "cat; exit " + fmt.Sprint(i), Stdin: strings.NewReader(fmt.Sprint(i)), Stdout: &out})
			if err != nil || status != i || out.String() != fmt.Sprint(i) {
				s.Errorf("script %d: status %d, %v, %q", i, status, err, out.String())
			}
		})
	}
	wg.Wait()
}

// onWrite calls a function at each write.
type onWrite func(p []byte)

func (f onWrite) Write(p []byte) (int, error) { f(p); return len(p), nil }

func testContext(s *suite) {
	cause := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(s.ctx())
	var mu sync.Mutex
	returned, late := false, false
	_, err := s.ch.Run(ctx, guest.Command{
		Script: "while :; do echo x; done",
		Stdout: onWrite(func([]byte) {
			mu.Lock()
			defer mu.Unlock()
			late = late || returned
			cancel(cause)
		}),
	})
	mu.Lock()
	returned = true
	mu.Unlock()
	if !errors.Is(err, cause) {
		s.Errorf("got %v, want the cause", err)
	}
	if _, err := s.ch.Run(ctx, guest.Command{Script: "true"}); !errors.Is(err, cause) {
		s.Errorf("under an ended context: %v, want the cause", err)
	}
	for range 5 { // the channel is still good
		s.sh("true")
	}
	mu.Lock()
	defer mu.Unlock()
	if late {
		s.Error("Run wrote to Stdout after it had returned")
	}
}

func testClosed(s *suite) {
	var err error
	ended := make(chan struct{})
	started := make(chan struct{})
	once := sync.OnceFunc(func() { close(started) })
	ctx := s.ctx()
	go func() {
		defer close(ended)
		_, err = s.ch.Run(ctx, guest.Command{Script: "echo; exec sleep 600", Stdout: onWrite(func([]byte) { once() })})
	}()
	select {
	case <-started:
	case <-ended:
	}
	if closeErr := s.ch.Close(); closeErr != nil {
		s.Errorf("Close: %v", closeErr)
	}
	<-ended
	if !errors.Is(err, guest.ErrUnreachable) {
		s.Errorf("Run of a channel that is closed meanwhile: %v, want ErrUnreachable", err)
	}
	if _, err := s.ch.Run(s.ctx(), guest.Command{Script: "true"}); !errors.Is(err, guest.ErrUnreachable) {
		s.Errorf("Run of a closed channel: %v, want ErrUnreachable", err)
	}
	_ = s.ch.Close() // again
	s.ch = s.dial()
	s.sh("true")
}

func testCut(s *suite) {
	s.needsCut()
	once := sync.OnceFunc(func() { s.h.Cut(s.T, s.ch) })
	_, err := s.ch.Run(s.ctx(), guest.Command{
		Script: "while :; do echo x; sleep 0.05; done",
		Stdout: onWrite(func([]byte) { go once() }),
	})
	if !errors.Is(err, guest.ErrUnreachable) {
		s.Errorf("Run: %v, want ErrUnreachable", err)
	}
	if _, err := s.ch.Run(s.ctx(), guest.Command{Script: "true"}); !errors.Is(err, guest.ErrUnreachable) {
		s.Errorf("Run after it: %v, want ErrUnreachable", err)
	}
	s.ch = s.dial()
	s.sh("true")
}

func (s *suite) needsCut() {
	s.Helper()
	if s.h.Cut == nil {
		s.Skip("the harness cannot cut a connection")
	}
}

func testPut(s *suite) {
	big := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(big)
	for _, c := range []struct {
		path, seen string
		data       []byte
	}{
		{"~/a/b c/it's", `"$HOME/a/b c/it's"`, []byte("text\nwithout end")},
		{"~/a/b c/it's", `"$HOME/a/b c/it's"`, big}, // again
		{"~/empty", `"$HOME/empty"`, nil},
		{"~/$HOME", `"$HOME/"'$HOME'`, []byte("x")},
	} {
		if err := guest.Put(s.ctx(), s.ch, c.path, 0o640, bytes.NewReader(c.data)); err != nil {
			s.Errorf("Put(%q): %v", c.path, err)
			continue
		}
		var got bytes.Buffer
		if _, err := s.ch.Run(s.ctx(), guest.Command{Script: "cat " + c.seen, Stdout: &got}); err != nil || !bytes.Equal(got.Bytes(), c.data) {
			s.Errorf("%s holds %d bytes, want %d (%v)", c.path, got.Len(), len(c.data), err)
		}
		if mode := s.sh("ls -ld " + c.seen); !strings.HasPrefix(mode, "-rw-r-----") {
			s.Errorf("%s has the mode %s", c.path, mode)
		}
	}
	s.holds("a\nb c\nit's\nempty\n$HOME")
}

// holds checks the names below the home folder, in the order of find.
func (s *suite) holds(want string) {
	s.Helper()
	got := s.sh(`cd && find . ! -name . | sed 's,.*/,,' | sort`)
	if got != s.sh("sort <<'END'\n"+want+"\nEND\n") {
		s.Errorf("the home folder holds:\n%s\nwant:\n%s", got, want)
	}
}

func testPutRefuses(s *suite) {
	s.sh("mkdir ~/folder && echo old >~/file")
	broken := errors.New("the disk of the caller is broken")
	for _, c := range []struct {
		path string
		from io.Reader
		want error
	}{
		{"", strings.NewReader("x"), nil},
		{"~/", strings.NewReader("x"), nil},
		{"~/folder", strings.NewReader("x"), nil},
		{"~/file/below", strings.NewReader("x"), nil},
		{"~/file", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), broken},
	} {
		err := guest.Put(s.ctx(), s.ch, c.path, 0o600, c.from)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			s.Errorf("Put(%q): %v, want an error (%v)", c.path, err, c.want)
		}
	}
	if got := s.sh("cat ~/file"); got != "old" {
		s.Errorf("a failed Put changed the file to %q", got)
	}
	s.holds("folder\nfile")
}

func testPutCut(s *suite) {
	s.needsCut()
	s.sh("echo old >~/file")
	var once sync.Once
	from := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), readerFunc(func(p []byte) (int, error) {
		once.Do(func() { s.h.Cut(s.T, s.ch) })
		return 0, io.EOF
	}))
	if err := guest.Put(s.ctx(), s.ch, "~/file", 0o600, from); err == nil {
		s.Error("Put over a connection that was cut half way succeeded")
	}
	s.ch = s.dial()
	if got := s.sh("cat ~/file"); got != "old" {
		s.Errorf("the file holds %d bytes of a half Put", len(got))
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
