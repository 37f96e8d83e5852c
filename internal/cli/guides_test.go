package cli

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/config/recipefile"
)

// checkCall parses a call as the command line would, and runs nothing.
func checkCall(words []string) error {
	root := newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return errors.New("there is no command " + rest[0] + " in " + cmd.CommandPath())
	}
	if err := cmd.ParseFlags(rest); err != nil || cmd.Args == nil {
		return err
	}
	return cmd.Args(cmd, cmd.Flags().Args())
}

// checkMention is checkCall for what stands in a sentence, where arguments may
// be left out.
func checkMention(words []string) error {
	root := newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	for _, w := range rest {
		if name, _, _ := strings.Cut(strings.TrimPrefix(w, "--"), "="); strings.HasPrefix(w, "--") && name != "help" &&
			cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
			return errors.New(cmd.CommandPath() + " has no flag --" + name)
		}
	}
	if cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return errors.New("there is no command " + rest[0] + " in " + cmd.CommandPath())
	}
	return nil
}

// guides yields what people read: our documents, by their paths from the root.
// The references are made from the code, and the change log speaks of the past.
func guides(t *testing.T) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		var files []string
		for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "recipes/*.md", "deploy/*/*.md"} {
			found, err := filepath.Glob(filepath.Join("../..", pattern))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, found...)
		}
		for _, file := range files {
			if filepath.Base(file) == "CHANGELOG.md" {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(strings.TrimPrefix(file, "../../"), string(text)) {
				return
			}
		}
	}
}

// blocks yields the code blocks of a document that are in a language.
func blocks(text, language string) iter.Seq[string] {
	return func(yield func(string) bool) {
		var block strings.Builder
		indent, inside, ours := "", false, false
		for line := range strings.Lines(text) {
			fence, found := strings.CutPrefix(strings.TrimSpace(line), "```")
			switch {
			case found && !inside:
				indent, _, _ = strings.Cut(line, "`")
				inside, ours = true, fence == language
				block.Reset()
			case found:
				inside = false
				if ours && !yield(block.String()) {
					return
				}
			case inside:
				block.WriteString(strings.TrimPrefix(line, indent))
			}
		}
	}
}

// TestGuidesCallWhatThereIs parses each command of ours that a guide tells
// people to type, with its flags and the number of its arguments, and runs
// none. What such a block names of our own tree must be there.
func TestGuidesCallWhatThereIs(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for file, text := range guides(t) {
		for block := range blocks(text, "sh") {
			for words := range shellCalls(block) {
				if slices.Contains([]string{"tasuki", "bin/tasuki"}, words[0]) {
					calls[file]++
					if err := checkCall(words[1:]); err != nil {
						t.Errorf("%s: %s: %v", file, strings.Join(words, " "), err)
					}
				}
				if target := words[len(words)-1]; words[0] == "make" && !strings.Contains(string(makefile), "\n"+target+": ") {
					t.Errorf("%s: %s: the Makefile has no such target", file, strings.Join(words, " "))
				}
				for _, w := range words {
					if err := inTheTree(w); err != nil {
						t.Errorf("%s: %s: %v", file, strings.Join(words, " "), err)
					}
				}
			}
		}
	}
	for file, least := range map[string]int{"docs/host.md": 10, "docs/registry.md": 20, "docs/guest.md": 2, "docs/monitoring.md": 5, "README.md": 2} {
		if calls[file] < least {
			t.Errorf("%s: %d commands of ours were found: the check checks too little", file, calls[file])
		}
	}
}

// inTheTree says whether a word that looks like a file of ours is one.
func inTheTree(word string) error {
	word = strings.TrimPrefix(word, "./")
	top, _, isPath := strings.Cut(word, "/")
	if !isPath || !slices.Contains([]string{"deploy", "examples", "recipes", "scripts", "internal", "tools"}, top) || strings.HasSuffix(word, "/...") {
		return nil
	}
	_, err := os.Stat(filepath.Join("../..", word))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no " + word)
	}
	return err
}

var inlineCode = regexp.MustCompile("`((?:sudo )?tasuki [^`]+)`")

// TestGuidesMentionWhatThereIs looks at the commands in sentences and tables.
// Flags that are spoken of alone belong to some command.
func TestGuidesMentionWhatThereIs(t *testing.T) {
	n, known := 0, reference(newRoot(&app{}))
	for file, text := range guides(t) {
		for _, m := range inlineCode.FindAllStringSubmatch(withoutBlocks(text), -1) {
			for words := range shellCalls(m[1]) {
				if n++; words[0] == "tasuki" && len(words) > 1 && !strings.Contains(words[1], "…") {
					if err := checkMention(words[1:]); err != nil {
						t.Errorf("%s: `%s`: %v", file, m[1], err)
					}
				}
			}
		}
		// Other pages speak of the flags of other programs as well.
		for _, m := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(withoutBlocks(text), -1) {
			if slices.Contains([]string{"docs/registry.md", "docs/emulator.md"}, file) && !strings.Contains(known, "`"+m[1]) {
				t.Errorf("%s: no command has the flag %s", file, m[1])
			}
		}
	}
	if n < 60 {
		t.Errorf("%d mentions were found: the check checks too little", n)
	}
}

func withoutBlocks(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inside = !inside
		} else if !inside {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestExamplesOfCommandsAreWell parses what --help shows, and what the comments
// of shipped files tell people to type.
func TestExamplesOfCommandsAreWell(t *testing.T) {
	n := 0
	check := func(where, text string) {
		for words := range shellCalls(text) {
			if words[0] != "tasuki" {
				continue
			}
			n++
			if err := checkCall(words[1:]); err != nil {
				t.Errorf("%s: %s: %v", where, strings.Join(words, " "), err)
			}
			for _, w := range words {
				if err := inTheTree(w); err != nil {
					t.Errorf("%s: %s: %v", where, strings.Join(words, " "), err)
				}
			}
		}
	}
	for _, cmd := range allCommands(newRoot(&app{})) {
		check(cmd.CommandPath(), cmd.Example)
	}
	var files []string
	for _, pattern := range []string{"examples/*.yaml", "recipes/*.yaml", "recipes/*/*.hcl", "deploy/*/*"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	comment := regexp.MustCompile(`(?m)^\s*#\s+(?:.*: )?(tasuki (?:[^\n\\]|\\\n\s*#)*)`)
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range comment.FindAllStringSubmatch(string(text), -1) {
			check(file, regexp.MustCompile(`\\\n\s*#`).ReplaceAllString(strings.TrimSuffix(m[1], "."), " "))
		}
	}
	if n < 20 {
		t.Errorf("%d examples were found: the check checks too little", n)
	}
}

// TestGuidesConfigureWhatThereIs decodes each piece of configuration and each
// recipe of a guide. A piece may leave out what a whole file must say.
func TestGuidesConfigureWhatThereIs(t *testing.T) {
	n := 0
	for file, text := range guides(t) {
		for block := range blocks(text, "yaml") {
			var err error
			switch {
			case regexp.MustCompile(`(?m)^(host|github|pools|defaults|registries|registry|metrics):`).MatchString(block):
				_, err = config.Parse(filepath.Join(t.TempDir(), "config.yaml"), []byte(block))
			case regexp.MustCompile(`(?m)^(from|steps|name: .*\n(os|arch|from)):`).MatchString(block):
				_, err = recipefile.Parse(filepath.Join(t.TempDir(), "recipe.yaml"), []byte(block))
			default:
				continue
			}
			n++
			all, ok := errors.AsType[problem.List](err)
			if err != nil && !ok {
				t.Errorf("%s: %v", file, err)
			}
			for _, p := range all {
				if strings.HasPrefix(p.What, "unknown key") || strings.Contains(p.What, " is not a") || strings.Contains(p.What, "there is no") {
					t.Errorf("%s: %v in:\n%s", file, p, block)
				}
			}
		}
	}
	if n < 8 {
		t.Errorf("%d pieces were found: the check checks too little", n)
	}
}

// shellCalls yields the words of each simple command of a shell text, without
// what runs another command (sudo, env) and without redirections. It knows
// quotes, comments, continued lines and the signs between commands, and yields
// what stands in $( ) as a command of its own; more no guide needs.
func shellCalls(text string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for _, words := range new(shellReader).read(text) {
			if words = withoutWrappers(words); len(words) > 0 && !yield(words) {
				return
			}
		}
	}
}

// shellReader takes a text apart; its fields are what was read so far.
type shellReader struct {
	calls  [][]string
	words  []string
	word   strings.Builder
	begun  bool // the word has begun, if only with quotes
	ignore int  // so many words belong to a redirection
}

func (s *shellReader) read(text string) [][]string {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\'' || c == '"':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				end = len(text) - i - 1
			}
			s.word.WriteString(text[i+1 : i+1+end])
			s.begun, i = true, i+end+1
		case strings.HasPrefix(text[i:], "$("):
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				end = len(text) - i
			}
			s.calls = append(s.calls, new(shellReader).read(text[i+2:i+end])...)
			s.word.WriteString("$()")
			s.begun, i = true, i+end
		case c == '#' && !s.begun:
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end - 1
			} else {
				i = len(text)
			}
		case c == ' ' || c == '\t':
			s.endWord()
		case c == '<' || c == '>':
			if s.word.Len() > 0 && strings.Trim(s.word.String(), "0123456789") == "" {
				s.word.Reset() // 2>
				s.begun = false
			}
			s.endWord()
			for i+1 < len(text) && strings.IndexByte("<>&", text[i+1]) >= 0 {
				i++
			}
			s.ignore = 1
		case strings.IndexByte("\n|&;()", c) >= 0:
			s.endCall()
		default:
			s.word.WriteByte(c)
			s.begun = true
		}
	}
	s.endCall()
	return s.calls
}

func (s *shellReader) endWord() {
	switch {
	case s.begun && s.ignore > 0:
		s.ignore--
	case s.begun:
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.begun = false
}

func (s *shellReader) endCall() {
	s.endWord()
	if len(s.words) > 0 {
		s.calls = append(s.calls, s.words)
	}
	s.words, s.ignore = nil, 0
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

func withoutWrappers(words []string) []string {
	for len(words) > 0 {
		switch w := words[0]; {
		case assignment.MatchString(w), slices.Contains([]string{"env", "nohup", "exec", "time", "if", "then", "else", "do", "while", "!", "$"}, w):
			words = words[1:]
		case w == "sudo":
			words = words[1:]
			for len(words) > 0 && strings.HasPrefix(words[0], "-") {
				n := 1
				if words[0] == "-u" || words[0] == "-g" {
					n = 2
				}
				words = words[min(n, len(words)):]
			}
		default:
			return words
		}
	}
	return nil
}

func TestChecksOfGuidesCanFail(t *testing.T) {
	const text = "x\n```sh\n# tasuki no\nsudo -u tasuki A=1 tasuki status --watch | jq . && make demo # tasuki no\n" +
		"tasuki run \"$(tasuki image ls -q)\" 'a b' \\\n  --flag 2>err <in\n```\n```\ntasuki no\n```\n"
	var got [][]string
	for block := range blocks(text, "sh") {
		got = slices.AppendSeq(got, shellCalls(block))
	}
	want := [][]string{
		{"tasuki", "status", "--watch"}, {"jq", "."}, {"make", "demo"},
		{"tasuki", "run", "$(tasuki image ls -q)", "a b", "--flag"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands, - want, + got:\n%s", diff)
	}
	for _, bad := range []string{"registry serv", "status --no-such-flag", "image tag one", "drain --wait=soon"} {
		if checkCall(strings.Fields(bad)) == nil {
			t.Errorf("tasuki %s is taken for well", bad)
		}
	}
	for _, bad := range []string{"regstry", "registry serv", "status --no-such-flag"} {
		if checkMention(strings.Fields(bad)) == nil {
			t.Errorf("tasuki %s is taken for well", bad)
		}
	}
	if inTheTree("deploy/registry/no-such.service") == nil {
		t.Error("a file that is not there is found")
	}
}
