package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	linkForm    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)`)
	refForm     = regexp.MustCompile(`(?m)^\s*\[[^\]]+\]:\s+<?(\S+?)>?\s*$`)
	imageForm   = regexp.MustCompile(`<(?:img|a)[^>]+(?:src|href)="([^"]+)"`)
	headingForm = regexp.MustCompile(`^#{1,6}\s+(.+?)\s*#*\s*$`)
	anchorForm  = regexp.MustCompile(`<a\s+(?:id|name)="([^"]+)"`)
	inlineCode  = regexp.MustCompile("`[^`]*`")
	markup      = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// TestLinksLeadSomewhere follows every relative link of our documents to its
// file and, where it names one, to its heading.
func TestLinksLeadSomewhere(t *testing.T) {
	checked := 0
	walk(t, func(path string) {
		if !strings.HasSuffix(path, ".md") {
			return
		}
		text, err := os.ReadFile(filepath.Join(house, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range linksOf(string(text)) {
			checked++
			if err := follow(path, target); err != nil {
				t.Errorf("%s: link %q: %v", path, target, err)
			}
		}
	})
	if checked == 0 {
		t.Error("no link was found: the check checks nothing")
	}
}

// linksOf returns the targets within our own tree.
func linksOf(text string) []string {
	var prose strings.Builder
	for line := range outsideFences(text) {
		prose.WriteString(inlineCode.ReplaceAllString(line, "``") + "\n")
	}
	var out []string
	for _, form := range []*regexp.Regexp{linkForm, refForm, imageForm} {
		for _, m := range form.FindAllStringSubmatch(prose.String(), -1) {
			if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
				out = append(out, m[1])
			}
		}
	}
	return out
}

// outsideFences yields the lines that are not in code blocks.
func outsideFences(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		fence := ""
		for line := range strings.Lines(text) {
			trimmed := strings.TrimSpace(line)
			switch {
			case fence == "" && (strings.HasPrefix(trimmed, "```") || strings.HasPrefix(trimmed, "~~~")):
				fence = trimmed[:3]
			case fence != "" && strings.HasPrefix(trimmed, fence):
				fence = ""
			case fence == "" && !yield(strings.TrimRight(line, "\n")):
				return
			}
		}
	}
}

func follow(from, target string) error {
	file, anchor, _ := strings.Cut(target, "#")
	path := filepath.Join(house, filepath.Dir(from), filepath.FromSlash(file))
	if file == "" {
		path = filepath.Join(house, from)
	} else if strings.HasPrefix(file, "/") {
		path = filepath.Join(house, filepath.FromSlash(file))
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("there is no such file")
	}
	if anchor == "" || info.IsDir() || !strings.HasSuffix(path, ".md") {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !anchorsOf(string(text))[anchor] {
		return fmt.Errorf("there is no such heading in %s", filepath.Base(path))
	}
	return nil
}

// anchorsOf returns the anchors that GitHub gives to a document's headings.
func anchorsOf(text string) map[string]bool {
	out := map[string]bool{}
	for line := range outsideFences(text) {
		for _, m := range anchorForm.FindAllStringSubmatch(line, -1) {
			out[m[1]] = true
		}
		m := headingForm.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		slug := slugOf(m[1])
		name := slug
		for n := 1; out[name]; n++ {
			name = fmt.Sprintf("%s-%d", slug, n)
		}
		out[name] = true
	}
	return out
}

// slugOf makes an anchor of a heading as GitHub does: lower case, spaces to
// hyphens, letters, digits, hyphens and underscores kept.
func slugOf(heading string) string {
	heading = markup.ReplaceAllString(heading, "$1")
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestLinkChecksCanFail(t *testing.T) {
	text := "# A `b` c!\n[x](y.md#z) `[no](code)` <a href=\"q.md\">\n```\n[no](fence)\n```\n[r]: s.md\n## A b c\n[far](https://example.com)\n"
	got := strings.Join(linksOf(text), " ")
	if want := "y.md#z s.md q.md"; got != want {
		t.Errorf("links %q, want %q", got, want)
	}
	if a := anchorsOf(text); !a["a-b-c"] || !a["a-b-c-1"] {
		t.Errorf("anchors %v", a)
	}
	for _, target := range []string{"no-such-file.md", "../archtest/doc.go/x", "CHANGELOG.md#no-such-heading-at-all"} {
		if follow("README.md", target) == nil {
			t.Errorf("%q was found", target)
		}
	}
}
