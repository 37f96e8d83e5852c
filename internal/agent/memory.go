package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
)

// imagesFile holds what is known of the pools' images: the next agent goes on
// with it.
const imagesFile = "images.json"

// mostRejections is how many rejected images of a pool are remembered.
const mostRejections = 16

// imageMemory is what is known of one pool's images, by digest. A reference
// beside a digest is where that image came from: the pool's own may have been
// changed since.
type imageMemory struct {
	Ref         string `json:"ref"` // as configured
	Driver      string `json:"driver,omitempty"`
	Newest      string `json:"newest,omitempty"` // what Ref meant when it was last asked for
	Proven      string `json:"proven,omitempty"` // a runner of it waited or worked last
	ProvenRef   string `json:"proven_ref,omitempty"`
	Previous    string `json:"previous,omitempty"` // proven before that
	PreviousRef string `json:"previous_ref,omitempty"`
	Rejected    string `json:"rejected,omitempty"` // Newest, if its first runners failed; it is not tried again
	Why         string `json:"why,omitempty"`      // it was rejected
	// Rejections are all that were rejected, the latest last: a tag may come back
	// to one of them.
	Rejections []rejection `json:"rejections,omitempty"`
	Pinned     string      `json:"pinned,omitempty"` // a person wants this one, whatever the reference means
	PinnedRef  string      `json:"pinned_ref,omitempty"`
	// RolledBack: it is pinned by a rollback, which a refresh ends.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// rejection is an image whose first runners failed.
type rejection struct {
	Digest string `json:"digest"`
	Why    string `json:"why"`
}

// memory returns what is known of the pool's images. The caller holds a.mu, and
// p is a pool of now: a reference that was changed ends a rollback, and what
// another driver's images were worth says nothing.
func (a *Agent) memory(p *poolState) *imageMemory {
	m, driver := a.memories[p.Spec.Name], driverName(p.Driver)
	if m == nil || m.Driver != "" && m.Driver != driver {
		m = &imageMemory{Ref: p.Spec.Image}
		a.memories[p.Spec.Name] = m
	}
	m.Driver = driver
	if m.Ref != p.Spec.Image {
		// What came before these fields came from the reference of then.
		m.ProvenRef, m.PreviousRef, m.PinnedRef = orDefault(m.ProvenRef, m.Ref), orDefault(m.PreviousRef, m.Ref), orDefault(m.PinnedRef, m.Ref)
		m.Ref, m.Newest = p.Spec.Image, ""
		if m.RolledBack {
			m.unpin()
		}
	}
	return m
}

// proved takes in that a runner of an image works.
func (m *imageMemory) proved(digest, ref string) {
	if m.Proven != digest {
		m.Previous, m.PreviousRef = m.Proven, m.ProvenRef
		m.Proven, m.ProvenRef = digest, ref
	}
	m.forgive(digest) // it may have been pinned all the same
}

// reject remembers that an image is not to be tried again.
func (m *imageMemory) reject(digest, why string) {
	m.forgive(digest)
	m.Rejections = append(m.Rejections, rejection{digest, why})
	m.Rejections = m.Rejections[max(0, len(m.Rejections)-mostRejections):]
	m.Rejected, m.Why = digest, why
}

// forgive forgets that an image was rejected.
func (m *imageMemory) forgive(digest string) {
	m.Rejections = slices.DeleteFunc(m.Rejections, func(r rejection) bool { return r.Digest == digest })
	if m.Rejected == digest {
		m.Rejected, m.Why = "", ""
	}
}

// means takes in what the reference means now.
func (m *imageMemory) means(digest string) {
	m.Newest = digest
	if m.Rejected == digest {
		return
	}
	m.Rejected, m.Why = "", ""
	for _, r := range m.Rejections {
		if r.Digest == digest {
			m.Rejected, m.Why = r.Digest, r.Why
		}
	}
}

func (m *imageMemory) unpin() { m.Pinned, m.PinnedRef, m.RolledBack = "", "", false }

// refOf returns a reference to one of the images that are remembered.
func (m *imageMemory) refOf(digest string) string {
	ref := m.Ref
	switch digest {
	case m.Pinned:
		ref = orDefault(m.PinnedRef, ref)
	case m.Proven:
		ref = orDefault(m.ProvenRef, ref)
	case m.Previous:
		ref = orDefault(m.PreviousRef, ref)
	}
	name, _, _ := strings.Cut(ref, "@")
	return name + "@" + digest
}

// need notes what a pool needs of what is remembered. The image that its
// reference means stays even if it was rejected, or else it would be brought
// again and again; not so while a newer one comes.
func (m *imageMemory) need(keep *image.Retention, pool string, newer bool) {
	keep.Need(m.Pinned, fmt.Sprintf("pool %s is pinned to it", pool))
	keep.Need(m.Proven, fmt.Sprintf("pool %s worked on it last", pool))
	keep.Need(m.Previous, fmt.Sprintf("pool %s worked on it before (tasuki image rollback %s)", pool, pool))
	switch {
	case m.Newest == "" || newer:
	case m.Rejected == m.Newest:
		keep.Need(m.Newest, fmt.Sprintf("pool %s's reference means it, though it was rejected", pool))
	default:
		keep.Need(m.Newest, fmt.Sprintf("pool %s's reference means it", pool))
	}
}

// writeImages makes durable what is known of the images. That it cannot is a
// problem and stops nothing. The caller holds a.mu.
func (a *Agent) writeImages() {
	text := ""
	if err := a.saveImages(); err != nil {
		text = err.Error()
	}
	a.setProblem(imagesFile, text)
}

func (a *Agent) saveImages() error {
	b, _ := json.MarshalIndent(a.memories, "", " ") // plain data
	if err := atomicfile.Write(filepath.Join(a.opt.Home, imagesFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write down which images work: %w", err)
	}
	return nil
}

// readImages goes on with what the last agent knew. The caller holds a.mu.
func (a *Agent) readImages() (err error) {
	a.memories, err = readMemories(a.opt.Home)
	return err
}

func readMemories(home string) (map[string]*imageMemory, error) {
	out := map[string]*imageMemory{}
	path := filepath.Join(home, imagesFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which images work from %q (without that file, nothing is known): %w", path, err)
	}
	for name, m := range out {
		if m == nil {
			delete(out, name)
		}
	}
	if out == nil { // the file says null
		out = map[string]*imageMemory{}
	}
	return out, nil
}

// NeededImages returns what the agent of a home wrote down of the images that
// pools need, whether it runs or not: a Retention without a floor. Pools are
// those of the configuration; nil: all that the home ever had.
func NeededImages(home string, pools []string) (image.Retention, error) {
	var keep image.Retention
	all, err := readMemories(home)
	for name, m := range all {
		if pools == nil || slices.Contains(pools, name) {
			m.need(&keep, name, false)
		}
	}
	return keep, err
}
