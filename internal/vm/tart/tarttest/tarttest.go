// Package tarttest is a stand-in for the tart command: a test double, on any
// system, with the outputs, exit statuses, locks, signals and oddities that
// reference material documents of tart 2.3x. It was never compared with tart on
// a Mac.
//
// A *home* is the folder that TART_HOME names, laid out as tart's: vms/NAME
// with config.json, disk.img and nvram.bin, cache/OCIs, tmp. What the stand-in
// itself needs lies in stand-in/ and in stand-in.json of a machine. The process
// of "run" holds a write lock on config.json for as long as its machine has
// power; that lock is the truth about who runs, as with tart.
//
// A *back end* is what gives a machine its life: "process" (a folder and
// processes of this host, by vm/fake) or "qemu" (a real Linux guest, by
// vm/qemu). *Faults* switch on the troubles that tart is known for.
//
// The program says that it is a double in --version, --help, on stderr of a
// list for people, and in the first line that run prints.
package tarttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Version is what --version prints. Its number is the release of tart whose
// behaviour is played.
const Version = "2.35.0-tasuki-stand-in"

const banner = "tart stand-in: a test double of Tasuki, not tart"

// The roles that the program plays beside tart's commands, for itself.
const (
	roleReaper = "stand-in-reaper"
	roleRelay  = "stand-in-relay"
)

// trouble is an end with a status and words, as tart has them.
type trouble struct {
	code int
	text string
}

func (t trouble) Error() string { return t.text }

func fail(code int, format string, args ...any) error {
	return trouble{code, fmt.Sprintf(format, args...)}
}

func noVM(name string) error { return fail(2, "the specified VM %q does not exist", name) }

// usage is EX_USAGE, which tart's argument parser ends with.
func usage(format string, args ...any) error {
	return fail(64, "Error: "+format+"\nUsage: tart <subcommand>\n  See 'tart --help' for more information.", args...)
}

// tart is one call of the command.
type tart struct {
	home   string
	self   string
	faults Faults
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// command is one of tart's.
type command struct {
	run func(*tart, []string) error
	// keepsTmp: it does not collect the garbage of tmp first.
	keepsTmp bool
}

func commands() map[string]command {
	return map[string]command{
		"clone": {run: (*tart).clone, keepsTmp: true}, "pull": {run: (*tart).pull, keepsTmp: true},
		"set": {run: (*tart).set}, "run": {run: (*tart).run}, "ip": {run: (*tart).ip}, "exec": {run: (*tart).exec},
		"stop": {run: (*tart).stop}, "suspend": {run: (*tart).suspend}, "delete": {run: (*tart).delete},
		"list": {run: (*tart).list}, "get": {run: (*tart).get}, "push": {run: (*tart).push},
		"login": {run: (*tart).login}, "prune": {run: (*tart).prune}, "fqn": {run: (*tart).fqn},
	}
}

// Main plays tart with these arguments, on the process's own streams and
// environment, and returns the exit status.
func Main(args []string) int {
	t := &tart{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	err := t.main(args)
	var ended trouble
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		if ended.text != "" {
			fmt.Fprintln(t.stderr, ended.text)
		}
		return ended.code
	}
	fmt.Fprintln(t.stderr, "Error: "+err.Error())
	return 1
}

func (t *tart) main(args []string) error {
	if len(args) > 0 && args[0] == roleRelay {
		return relay(args[1])
	}
	if len(args) == 0 || slices.Contains([]string{"--help", "-h", "help"}, args[0]) {
		fmt.Fprintf(t.stdout, "OVERVIEW: %s\n\nUSAGE: tart <subcommand>\n", banner)
		return nil
	}
	if args[0] == "--version" {
		fmt.Fprintln(t.stdout, version())
		return nil
	}
	var err error
	if t.home, err = homeFolder(); err != nil {
		return err
	}
	if t.self, err = os.Executable(); err != nil {
		return err
	}
	if t.faults, err = readFaults(t.home); err != nil {
		return err
	}
	if args[0] == roleReaper {
		return t.reap(args[1])
	}
	cmd, ok := commands()[args[0]]
	if !ok {
		return usage("Unexpected argument '%s'", args[0])
	}
	t.note(args)
	t.hang(args[0])
	if !cmd.keepsTmp {
		t.collect()
	}
	return cmd.run(t, args[1:])
}

// version needs no home, and makes none.
func version() string {
	if f, err := readFaults(os.Getenv("TART_HOME")); err == nil && f.Version != "" {
		return f.Version
	}
	return Version
}

// note adds a call to those that Calls returns.
func (t *tart) note(args []string) {
	line, err := json.Marshal(args)
	if err != nil {
		return
	}
	f, err := os.OpenFile(t.own(callsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write(append(line, '\n'))
}

// hang lasts where a fault says so for as long as the home is there: whoever
// called must end us.
func (t *tart) hang(command string) {
	if !t.spend("hang-"+command, t.faults.Hang[command]) {
		return
	}
	for {
		time.Sleep(time.Second)
		if _, err := os.Stat(t.home); err != nil {
			os.Exit(1) // the test is over
		}
	}
}

// spend says whether a fault that is good for n calls has one left, and takes it.
func (t *tart) spend(what string, n int) bool {
	for i := range n {
		f, err := os.OpenFile(t.own(fmt.Sprintf("%s-%d", what, i+1)), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_ = f.Close()
			return true
		}
	}
	return false
}

// homeFolder returns TART_HOME, or tart's default, made with its folders.
func homeFolder() (string, error) {
	home := os.Getenv("TART_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		home = filepath.Join(user, ".tart")
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"vms", "cache/OCIs", "cache/IPSWs", "tmp", "stand-in"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			return "", fail(1, "TART_HOME is invalid: %v", err)
		}
	}
	return home, nil
}

// arguments are those of a command, parsed as tart's parser does: options may
// stand anywhere.
type arguments struct {
	words []string
	flags map[string][]string
}

func (a arguments) has(flag string) bool { _, ok := a.flags[flag]; return ok }

// last returns the value of an option, the last one if it was given often.
func (a arguments) last(flag, otherwise string) string {
	if all := a.flags[flag]; len(all) > 0 {
		return all[len(all)-1]
	}
	return otherwise
}

// parse reads arguments: options names those with a value by a trailing "=".
// most is how many words may stand there.
func parse(args []string, most int, options ...string) (arguments, error) {
	a := arguments{flags: map[string][]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			a.words = append(a.words, arg)
			continue
		}
		flag, value, joined := strings.Cut(arg, "=")
		switch {
		case slices.Contains(options, flag) && !joined:
			a.flags[flag] = append(a.flags[flag], "")
		case slices.Contains(options, flag+"="):
			if !joined {
				if i++; i == len(args) {
					return a, usage("Missing value for '%s'", arg)
				}
				value = args[i]
			}
			a.flags[flag] = append(a.flags[flag], value)
		default:
			return a, usage("Unknown option '%s'", arg)
		}
	}
	if len(a.words) > most {
		return a, usage("Unexpected argument '%s'", a.words[most])
	}
	return a, nil
}

// needs returns an error unless there are so many words.
func (a arguments) needs(n int, what string) error {
	if len(a.words) < n {
		return usage("Missing expected argument '<%s>'", what)
	}
	return nil
}
