package recipe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

// link is one step of a build with its key.
type link struct {
	step Step
	key  string
}

// form changes when equal recipes shall no longer count as equal, because we
// do something else with them.
const form = "tasuki recipe 1"

// chainKey is the key of what comes after a key: all of content.
func chainKey(before string, content any) (string, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", form, before, data))
	return hex.EncodeToString(sum[:]), nil
}

// content is all that a step depends on.
type content struct {
	Name, Script, User string
	Root, Restart      bool
	Env                map[string]string
	Secrets            []string
	Copies             []copied
	Runner             *Runner // without its archive's URL, which its checksum says better
}

type copied struct {
	To, Mode, Digest string
}

// links gives each step its key. base is the key of what they begin with.
func (r *Recipe) links(ctx context.Context, base string) ([]link, error) {
	var out []link
	key := base
	for _, s := range r.Steps {
		c := content{
			Name: s.Name, Script: s.Script, User: r.User, Root: s.Root, Restart: s.Restart,
			Env: r.env(s), Secrets: s.Secrets,
		}
		if s.Runner != nil {
			c.Runner = new(*s.Runner)
			c.Runner.Archive.URL = ""
		}
		for _, f := range s.Copies {
			digest, err := fileDigest(ctx, f.From)
			if err != nil {
				return nil, fmt.Errorf("cannot read a file of step %q: %w", s.Name, err)
			}
			c.Copies = append(c.Copies, copied{f.To, f.Mode.String(), digest})
		}
		var err error
		if key, err = chainKey(key, c); err != nil {
			return nil, fmt.Errorf("cannot tell what step %q depends on: %w", s.Name, err)
		}
		out = append(out, link{s, key})
	}
	return out, nil
}

var word = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// env is the environment of a step: the recipe's, the variables that the step
// mentions, its own.
func (r *Recipe) env(s Step) map[string]string {
	env := map[string]string{}
	maps.Copy(env, r.Env)
	for _, name := range word.FindAllString(s.Script, -1) {
		if value, ok := r.Vars[name]; ok {
			env[name] = value
		}
	}
	maps.Copy(env, s.Env)
	return env
}

// fileDigest reads a whole file.
func fileDigest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, info.Mode().Perm())
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		_, _ = h.Write(buf[:n]) // never fails
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// labels are those of the image, but for what only the finished guest tells.
func (r *Recipe) labels(base map[string]string, key string) map[string]string {
	out := maps.Clone(base)
	for _, name := range []string{image.LabelHostKey, image.LabelBuilt, image.LabelKernelDigest, image.LabelInitrdDigest} {
		delete(out, name)
	}
	maps.Copy(out, map[string]string{
		image.LabelOS: r.OS, image.LabelArch: r.Arch, image.LabelUser: r.User,
		image.LabelRecipe: r.Name + "@sha256:" + key,
	})
	if p := r.runner(); p != nil {
		out[image.LabelRunnerDir], out[image.LabelRunnerKind], out[image.LabelRunnerVersion] = p.Dir, p.Kind, p.Version
	}
	maps.Copy(out, r.Labels)
	return out
}

// exports are shell commands that set an environment, sorted.
func exports(env map[string]string, quote func(string) string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(env[name]))
	}
	return b.String()
}
