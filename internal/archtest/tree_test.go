package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// house is the folder of go.mod, from here.
const house = "../.."

// source is one Go file of the main module.
type source struct {
	path    string // from the house
	pkg     string // folder from the house
	test    bool
	file    *ast.File
	imports []string
}

// walk calls f for every file of the house that is ours: no other module's, no
// test data, nothing hidden.
func walk(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(house, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(house, path)
		if err != nil {
			return err
		}
		if !d.IsDir() {
			f(filepath.ToSlash(rel))
			return nil
		}
		name := d.Name()
		if rel != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || slices.Contains([]string{"testdata", "bin", "dist", "node_modules"}, name)) {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses every Go file of the main module.
func sources(t *testing.T) []source {
	t.Helper()
	var others, files []string
	walk(t, func(path string) {
		switch {
		case path != "go.mod" && filepath.Base(path) == "go.mod":
			others = append(others, filepath.Dir(path))
		case strings.HasSuffix(path, ".go"):
			files = append(files, path)
		}
	})
	var out []source
	for _, path := range files {
		if slices.ContainsFunc(others, func(o string) bool { return within(path, o) }) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(house, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s := source{path: path, pkg: filepath.ToSlash(filepath.Dir(path)), test: strings.HasSuffix(path, "_test.go"), file: f}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
	}
	if len(out) < 50 {
		t.Fatalf("only %d Go files found below %s", len(out), house)
	}
	return out
}

// own returns the path below internal of an import of ours.
func own(imported string) (string, bool) {
	return strings.CutPrefix(imported, module+"/internal/")
}

func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		pkg, internal := strings.CutPrefix(s.pkg, "internal/")
		if l, _ := layerOf(pkg); internal && l == "" {
			t.Errorf("%s: package %q has no layer: place it in internal/archtest/table.go", s.path, pkg)
			continue
		}
		for _, imported := range s.imports {
			to, ours := own(imported)
			switch {
			case imported == "os/exec" && pkg != execUser:
				t.Errorf("%s: imports os/exec: run programs through internal/%s", s.path, execUser)
			case imported == "C" || imported == "unsafe":
				t.Errorf("%s: imports %q", s.path, imported)
			case isStandard(imported):
			case ours && internal:
				if why := forbidden(pkg, to); why != "" {
					t.Errorf("%s: imports %s: %s (internal/archtest/table.go)", s.path, to, why)
				}
			case ours && to != "cli":
				t.Errorf("%s: imports %s: a program imports cli alone", s.path, to)
			case !ours:
				checkThirdParty(t, s, pkg, imported)
			}
		}
	}
}

func checkThirdParty(t *testing.T, s source, pkg, imported string) {
	t.Helper()
	for mod, users := range thirdParty {
		if within(imported, mod) {
			if !slices.ContainsFunc(users, func(u string) bool { return within(pkg, u) }) {
				t.Errorf("%s: imports %s, which is for %s (internal/archtest/table.go)", s.path, imported, strings.Join(users, ", "))
			}
			return
		}
	}
	t.Errorf("%s: imports %s, which is in no table: add it to internal/archtest/table.go and docs/dependencies.md", s.path, imported)
}

// TestTheTableCatches proves that the checks can fail.
func TestTheTableCatches(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		ok       bool
	}{
		{"agent", "vm", true},
		{"agent", "vm/qemu", false},
		{"vm/qemu", "guest/ssh", false},
		{"vm/qemu", "vm", true},
		{"vm", "agent", false},
		{"daemon", "agent", true},
		{"daemon", "github", false},
		{"daemon", "config", false},
		{"emulator", "emulator/workflow/expr", true},
		{"cli", "vm/qemu", true},
		{"cli", "vm/vmtest", false},
		{"base/proc", "runner", false},
		{"image/transfer", "image/store", true},
		{"image/store", "image/transfer", false},
	} {
		if got := forbidden(tc.from, tc.to) == ""; got != tc.ok {
			t.Errorf("%s → %s: allowed %v, want %v", tc.from, tc.to, got, tc.ok)
		}
	}
}

func TestEveryExceptionIsNeeded(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			if to, ours := own(imported); ours && !s.test {
				used[strings.TrimPrefix(s.pkg, "internal/")+" → "+to] = true
			}
		}
	}
	for edge := range exceptions {
		if !used[edge] {
			t.Errorf("nobody needs the exception %q any more", edge)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	comments, seen := map[string]int{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		seen[s.pkg] = true
		if s.file.Doc != nil {
			comments[s.pkg]++
			text := s.file.Doc.Text()
			if want := "Package " + s.file.Name.Name + " "; s.file.Name.Name != "main" && !strings.HasPrefix(text, want) {
				t.Errorf("%s: the package comment does not begin with %q", s.path, want)
			}
		}
	}
	for pkg := range seen {
		if comments[pkg] != 1 {
			t.Errorf("%s: %d package comments, want one", pkg, comments[pkg])
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: has an init function: do it where it is needed", s.path)
			}
		}
	}
}

// TestEveryDependencyIsAccountedFor reads the direct dependencies from the
// imports, tests included: go.mod's marks may lag behind.
func TestEveryDependencyIsAccountedFor(t *testing.T) {
	mods := required(t)
	doc, err := os.ReadFile(filepath.Join(house, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			if isStandard(imported) || within(imported, module) {
				continue
			}
			best := ""
			for _, m := range mods {
				if within(imported, m) && len(m) > len(best) {
					best = m
				}
			}
			if best == "" {
				t.Errorf("%s: imports %s, which go.mod does not require", s.path, imported)
				continue
			}
			direct[best] = true
		}
	}
	for m := range direct {
		if !strings.Contains(string(doc), m) {
			t.Errorf("docs/dependencies.md has no line for %s: what it saves us, why this one", m)
		}
	}
}

// required returns the modules that go.mod requires.
func required(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(house, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var mods []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) >= 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") {
			mods = append(mods, fields[0])
		}
	}
	return mods
}
