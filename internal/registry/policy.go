package registry

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"time"
)

// Policy says what of a depot is garbage. A manifest stays if
//
//   - a tag names it that Policy keeps, or it lost its last tag less than
//     Untagged ago: hosts may be pinned to its digest;
//   - it belongs to one that stays: an index names it, it names the other as
//     its subject, or its tag is sha256-HEX.WORD after the other's digest, as
//     those of boot artifacts and signatures are;
//   - it is younger than Grace.
//
// A blob stays if a manifest that stays names it, or if it came, or was asked
// for by a push, less than Grace ago. The zero value keeps every tag.
type Policy struct {
	// KeepLast is how many images of each repository stay: those that were
	// tagged last. Several tags of one image count once. 0 keeps all.
	KeepLast int
	// KeepTags are patterns, as path.Match has them, of tags that stay whatever
	// their age. Their images count for KeepLast too.
	KeepTags []string
	// Untagged is how long an image without a tag stays.
	Untagged time.Duration
	// Grace protects pushes that are under way. It must be longer than the
	// longest push takes.
	Grace time.Duration
}

func (p Policy) check() error {
	for _, pattern := range p.KeepTags {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("cannot keep tags %q: it is not a pattern; write * for any letters", pattern)
		}
	}
	if p.KeepLast < 0 || p.Grace < 0 || p.Untagged < 0 {
		return fmt.Errorf("cannot keep less than nothing: keep last %d, grace %s, untagged %s", p.KeepLast, p.Grace, p.Untagged)
	}
	return nil
}

// keeps says whether a pattern protects a tag.
func (p Policy) keeps(tag string) bool {
	return slices.ContainsFunc(p.KeepTags, func(pattern string) bool {
		ok, _ := path.Match(pattern, tag)
		return ok
	})
}

// tagged is a tag as it lies in a repository.
type tagged struct {
	name   string
	digest string    // "" if the tag names nothing, which a cut deletion leaves
	since  time.Time // when it was set
}

// companionForm is the tag of what belongs to the image of that digest.
var companionForm = regexp.MustCompile(`^sha256-([0-9a-f]{64})(?:\.[A-Za-z0-9._-]+)?$`)

// companionOf returns the digest of the image that a tag belongs to, or "".
func companionOf(tag string) string {
	if m := companionForm.FindStringSubmatch(tag); m != nil {
		return "sha256:" + m[1]
	}
	return ""
}

// expired returns the tags that KeepLast does not keep, the oldest last.
// Companions are not looked at: they go with their images.
func (p Policy) expired(tags []tagged) []tagged {
	if p.KeepLast == 0 {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(tags), func(a, b tagged) int {
		return cmp.Or(b.since.Compare(a.since), cmp.Compare(a.name, b.name))
	})
	kept := map[string]bool{}
	for _, t := range sorted {
		if companionOf(t.name) == "" && (p.keeps(t.name) || len(kept) < p.KeepLast) {
			kept[t.digest] = true
		}
	}
	var out []tagged
	for _, t := range sorted {
		if companionOf(t.name) == "" && !kept[t.digest] {
			out = append(out, t)
		}
	}
	return out
}
