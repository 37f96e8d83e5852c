package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds the configuration file and each file that it names, in bytes.
const maxFile = 1 << 20

// Load reads a configuration file, with the files that it names. If the file
// can be read and has mistakes, the error is Problems: all of them. Relative
// paths are from the file's folder.
func Load(path string) (*Config, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration %q: %w", path, err)
	}
	return Parse(path, data)
}

// LoadRegistry is Load for a machine that only serves a registry: the file needs
// no pools and no credential, and what it says of those is not looked into.
func LoadRegistry(path string) (*Config, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration %q: %w", path, err)
	}
	return parse(path, data, (*checker).registryServer)
}

// LoadRegistries is Load for those who only want to reach registries.
func LoadRegistries(path string) (*Config, error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration %q: %w", path, err)
	}
	return parse(path, data, func(k *checker) {
		k.host()
		k.registries()
	})
}

// Parse is Load for content that is at hand; path is what problems name and
// what relative paths start from.
func Parse(path string, data []byte) (*Config, error) { return parse(path, data, (*checker).all) }

func parse(path string, data []byte, check func(*checker)) (*Config, error) {
	c := Default()
	d := &decoder{file: path, at: positions{}}
	d.newPool = func() Pool { return Pool{Settings: c.Defaults.clone()} }
	c.file, c.at = path, d.at
	root := d.parse(data)
	if root == nil && len(d.problems) == 0 {
		d.fail(&token.Position{}, "the file says nothing", "at least one pool is needed: see examples/host.yaml")
	}
	if root != nil {
		ast.Walk(secretFinder{d}, root)
		d.value(root, reflect.ValueOf(&c).Elem(), "", "", 0)
		ck := &checker{d: d, c: &c, dir: filepath.Dir(path), unread: len(d.problems)}
		check(ck)
	}
	if len(d.problems) > 0 {
		return nil, d.problems.Sorted()
	}
	return &c, nil
}

// clone copies settings so that a pool can change its own.
func (s Settings) clone() Settings {
	s.Labels = slices.Clone(s.Labels)
	s.Network.Forwards = slices.Clone(s.Network.Forwards)
	s.Deadlines = maps.Clone(s.Deadlines)
	s.Env = maps.Clone(s.Env)
	s.Files = slices.Clone(s.Files)
	if s.ScaleSet != nil {
		own := *s.ScaleSet
		s.ScaleSet = &own
	}
	return s
}

// readSmall reads a regular file of bounded size. Its error names no path.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathless(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a file")
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes; at most %d are read", info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	return data, pathless(err)
}

// secretForm matches tokens of GitHub and private keys, which must not stand in the file.
// Source: docs.github.com, "About authentication to GitHub", token formats; those
// of Apps grew from 40 to some 520 characters, with underscores and dots in them.
var secretForm = regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9_.-]{20,}|github_pat_[A-Za-z0-9_]{20,})|-----BEGIN [A-Z ]*PRIVATE KEY`)

func looksSecret(s string) bool { return secretForm.MatchString(s) }

// secretFinder reports secrets wherever they stand in the file.
type secretFinder struct{ d *decoder }

func (f secretFinder) Visit(n ast.Node) ast.Visitor {
	if s, ok := scalarText(n); ok && looksSecret(s) {
		f.d.fail(valuePosition(n), "a secret stands in the configuration", "put it into a file of mode 0600 or the environment and name that; replace the secret, it has been seen")
	}
	return f
}

// place finds where the file says something: at the first of the paths that it
// has, else at its beginning.
func (p positions) place(value bool, paths ...string) *token.Position {
	for _, path := range paths {
		pl, ok := p[path]
		switch {
		case !ok:
		case value && pl.value.Line > 0:
			return &pl.value
		case pl.key.Line > 0:
			return &pl.key
		default:
			return &pl.value
		}
	}
	return &token.Position{Line: 1, Column: 1}
}
