package guesttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
)

func testLaunch(s *suite) {
	if _, err := guest.Follow(s.ctx(), s.ch, 0, &bytes.Buffer{}); !errors.Is(err, guest.ErrNotLaunched) {
		s.Errorf("Follow before: %v, want ErrNotLaunched", err)
	}
	s.launched(false)
	log, code := s.ran("echo out; echo err >&2; exit 7")
	if log != "out\nerr\n" || code != 7 {
		s.Errorf("log %q, status %d; want both lines and 7", log, code)
	}
	s.launched(true)
	if mode := s.sh("ls -ld ~/.tasuki/runner"); !strings.HasPrefix(mode, "drwx------") {
		s.Errorf("the folder of the supervisor has the mode %s", mode)
	}
}

func (s *suite) launched(want bool) {
	s.Helper()
	got, err := guest.Launched(s.ctx(), s.ch)
	if err != nil || got != want {
		s.Errorf("Launched: %v, %v; want %v", got, err, want)
	}
}

func testLaunchTwice(s *suite) {
	p := s.put(`echo "$WHO" >>~/starts; until [ -e ~/go ]; do sleep 0.05; done`)
	var wg sync.WaitGroup
	ctx := s.ctx()
	for i := range 4 {
		wg.Go(func() {
			mine := p
			mine.Env = map[string]string{"WHO": fmt.Sprint(i)}
			if err := guest.Launch(ctx, s.ch, mine); err != nil {
				s.Errorf("launch %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	s.pid("program")
	s.launch(p)
	s.sh("touch ~/go")
	s.follow(s.ch, 0)
	s.launch(p) // of one that ended: nothing
	if starts := strings.Fields(s.sh("cat ~/starts")); len(starts) != 1 {
		s.Errorf("it was started by %q, want one", starts)
	}
}

func testLaunchMissing(s *suite) {
	for _, kind := range []string{"act", "official", guest.RunnerCommand} {
		err := guest.Launch(s.ctx(), s.ch, guest.Program{Dir: "~/no such", Kind: kind})
		if err == nil || !strings.Contains(err.Error(), "/no such/") {
			s.Errorf("kind %q: %v, want the missing path", kind, err)
		}
	}
	s.launched(false)
	bad := s.put("")
	for _, env := range []map[string]string{{"A B": "x"}, {"": "x"}, {"A": "x\x00y"}, {"A=B": "x"}, {"A": strings.Repeat("x", 200<<10)}} {
		bad.Env = env
		if err := guest.Launch(s.ctx(), s.ch, bad); err == nil {
			s.Errorf("an environment with %.20q was taken", env)
		}
	}
	s.launched(false)
}

func testLive(s *suite) {
	s.launch(s.put(`echo one; until [ -e ~/go ]; do sleep 0.05; done; printf two`))
	lines := make(chan string, 10)
	to := guest.NewLines(func(line string) { lines <- line })
	var exit guest.Exit
	var err error
	ended := make(chan struct{})
	ctx := s.ctx()
	go func() {
		defer close(ended)
		exit, err = guest.Follow(ctx, s.ch, 0, to)
	}()
	select {
	case line := <-lines: // before the program may go on
		if line != "one" {
			s.Errorf("first line %q", line)
		}
	case <-ended:
		s.Fatalf("Follow ended with %+v, %v", exit, err)
	}
	s.sh("touch ~/go")
	<-ended
	to.Flush()
	if err != nil || exit != (guest.Exit{Ended: true}) {
		s.Errorf("Follow: %+v, %v", exit, err)
	}
	if line := <-lines; line != "two" {
		s.Errorf("last line %q", line)
	}
}

func testFollowEnded(s *suite) {
	log, _ := s.ran("echo 0123456789; exit 2")
	for _, c := range []struct {
		offset int64
		want   string
	}{{0, log}, {4, log[4:]}, {int64(len(log)), ""}, {int64(len(log)) + 5, ""}} {
		got, code := s.follow(s.dial(), c.offset)
		if got != c.want || code != 2 {
			s.Errorf("from %d: %q, status %d; want %q and 2", c.offset, got, code, c.want)
		}
	}
	if err := s.failingWriter(); err == nil || !strings.Contains(err.Error(), "full") {
		s.Errorf("Follow to a writer that fails: %v", err)
	}
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("the caller's disk is full") }

func (s *suite) failingWriter() error {
	_, err := guest.Follow(s.ctx(), s.ch, 0, fullWriter{})
	return err
}

func testResume(s *suite) {
	const lines = 3000
	s.launch(s.put(`i=0; while [ $i -lt ` + fmt.Sprint(lines) + ` ]; do i=$((i+1)); echo "line $i of a log"; [ $((i % 20)) -gt 0 ] || sleep 0.01; done; exit 5`))
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d of a log\n", i+1)
	}
	var got bytes.Buffer
	interrupted := 0
	for {
		ch := s.dial()
		ctx, cancel := context.WithCancelCause(s.ctx())
		start, most := got.Len(), 1+interrupted*interrupted*37
		dropped := errors.New("dropped by the test")
		exit, err := guest.Follow(ctx, ch, int64(got.Len()), onWrite(func(p []byte) {
			got.Write(p)
			if got.Len()-start < most || interrupted > 20 {
				return
			}
			if s.h.Cut != nil && interrupted%2 == 0 {
				s.h.Cut(s.T, ch)
			} else {
				cancel(dropped)
			}
		}))
		cancel(nil)
		_ = ch.Close()
		if err == nil {
			if exit != (guest.Exit{Ended: true, Code: 5}) {
				s.Errorf("it ended as %+v", exit)
			}
			break
		}
		if !errors.Is(err, guest.ErrUnreachable) && !errors.Is(err, dropped) {
			s.Fatal(err)
		}
		interrupted++
	}
	if interrupted < 3 {
		s.Errorf("only %d interruptions", interrupted)
	}
	if got.String() != want.String() {
		s.Errorf("the log of %d bytes came as %d bytes after %d interruptions", want.Len(), got.Len(), interrupted)
	}
}

func testBigLog(s *suite) {
	const size = 10 << 20
	s.launch(s.put(`i=0; while [ $i -lt 10 ]; do i=$((i+1)); head -c 1048576 /dev/zero | tr '\0' "$i"; done`))
	log, code := s.follow(s.ch, 0)
	if len(log) != size || code != 0 || strings.Count(log, "1") != 2<<20 {
		s.Errorf("%d bytes and status %d, want %d", len(log), code, size)
	}
}

func testDaemon(s *suite) {
	log, code := s.ran("echo begun\nsleep 600 &\necho $! >~/daemon\nexit 4")
	s.sh("kill $(cat ~/daemon)")
	if log != "begun\n" || code != 4 {
		s.Errorf("log %q, status %d", log, code)
	}
}

func testEnvQuoting(s *suite) {
	values := map[string]string{
		"SPACES":  "  two  words  ",
		"QUOTES":  `it's "quoted" 'twice' \ back\slash`,
		"LINES":   "one\ntwo\n\n",
		"DOLLARS": "$HOME ${HOME} $(id) `id` $$ !!",
		"EMPTY":   "",
		"GLOB":    "* ? [a-z] ~ {a,b} #no comment",
		"UTF":     "é 日本 \x81\x82\x88\xff",
		"CONTROL": "\t\r\x01\x1b\x7f",
		"PROXY":   "http://user:p%40ss@proxy:3128/?a=b&c=d;e",
		"state":   "names of our scripts",
		"env":     "too",
	}
	p := s.put(`for v in SPACES QUOTES LINES DOLLARS EMPTY GLOB UTF CONTROL PROXY state env; do eval "printf '%s=%s|' $v \"\$$v\""; done`)
	var want strings.Builder
	p.Env, p.Secrets = map[string]string{}, map[string]secret.String{}
	for i, name := range []string{"SPACES", "QUOTES", "LINES", "DOLLARS", "EMPTY", "GLOB", "UTF", "CONTROL", "PROXY", "state", "env"} {
		if i%2 == 0 {
			p.Env[name] = values[name]
		} else {
			p.Secrets[name] = secret.New(values[name])
		}
		fmt.Fprintf(&want, "%s=%s|", name, values[name])
	}
	s.launch(p)
	if log, _ := s.follow(s.ch, 0); log != want.String() {
		s.Errorf("the program saw\n%q\nwant\n%q", log, want.String())
	}
}

func testLongToken(s *suite) {
	p := s.put(`printf %s "$ACTIONS_RUNNER_INPUT_JITCONFIG"; printf %s "$BIG" | wc -c`)
	jit := strings.Repeat("eyJhbGciOi+/=", 800) // 10 KB
	p.Secrets = map[string]secret.String{
		"ACTIONS_RUNNER_INPUT_JITCONFIG": secret.New(jit),
		"BIG":                            secret.New(strings.Repeat("'", 100<<10)),
	}
	s.launch(p)
	log, code := s.follow(s.ch, 0)
	got, size, _ := strings.Cut(log, "=")
	if code != 0 || !strings.HasPrefix(log, jit) || strings.TrimSpace(log[len(jit):]) != fmt.Sprint(100<<10) {
		s.Errorf("status %d, %d bytes of %d came (%.20q, %.20q)", code, len(log), len(jit), got, size)
	}
}

func testSecretsHidden(s *suite) {
	const word = "hunter2-in-the-guest"
	p := s.put(`until [ -e ~/go ]; do sleep 0.05; done`)
	p.Secrets = map[string]secret.String{"TOKEN": secret.New(word)}
	s.launch(p)
	s.pid("program")
	// The pattern does not match the words of this script itself.
	look := `grep -rlE 'hunter2[-]in-the-guest' ~ || true
for f in /proc/[0-9]*/cmdline; do tr '\0' ' ' <"$f" 2>/dev/null | grep -qE 'hunter2[-]in-the-guest' && echo "$f"; done; true`
	if found := s.sh(look); found != "" {
		s.Errorf("the secret is in %s", found)
	}
	// The supervisor stays for the whole job, which may read its environment.
	env := "/proc/" + s.pid("supervisor") + "/environ"
	if found := s.sh(`if [ -r ` + env + ` ]; then tr '\0' '\n' <` + env + ` | grep -E 'hunter2[-]in' || true; fi`); found != "" {
		s.Errorf("the supervisor's environment holds %s", found)
	}
	s.sh("touch ~/go")
	s.follow(s.ch, 0)
}

func testSurroundings(s *suite) {
	mask := s.sh("umask")
	log, code := s.ran(`pwd; umask; [ -t 0 ] || cat; ls -l /proc/$$/fd 2>/dev/null | grep -c /alive; kill -INT $$; echo "SIGINT is ignored"`)
	lines := strings.Split(log, "\n")
	if len(lines) < 3 || lines[0] != s.sh("cd && pwd") || lines[1] != mask {
		s.Errorf("folder and umask: %q, want the home and %s", lines, mask)
	}
	if lines[2] != "0" {
		s.Errorf("it holds the supervisor's FIFO open %s times, want 0: its daemons would hold it too", lines[2])
	}
	if code != 130 {
		s.Errorf("status %d after SIGINT, want 130: the steps of a job inherit what is ignored\n%s", code, log)
	}
}

func testProgramKilled(s *suite) {
	s.launch(s.put("echo up; exec sleep 600"))
	s.sh("kill -9 " + s.pid("program"))
	if log, code := s.follow(s.ch, 0); log != "up\n" && log != "" || code != 137 {
		s.Errorf("log %q, status %d; want 137", log, code)
	}
}

func testSupervisorKilled(s *suite) {
	s.launch(s.put(`until [ -e ~/go ]; do sleep 0.05; done; echo done; exit 3`))
	s.pid("program")
	s.sh("kill -9 " + s.pid("supervisor"))
	s.launch(guest.Program{Dir: "~/runner", Kind: guest.RunnerCommand}) // still claimed
	if err := guest.Reset(s.ctx(), s.ch); !errors.Is(err, guest.ErrRunning) {
		s.Errorf("Reset: %v, want ErrRunning", err)
	}
	s.sh("touch ~/go")
	if log, code := s.follow(s.ch, 0); log != "done\n" || code != -1 {
		s.Errorf("log %q, status %d; want the last line and -1", log, code)
	}
}

func testAllKilled(s *suite) {
	s.launch(s.put("echo up; exec sleep 600"))
	program := s.pid("program")
	up := make(chan struct{})
	once := sync.OnceFunc(func() { close(up) })
	var exit guest.Exit
	var err error
	ended := make(chan struct{})
	ctx := s.ctx()
	go func() {
		defer close(ended)
		exit, err = guest.Follow(ctx, s.ch, 0, onWrite(func([]byte) { once() }))
	}()
	<-up
	s.sh("kill -9 " + s.pid("supervisor") + " " + program)
	<-ended
	if err != nil || exit != (guest.Exit{Ended: true, Code: -1}) {
		s.Errorf("Follow: %+v, %v; want -1", exit, err)
	}
	if err := guest.Reset(s.ctx(), s.ch); err != nil {
		s.Error(err)
	}
}

func testReset(s *suite) {
	if err := guest.Reset(s.ctx(), s.ch); err != nil {
		s.Errorf("Reset of nothing: %v", err)
	}
	if err := guest.Stop(s.ctx(), s.ch); err != nil {
		s.Errorf("Stop of nothing: %v", err)
	}
	s.launch(s.put("echo first; exec sleep 600"))
	s.pid("program")
	if err := guest.Reset(s.ctx(), s.ch); !errors.Is(err, guest.ErrRunning) {
		s.Errorf("Reset: %v, want ErrRunning", err)
	}
	if err := guest.Stop(s.ctx(), s.ch); err != nil {
		s.Fatal(err)
	}
	if _, code := s.follow(s.ch, 0); code != 143 {
		s.Errorf("status %d after Stop, want 143", code)
	}
	if err := guest.Reset(s.ctx(), s.ch); err != nil {
		s.Fatal(err)
	}
	s.launched(false)
	if log, code := s.ran("echo second; exit 1"); log != "second\n" || code != 1 {
		s.Errorf("log %q, status %d of the second program", log, code)
	}

	if err := guest.Reset(s.ctx(), s.ch); err != nil {
		s.Fatal(err)
	}
	s.launch(s.put("trap '' TERM; echo stubborn; while :; do sleep 0.1; done"))
	for s.sh("cat ~/.tasuki/runner/log") == "" {
	}
	if err := guest.Stop(s.ctx(), s.ch); err != nil {
		s.Fatal(err)
	}
	if _, code := s.follow(s.ch, 0); code != 137 {
		s.Errorf("status %d after Stop of a stubborn program, want 137", code)
	}
}
