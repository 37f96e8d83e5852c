package guest

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The scripts that run in guests: POSIX sh, for dash as for macOS's bash 3.2.
//
//go:embed script/*.sh
var scripts embed.FS

// text returns a script behind the common part. Scripts are embedded, so a
// missing one is a mistake of ours.
func text(name string) string {
	var b strings.Builder
	for _, file := range []string{"common", name} {
		part, err := scripts.ReadFile("script/" + file + ".sh")
		if err != nil {
			panic(err)
		}
		for line := range strings.Lines(string(part)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") { // less to send
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// Quote returns s as one word of a POSIX shell, whatever it holds.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// script is a script of ours with the variables that it reads.
func script(name string, vars map[string]string) string {
	var b strings.Builder
	for _, key := range sortedKeys(vars) {
		fmt.Fprintf(&b, "%s=%s\n", key, Quote(vars[key]))
	}
	return b.String() + text(name)
}

// call runs a short script and keeps its output.
func call(ctx context.Context, ch Channel, script string, stdin io.Reader) (status int, stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	status, err = ch.Run(ctx, Command{Script: script, Stdin: stdin, Stdout: &out, Stderr: &limited{to: &errs, left: 4 << 10}})
	return status, out.String(), strings.TrimSpace(errs.String()), err
}

// failed puts what a script said into an error.
func failed(status int, stderr string) error {
	if stderr == "" {
		return fmt.Errorf("the script in the guest ended with status %d", status)
	}
	return fmt.Errorf("%s (status %d)", stderr, status)
}

// limited writes the first bytes and swallows the rest.
type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if n > 0 {
		if _, err := l.to.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
