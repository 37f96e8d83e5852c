package store

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
)

type refRecord struct {
	Ref    image.Ref `json:"ref"`
	Digest string    `json:"digest"`
	Seen   time.Time `json:"seen"` // when the tag began to mean this digest
}

func (s *Store) refPath(ref image.Ref) string {
	return filepath.Join(s.dir, dirRefs, fmt.Sprintf("%x.json", sha256.Sum256([]byte(ref.String()))))
}

// Remember writes down that the registry says that ref means digest.
func (s *Store) Remember(ref image.Ref, digest string) error {
	if err := image.CheckDigest(digest); err != nil {
		return fmt.Errorf("cannot remember image %s: %w", ref, err)
	}
	if ref.IsZero() || ref.Digest() != "" {
		return nil // there is nothing that could change its meaning
	}
	if old, err := s.Resolve(ref); err == nil && old == digest {
		return nil
	}
	b, err := json.Marshal(refRecord{Ref: ref, Digest: digest, Seen: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("cannot remember image %s: %w", ref, err)
	}
	if err := atomicfile.Write(s.refPath(ref), b, 0o644); err != nil {
		return fmt.Errorf("cannot remember image %s: %w", ref, err)
	}
	return nil
}

// Resolve returns the digest that ref meant when the registry was last asked,
// without asking it. The image itself may be gone. The error wraps ErrNotFound
// if it was never asked.
func (s *Store) Resolve(ref image.Ref) (digest string, err error) {
	if ref.Digest() != "" {
		return ref.Digest(), nil
	}
	b, err := os.ReadFile(s.refPath(ref))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s was never pulled here", ErrNotFound, ref)
	}
	if err != nil {
		return "", fmt.Errorf("cannot resolve image %s: %w", ref, err)
	}
	var r refRecord
	if err := json.Unmarshal(b, &r); err != nil || image.CheckDigest(r.Digest) != nil {
		return "", fmt.Errorf("%w: the record of %s is damaged", ErrNotFound, ref)
	}
	return r.Digest, nil
}
