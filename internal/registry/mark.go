package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// plan is what a sweep deletes, and why it may. Paths are of directories; they
// are deleted in the order of the fields, names before what they name.
type plan struct {
	tags      []item
	manifests []item
	links     []item // a repository's claims on blobs
	blobs     []item
	bytes     int64 // of the blobs
}

// item is one directory to delete.
type item struct {
	path string
	what string // for people: repository:tag, repository@digest, digest
	hash string // the digest of a blob
}

// marker finds out what of a depot is garbage. Nobody may write meanwhile.
type marker struct {
	d      *depot
	policy Policy
	now    time.Time
	live   map[string]bool // digests that something that stays names
	plan   plan
	// unused is set for mirrors: images that nobody pulled since then go.
	unused time.Time
}

// repo is a repository while it is looked at.
type repo struct {
	name      string
	tags      []tagged
	revisions map[string]time.Time       // manifests, and when they came
	lost      map[string]time.Time       // when a tag left them for another
	refs      map[string]map[string]bool // what each manifest names
	subject   map[string]string
	keep      map[string]bool
}

// mark returns what is garbage now. An error means that something could not be
// read, and that nothing may be deleted.
func (m *marker) mark() (plan, error) {
	m.live = map[string]bool{}
	err := m.d.repositories(func(name string) error {
		r, err := m.read(name)
		if err != nil {
			return fmt.Errorf("repository %q: %w", name, err)
		}
		m.judge(r)
		return m.links(r)
	})
	if err != nil {
		return plan{}, fmt.Errorf("cannot tell what is garbage: %w", err)
	}
	if err := m.blobs(); err != nil {
		return plan{}, fmt.Errorf("cannot tell what is garbage: %w", err)
	}
	return m.plan, nil
}

func (m *marker) path(repository string, parts ...string) string {
	return m.d.root(append([]string{"repositories", filepath.FromSlash(repository)}, parts...)...)
}

func (m *marker) read(name string) (*repo, error) {
	r := &repo{
		name: name, revisions: map[string]time.Time{}, lost: map[string]time.Time{},
		refs: map[string]map[string]bool{}, subject: map[string]string{}, keep: map[string]bool{},
	}
	entries, err := readDir(m.path(name, "_manifests", "tags"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := m.readTag(r, e.Name()); err != nil {
			return nil, err
		}
	}
	if err := eachLink(m.path(name, "_manifests", "revisions", "sha256"), func(digest string, at time.Time) error {
		r.revisions[digest] = at
		return m.readManifest(r, digest)
	}); err != nil {
		return nil, err
	}
	return r, nil
}

// readTag notes what a tag names, and when it left what it named before.
func (m *marker) readTag(r *repo, tag string) error {
	t := tagged{name: tag}
	path := m.path(r.name, "_manifests", "tags", tag, "current", "link")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		r.tags = append(r.tags, t)
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	t.digest, t.since = strings.TrimSpace(string(b)), info.ModTime()
	if image.CheckDigest(t.digest) != nil {
		return fmt.Errorf("tag %q names %q, which is no digest", tag, t.digest)
	}
	r.tags = append(r.tags, t)
	type past struct {
		digest string
		at     time.Time
	}
	var history []past
	err = eachLink(m.path(r.name, "_manifests", "tags", tag, "index", "sha256"), func(digest string, at time.Time) error {
		history = append(history, past{digest, at})
		return nil
	})
	slices.SortFunc(history, func(a, b past) int { return a.at.Compare(b.at) })
	for i, p := range history[:max(len(history)-1, 0)] {
		if left := history[i+1].at; left.After(r.lost[p.digest]) {
			r.lost[p.digest] = left
		}
	}
	return err
}

// readManifest notes every digest that a manifest names. A link to a manifest
// that is not there names nothing, and serves nothing.
func (m *marker) readManifest(r *repo, digest string) error {
	b, err := os.ReadFile(filepath.Join(m.d.blobPath(digest), "data"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		return fmt.Errorf("manifest %s is not JSON: %w", digest, err)
	}
	refs := map[string]bool{}
	collectDigests(tree, refs)
	r.refs[digest] = refs
	if top, ok := tree.(map[string]any); ok {
		if subject, ok := top["subject"].(map[string]any); ok {
			r.subject[digest], _ = subject["digest"].(string)
			delete(refs, r.subject[digest])
		}
	}
	return nil
}

// collectDigests takes every text that is a digest for a reference, wherever it
// stands: manifests of kinds that we do not know keep their blobs too.
func collectDigests(v any, out map[string]bool) {
	switch v := v.(type) {
	case string:
		if image.CheckDigest(v) == nil {
			out[v] = true
		}
	case []any:
		for _, e := range v {
			collectDigests(e, out)
		}
	case map[string]any:
		for _, e := range v {
			collectDigests(e, out)
		}
	}
}

// judge decides about the manifests and tags of a repository.
func (m *marker) judge(r *repo) {
	young := func(at time.Time) bool { return m.now.Sub(at) < m.policy.Grace }
	dropped := map[string]bool{} // tags
	retired := map[string]bool{} // their digests
	for _, t := range m.policy.expired(r.tags) {
		if !young(t.since) {
			dropped[t.name], retired[t.digest] = true, true
		}
	}
	for _, t := range r.tags {
		switch {
		case t.digest == "" || dropped[t.name] || companionOf(t.name) != "":
		case !m.unused.IsZero() && r.revisions[t.digest].Before(m.unused):
			dropped[t.name], retired[t.digest] = true, true
		default:
			r.keep[t.digest] = true
		}
	}
	for digest, came := range r.revisions {
		lost := r.lost[digest]
		if lost.Before(came) {
			lost = came
		}
		pinned := !retired[digest] && !companion(r, digest) && m.now.Sub(lost) < m.policy.Untagged
		if !m.unused.IsZero() {
			pinned = !came.Before(m.unused)
		}
		if young(came) || pinned {
			r.keep[digest] = true
		}
	}
	m.belongings(r)
	for _, t := range r.tags {
		of := companionOf(t.name)
		if t.digest == "" || (dropped[t.name] && !r.keep[t.digest]) || (of != "" && !r.keep[of] && !r.keep[t.digest]) {
			m.plan.tags = append(m.plan.tags, item{path: m.path(r.name, "_manifests", "tags", t.name), what: r.name + ":" + t.name})
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(r.revisions)) {
		if r.keep[digest] {
			m.live[digest] = true
			maps.Copy(m.live, r.refs[digest])
			continue
		}
		m.plan.manifests = append(m.plan.manifests, item{
			path: m.path(r.name, "_manifests", "revisions", "sha256", image.DigestHex(digest)), what: r.name + "@" + digest,
		})
	}
}

// companion says whether a manifest is only there beside another.
func companion(r *repo, digest string) bool {
	is := false
	for _, t := range r.tags {
		if t.digest == digest {
			if companionOf(t.name) == "" {
				return false
			}
			is = true
		}
	}
	return is
}

// belongings keeps what belongs to manifests that stay, however far.
func (m *marker) belongings(r *repo) {
	for grown := true; grown; {
		grown = false
		add := func(digest string) {
			if _, there := r.revisions[digest]; there && !r.keep[digest] {
				r.keep[digest], grown = true, true
			}
		}
		for digest := range maps.Clone(r.keep) {
			for ref := range r.refs[digest] {
				add(ref)
			}
		}
		for digest, subject := range r.subject {
			if r.keep[subject] {
				add(digest)
			}
		}
		for _, t := range r.tags {
			if of := companionOf(t.name); of != "" && r.keep[of] {
				add(t.digest)
			}
		}
	}
}

// links finds a repository's claims on blobs that no manifest of it needs.
func (m *marker) links(r *repo) error {
	needed := map[string]bool{}
	for digest := range r.keep {
		maps.Copy(needed, r.refs[digest])
	}
	return eachLink(m.path(r.name, "_layers", "sha256"), func(digest string, at time.Time) error {
		switch {
		case needed[digest]:
		case m.now.Sub(at) < m.policy.Grace:
			m.live[digest] = true // a push is about to name it
		default:
			m.plan.links = append(m.plan.links, item{path: m.path(r.name, "_layers", "sha256", image.DigestHex(digest)), what: r.name + "/" + digest})
		}
		return nil
	})
}

// blobs finds the blobs that nothing needs, once every repository was judged.
func (m *marker) blobs() error {
	groups, err := readDir(m.d.root("blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, g := range groups {
		entries, err := readDir(m.d.root("blobs", "sha256", g.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			digest := "sha256:" + e.Name()
			if image.CheckDigest(digest) != nil || m.live[digest] {
				continue
			}
			it := item{path: m.d.blobPath(digest), what: digest, hash: digest}
			info, err := os.Stat(filepath.Join(it.path, "data"))
			switch {
			case errors.Is(err, fs.ErrNotExist): // a cut deletion
			case err != nil:
				return err
			case m.now.Sub(info.ModTime()) < m.policy.Grace:
				continue
			default:
				m.plan.bytes += info.Size()
			}
			m.plan.blobs = append(m.plan.blobs, it)
		}
	}
	return nil
}

// eachLink calls each for the digests that a directory of links holds.
func eachLink(dir string, each func(digest string, at time.Time) error) error {
	entries, err := readDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		digest := "sha256:" + e.Name()
		if image.CheckDigest(digest) != nil {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name(), "link"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a cut deletion
		}
		if err != nil {
			return err
		}
		if err := each(digest, info.ModTime()); err != nil {
			return err
		}
	}
	return nil
}
