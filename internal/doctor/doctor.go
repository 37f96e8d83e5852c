// Package doctor looks at one machine and says what would keep it from running
// guests, or will one day.
//
// A check asks the machine one question, through the Machine interface alone,
// and gives a Finding: how it stands, what was seen, why that matters and what
// mends it. Checks change nothing. The commands of a Finding are what `tasuki
// host setup` types.
//
// Where the rules come from: the manual pages of the programs that are asked,
// and for tart its documentation and the threads of those who met the trouble.
// The checks for macOS were written from documented and published output; they
// have not run on a Mac.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level says how a check stands.
type Level string

// The levels.
const (
	Well    Level = "ok"
	Warning Level = "warning" // guests run, and it will hurt one day
	Problem Level = "problem" // guests do not run, or jobs are not safe
	Unknown Level = "unknown" // the machine did not say
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"` // its name: "filevault"
	Level Level  `json:"level"`
	Seen  string `json:"seen"`           // what was found, for a person
	Why   string `json:"why,omitempty"`  // why it matters; empty when all is well
	Mend  string `json:"mend,omitempty"` // what to do, in words or as a command
	// Commands do what Mend says, where commands can; each is a program with its
	// arguments, sudo included.
	Commands [][]string `json:"commands,omitempty"`
}

// Host is what the checks must know of the agent that runs here, or shall.
type Host struct {
	OS   string // "darwin" or "linux"
	User string // who runs the agent
	UID  int
	Home string // of the agent
	// Drivers are those that pools use: "tart", "qemu".
	Drivers     []string
	Slots       int
	GuestMemory int64 // bytes that the guests of all slots take together
	Softnet     bool  // a pool isolates guests of tart
	Open        bool  // a pool of tart's isolates none
	Internet    bool  // a pool's QEMU guests reach the internet
	// Accel is how QEMU's guests run, as a trial boot showed, and AccelReason
	// why; empty: it was not tried.
	Accel, AccelReason string
	FreeFloor          int64 // bytes that shall stay free on the disk; 0: 20 GB
	// Secrets are the files that the configuration names for tokens, keys and
	// passwords.
	Secrets []string
}

func (h Host) uses(driver string) bool { return slices.Contains(h.Drivers, driver) }

// verdict is a Finding without what its check says of every one.
type verdict struct {
	level    Level
	seen     string
	mend     string
	commands [][]string
}

// check is one question.
type check struct {
	name string
	why  string
	when func(Host) bool // nil: always
	look func(context.Context, Machine, Host) verdict
}

// lookTimeout bounds one check: a program that waits for a person who is not
// there must not hang us.
const lookTimeout = 10 * time.Second

// Examine asks every question that concerns the host, one after the other, and
// returns a finding for each. It takes no longer than 10 s for each.
func Examine(ctx context.Context, m Machine, h Host) []Finding {
	if h.FreeFloor == 0 {
		h.FreeFloor = 20e9
	}
	var out []Finding
	for _, c := range checksFor(h) {
		if c.when != nil && !c.when(h) {
			continue
		}
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		v := c.look(look, m, h)
		cancel()
		f := Finding{Check: c.name, Level: v.level, Seen: v.seen}
		if v.level != Well {
			f.Why, f.Mend, f.Commands = c.why, v.mend, v.commands
			if f.Mend == "" {
				f.Mend = lines(v.commands)
			}
		}
		out = append(out, f)
	}
	return out
}

// Worst returns the worst level among findings; Unknown counts like Well.
func Worst(findings []Finding) Level {
	worst := Well
	for _, f := range findings {
		if f.Level == Problem || f.Level == Warning && worst != Problem {
			worst = f.Level
		}
	}
	return worst
}

func checksFor(h Host) []check {
	if h.OS == "darwin" {
		return slices.Concat(macChecks, macSessionChecks, macNetworkChecks, commonChecks)
	}
	return slices.Concat(linuxChecks, commonChecks)
}

func well(format string, args ...any) verdict {
	return verdict{level: Well, seen: fmt.Sprintf(format, args...)}
}

// bad is a verdict whose commands mend it.
func bad(level Level, seen string, commands ...[]string) verdict {
	return verdict{level: level, seen: seen, commands: commands}
}

// byHand is a verdict that a person mends.
func byHand(level Level, seen, mend string) verdict {
	return verdict{level: level, seen: seen, mend: mend}
}

// unasked is the verdict of a check whose program did not answer.
func unasked(program string, err error) verdict {
	if errors.Is(err, ErrMissing) {
		return verdict{level: Unknown, seen: program + " is not on this machine"}
	}
	return verdict{level: Unknown, seen: fmt.Sprintf("%s did not answer: %v", program, err)}
}

// odd is the verdict on an answer that we do not know.
func odd(program, text string) verdict {
	return verdict{level: Unknown, seen: fmt.Sprintf("%s says %q, which is not known here", program, clip(text))}
}

func clip(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if r := []rune(s); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return s
}

// sudo is a command as root.
func sudo(words ...string) []string { return append([]string{"sudo"}, words...) }

// lines writes commands as a person types them.
func lines(commands [][]string) string {
	var out []string
	for _, c := range commands {
		out = append(out, Line(c))
	}
	return strings.Join(out, "\n")
}

// Line writes one command as a shell takes it.
func Line(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$`*?[]{}()<>|&;#~!") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words[i] = w
	}
	return strings.Join(words, " ")
}

// gigabytes writes an amount of bytes as disks are sold.
func gigabytes(n int64) string { return fmt.Sprintf("%.0f GB", float64(n)/1e9) }
