package tarttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// pulledMark is in the folder of an image that was pulled by digest: the
// garbage collection of images leaves it alone.
const pulledMark = ".explicitly-pulled"

func (t *tart) cacheDir() string { return filepath.Join(t.home, "cache", "OCIs") }

// hostDir is the folder of a registry's images. The colon before a port is
// written as in a URL.
func (t *tart) hostDir(ref image.Ref) string {
	return filepath.Join(t.cacheDir(), strings.ReplaceAll(ref.Registry(), ":", "%3A"))
}

// repository is the folder of a repository's images.
func (t *tart) repository(ref image.Ref) string {
	return filepath.Join(t.hostDir(ref), filepath.FromSlash(ref.Name()))
}

// digest returns what a reference means in the cache.
func (t *tart) digest(ref image.Ref) (string, bool) {
	if d := ref.Digest(); d != "" {
		_, err := os.Stat(filepath.Join(t.repository(ref), d))
		return d, err == nil
	}
	to, err := os.Readlink(filepath.Join(t.repository(ref), ref.Tag()))
	return filepath.Base(to), err == nil
}

// cached returns an image of the cache.
func (t *tart) cached(ref image.Ref) (machine, bool) {
	digest, ok := t.digest(ref)
	if !ok {
		return machine{}, false
	}
	m := machine{ref.WithDigest(digest).String(), filepath.Join(t.repository(ref), digest)}
	return m, m.initialized()
}

// cachedAll returns every image of the cache: once by digest, and once for
// each tag.
func (t *tart) cachedAll() []machine {
	var all []machine
	_ = filepath.WalkDir(t.cacheDir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == "." {
			return err
		}
		repo, _ := filepath.Rel(t.cacheDir(), filepath.Dir(path))
		repo = strings.ReplaceAll(repo, "%3A", ":")
		switch {
		case strings.HasPrefix(e.Name(), "sha256:"):
			all = append(all, machine{filepath.ToSlash(repo) + "@" + e.Name(), path})
			return filepath.SkipDir
		case e.Type()&fs.ModeSymlink != 0:
			all = append(all, machine{filepath.ToSlash(repo) + ":" + e.Name(), path})
		}
		return nil
	})
	return slices.DeleteFunc(all, func(m machine) bool { return !m.initialized() })
}

// uncache removes a tag or an image, and then what no tag means any more.
func (t *tart) uncache(ref image.Ref) error {
	digest, ok := t.digest(ref)
	if !ok {
		return noVM(ref.String())
	}
	name := ref.Tag()
	if ref.Digest() != "" {
		name = digest
	}
	if err := os.RemoveAll(filepath.Join(t.repository(ref), name)); err != nil {
		return err
	}
	return t.collectImages(t.repository(ref))
}

// collectImages removes images that no tag means and that were not pulled by
// their digest.
func (t *tart) collectImages(repo string) error {
	entries, err := os.ReadDir(repo)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(repo, e.Name())); err == nil {
			wanted[filepath.Base(to)] = true
		}
	}
	for _, e := range entries {
		path := filepath.Join(repo, e.Name())
		_, marked := os.Stat(filepath.Join(path, pulledMark))
		if e.IsDir() && strings.HasPrefix(e.Name(), "sha256:") && !wanted[e.Name()] && marked != nil {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tart) pull(args []string) error {
	a, err := parse(args, 1, "--insecure", "--concurrency=", "--deduplicate")
	if err == nil {
		err = a.needs(1, "remote-name")
	}
	if err != nil {
		return err
	}
	ref, err := image.Parse(a.words[0])
	if err != nil {
		fmt.Fprintf(t.stdout, "%q is a local image, nothing to pull here!\n", a.words[0])
		return nil
	}
	return t.bring(ref, a.has("--insecure"))
}

// bring pulls an image into the cache. One pull for a registry at a time.
func (t *tart) bring(ref image.Ref, insecure bool) error {
	if t.spend("pull-fails", t.faults.PullFails) {
		return fail(1, "Error: Could not connect to the server.")
	}
	host := t.hostDir(ref)
	if err := os.MkdirAll(host, 0o700); err != nil {
		return err
	}
	guard, err := os.Open(host)
	if err != nil {
		return err
	}
	defer guard.Close()
	if syscall.Flock(int(guard.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Fprintln(t.stdout, "waiting for lock...")
		if err := syscall.Flock(int(guard.Fd()), syscall.LOCK_EX); err != nil {
			return err
		}
	}
	opt := t.credentials(ref.Registry(), insecure)
	fmt.Fprintf(t.stdout, "pulling %s...\n", ref)
	// tart fetches the manifest first, cached or not.
	if ref.Digest() != "" && t.offline(ref, opt) {
		return fail(1, "Error: Could not connect to the server.")
	}
	digest, err := transfer.Resolve(nowhere(), ref, opt)
	if err != nil {
		return fail(1, "Error: %v", err)
	}
	if _, ok := t.cached(ref.WithDigest(digest)); ok {
		fmt.Fprintf(t.stdout, "%s image is already cached and linked!\n", ref)
		return t.link(ref, digest)
	}
	s, err := store.Open(t.own("images"))
	if err != nil {
		return err
	}
	opt.Progress = percents(t)
	img, err := transfer.Pull(nowhere(), ref.WithDigest(digest), s, opt)
	if err != nil {
		return fail(1, "Error: %v", err)
	}
	if err := t.admit(ref.WithDigest(digest), img); err != nil {
		return err
	}
	return t.link(ref, digest)
}

// offline says whether the registry does not answer for an image by digest.
func (t *tart) offline(ref image.Ref, opt transfer.Options) bool {
	_, cached := t.cached(ref)
	if !cached {
		return false // the pull will say
	}
	opt.Tries = 1
	ctx, cancel := context.WithTimeout(nowhere(), 5*time.Second)
	defer cancel()
	_, err := transfer.Resolve(ctx, ref.WithTag("none-such"), opt)
	return err != nil && !errors.Is(err, image.ErrNotInRegistry)
}

// percents prints progress as tart does where CI is set: at most once a second.
func percents(t *tart) func(transfer.Progress) {
	last, at := -1, time.Time{}
	return func(p transfer.Progress) {
		if p.Phase != transfer.PhasePull || p.Total <= 0 {
			return
		}
		if n := int(100 * p.Done / p.Total); n != last && time.Since(at) >= time.Second {
			fmt.Fprintf(t.stdout, "%d%%\n", n)
			last, at = n, time.Now()
		}
	}
}

// admit puts an image of the store into the cache, where tart has it.
func (t *tart) admit(ref image.Ref, img image.Local) error {
	tmp, err := t.temporary()
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	m := machine{ref.String(), tmp}
	if err := m.fill(img); err != nil {
		return err
	}
	to := filepath.Join(t.repository(ref), ref.Digest())
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// fill makes a machine's files from an image.
func (m machine) fill(img image.Local) error {
	c := vmConfig{
		Version: 1, OS: image.OSDarwin, Arch: arch(), CPUMin: 1, CPU: 4, MemoryMin: 64 << 20, Memory: 4 << 30,
		MAC: randomMAC(), Display: display{1024, 768, ""}, DiskFormat: "raw",
	}
	if os := img.Labels[image.LabelOS]; os != "" {
		c.OS = os
	}
	if err := m.writeConfig(c); err != nil {
		return err
	}
	if err := copyFile(m.path(diskFile), img.Disk); err != nil {
		return err
	}
	img, err := withNVRAM(img)
	if err != nil {
		return err
	}
	data, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(m.path(nvramFile), data, 0o600), os.WriteFile(m.path(standInFile), data, 0o600))
}

// withNVRAM completes an image that was pushed from a machine of the stand-in:
// how that one booted is in its NVRAM, as real machines have it.
func withNVRAM(img image.Local) (image.Local, error) {
	if img.Kernel != "" || img.NVRAM == "" {
		return img, nil
	}
	data, err := os.ReadFile(img.NVRAM)
	if err != nil {
		return img, err
	}
	var was image.Local
	if json.Unmarshal(data, &was) == nil { // else it is a real one's
		img.Kernel, img.Initrd = was.Kernel, was.Initrd
	}
	return img, nil
}

// link notes what a tag means, or that a digest was asked for.
func (t *tart) link(ref image.Ref, digest string) error {
	repo := t.repository(ref)
	if ref.Digest() != "" {
		return os.WriteFile(filepath.Join(repo, digest, pulledMark), nil, 0o600)
	}
	path := filepath.Join(repo, ref.Tag())
	_ = os.Remove(path)
	if err := os.Symlink(filepath.Join(repo, digest), path); err != nil { // an absolute path, as tart's
		return err
	}
	return t.collectImages(repo)
}

// push uploads a local machine.
func (t *tart) push(args []string) error {
	a, err := parse(args, 1<<10, "--insecure", "--concurrency=", "--chunk-size=", "--label=", "--populate-cache")
	if err == nil {
		err = a.needs(2, "remote-names")
	}
	if err != nil {
		return err
	}
	m := t.machine(a.words[0])
	if !m.initialized() {
		return noVM(m.name)
	}
	img, err := m.image()
	if err != nil {
		return err
	}
	labels := maps.Clone(img.Labels)
	for _, l := range a.flags["--label"] {
		k, v, _ := strings.Cut(l, "=")
		labels[k] = v
	}
	config, err := os.ReadFile(m.path(configFile))
	if err != nil {
		return err
	}
	for _, name := range a.words[1:] {
		ref, err := image.Parse(name)
		if err != nil {
			return fail(1, "Error: %v", err)
		}
		fmt.Fprintf(t.stdout, "pushing %s to %s...\n", m.name, ref)
		src := image.Source{Disk: m.path(diskFile), NVRAM: m.path(nvramFile), Kernel: img.Kernel, Initrd: img.Initrd, Labels: labels, ConfigJSON: config}
		if _, err := transfer.Push(nowhere(), src, ref, t.credentials(ref.Registry(), a.has("--insecure"))); err != nil {
			return fail(1, "Error: %v", err)
		}
	}
	return nil
}

// prune removes by age; of sizes it knows only that some criterion is needed.
func (t *tart) prune(args []string) error {
	a, err := parse(args, 0, "--entries=", "--older-than=", "--space-budget=", "--cache-budget=", "--gc")
	if err != nil {
		return err
	}
	if a.has("--gc") {
		return nil // done before each command
	}
	if !a.has("--older-than") && !a.has("--space-budget") && !a.has("--cache-budget") {
		return usage("at least one pruning criteria must be specified")
	}
	days, err := strconv.Atoi(a.last("--older-than", "36500"))
	if err != nil {
		return usage("The value is invalid for '--older-than <older-than>'")
	}
	before := time.Now().AddDate(0, 0, -days)
	all := t.cachedAll()
	if a.last("--entries", "caches") == "vms" {
		if all, err = t.machines(); err != nil {
			return err
		}
	}
	for _, m := range all {
		if state, err := m.state(); err == nil && state != "running" && !m.accessed().After(before) {
			if err := os.RemoveAll(m.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// keychain is where login keeps what it was told: user and password by host.
func (t *tart) keychain() map[string][2]string {
	logins := map[string][2]string{}
	if data, err := os.ReadFile(t.own("keychain.json")); err == nil {
		_ = json.Unmarshal(data, &logins)
	}
	return logins
}

// credentials returns how to talk to a registry: the environment first, then
// what login kept.
func (t *tart) credentials(host string, insecure bool) transfer.Options {
	opt := transfer.Options{Insecure: insecure, Tries: 2}
	user, password := os.Getenv("TART_REGISTRY_USERNAME"), os.Getenv("TART_REGISTRY_PASSWORD")
	only := os.Getenv("TART_REGISTRY_HOSTNAME")
	if user == "" || only != "" && only != host {
		kept := t.keychain()[host]
		user, password = kept[0], kept[1]
	}
	opt.Username, opt.Password = user, secret.New(password)
	return opt
}

// login keeps a password, unless the keychain is locked.
func (t *tart) login(args []string) error {
	a, err := parse(args, 1, "--username=", "--password-stdin", "--insecure", "--no-validate")
	if err == nil {
		err = a.needs(1, "host")
	}
	if err != nil {
		return err
	}
	if !a.has("--username") || !a.has("--password-stdin") {
		return usage("--username and --password-stdin should be specified together: the stand-in has no terminal")
	}
	if t.faults.Keychain {
		return fail(1, "Error: Keychain returned unsuccessful status -25308: User interaction is not allowed.")
	}
	password, err := io.ReadAll(t.stdin)
	if err != nil {
		return err
	}
	logins := t.keychain()
	logins[a.words[0]] = [2]string{a.last("--username", ""), strings.TrimRight(string(password), "\n")}
	data, err := json.Marshal(logins)
	if err != nil {
		return err
	}
	return os.WriteFile(t.own("keychain.json"), data, 0o600)
}
