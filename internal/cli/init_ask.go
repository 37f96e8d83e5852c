package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/image"
)

// mostTries is how often a question is asked until the person may look things up.
const mostTries = 5

// asker asks a person.
type asker struct {
	in  *bufio.Reader
	out io.Writer
}

func newAsker(in io.Reader, out io.Writer) *asker { return &asker{bufio.NewReader(in), out} }

// terminalIn says whether r is a terminal.
func terminalIn(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// text asks for a text until check has nothing against it. An empty answer is
// the default.
func (k *asker) text(question, def string, check func(string) error) (string, error) {
	for range mostTries {
		if fmt.Fprint(k.out, question); def != "" {
			fmt.Fprintf(k.out, " [%s]", def)
		}
		fmt.Fprint(k.out, ": ")
		line, err := k.in.ReadString('\n')
		answer := strings.TrimSpace(line)
		if err != nil && answer == "" {
			return "", errors.New("there was no answer")
		}
		if answer == "" {
			answer = def
		}
		if err := check(answer); err == nil {
			return answer, nil
		} else {
			fmt.Fprintf(k.out, "  %v\n", err)
		}
	}
	return "", fmt.Errorf("no answer would do: %s", question)
}

// choice asks for one of several, the first of which is the default, and returns
// its index.
func (k *asker) choice(question string, options []string) (int, error) {
	fmt.Fprintln(k.out, question)
	for i, o := range options {
		fmt.Fprintf(k.out, "  %d  %s\n", i+1, o)
	}
	chosen := -1
	_, err := k.text("Which", "1", func(s string) error {
		if _, err := fmt.Sscanf(s, "%d", &chosen); err != nil || chosen < 1 || chosen > len(options) {
			return fmt.Errorf("write a number from 1 to %d", len(options))
		}
		return nil
	})
	return chosen - 1, err
}

func something(s string) error {
	if s == "" {
		return errors.New("it cannot be empty")
	}
	return nil
}

// ask asks for what the flags did not say.
func (f *initFlags) ask(k *asker) error {
	var err error
	if f.scope == "" {
		f.scope, err = k.text("Where shall the runners register? An organisation, owner/repository, or its address", "", func(s string) error {
			trial := initAnswers{scope: s}
			if err := trial.fromAddress(); err != nil {
				return err
			}
			return github.CheckScope(trial.scope)
		})
		if err == nil {
			err = f.fromAddress()
		}
	}
	if err == nil && f.credentials() == 0 {
		err = f.askCredential(k)
	}
	if err == nil && f.image == "" {
		f.image, err = k.text("The guests' image, as host/name:tag (docs/guest.md says how to get one)", "", func(s string) error {
			if f.driver == "fake" {
				return something(s)
			}
			_, err := image.Parse(s)
			return err
		})
	}
	if err == nil && len(f.labels) == 0 {
		var labels string
		labels, err = k.text("Labels of your own, with commas between (none: only self-hosted, the system and the architecture)", "", func(string) error { return nil })
		for l := range strings.SplitSeq(labels, ",") {
			if l = strings.TrimSpace(l); l != "" {
				f.labels = append(f.labels, l)
			}
		}
	}
	return err
}

// proofs are the ways to prove oneself to GitHub.
var proofs = []struct {
	text  string
	apps  bool // a GitHub App, of which none manages an enterprise's runners
	plain bool // only for an emulator, over plain HTTP
	ask   func(*initFlags, *asker) error
}{
	{"a GitHub App, made now in your browser", true, false, func(f *initFlags, _ *asker) error {
		f.newApp = true
		return nil
	}},
	{"a GitHub App that there is: its id and its key", true, false, func(f *initFlags, k *asker) (err error) {
		if f.appID, err = k.text("The App's client id", "", something); err == nil {
			f.appKey, err = k.text("The file with its private key (mode 0600)", "", readableFile)
		}
		return err
	}},
	{"a token in a file", false, false, func(f *initFlags, k *asker) (err error) {
		f.tokenFile, err = k.text("The file with the token (mode 0600)", "", readableFile)
		return err
	}},
	{"a token in an environment variable", false, false, func(f *initFlags, k *asker) (err error) {
		f.tokenEnv, err = k.text("The variable's name", "GITHUB_TOKEN", something)
		return err
	}},
	{"a token that a command prints, such as gh auth token", false, false, func(f *initFlags, k *asker) (err error) {
		f.tokenCommand, err = k.text("The command", "gh auth token", something)
		return err
	}},
	{"not at all: it is an emulator that asks for nothing", false, true, func(*initFlags, *asker) error { return nil }},
}

func (f *initFlags) askCredential(k *asker) error {
	enterprise, plain := strings.HasPrefix(f.scope, "enterprises/"), strings.HasPrefix(f.url, "http://")
	var options []string
	var asks []func(*initFlags, *asker) error
	for _, p := range proofs {
		if p.apps && enterprise || p.plain && !plain {
			continue
		}
		options, asks = append(options, p.text), append(asks, p.ask)
	}
	chosen, err := k.choice("How shall this machine prove itself to GitHub? "+github.Needs(f.scope), options)
	if err != nil {
		return err
	}
	return asks[chosen](f, k)
}

func readableFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others can read it; run chmod 600 %s", path)
	}
	return nil
}
