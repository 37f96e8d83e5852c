package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/mirego/tasuki/internal/image/tartfmt/tartfmttest"
)

// orasRepository is a repository as oras sees it, logged in as user.
func orasRepository(t *testing.T, url, name, user string) *remote.Repository {
	t.Helper()
	host := strings.TrimPrefix(url, "http://")
	r, err := remote.NewRepository(host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	r.PlainHTTP = true
	r.Client = &auth.Client{
		Client: retry.DefaultClient, Cache: auth.NewCache(),
		Credential: auth.StaticCredential(host, auth.Credential{Username: user, Password: "right password"}),
	}
	return r
}

// orasImage puts an image as tart writes it into a store of oras, as "t".
func orasImage(t *testing.T) (*memory.Store, ocispec.Descriptor) {
	t.Helper()
	manifest, blobs := tartfmttest.Write(tartfmttest.Image{
		Disk: bytes.Repeat([]byte("a disk "), 50_000), ChunkSize: 100_000,
		Config: []byte(`{"version":1}`), NVRAM: []byte("nvram"), OCIConfig: []byte(`{"architecture":"arm64","os":"darwin"}`),
	})
	store := memory.New()
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	d := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, manifest)
	for _, blob := range append(m.Layers, m.Config) {
		err := store.Push(t.Context(), blob, bytes.NewReader(blobs[blob.Digest.String()]))
		if err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
			t.Fatal(err)
		}
	}
	if err := store.Push(t.Context(), d, bytes.NewReader(manifest)); err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), d, "t"); err != nil {
		t.Fatal(err)
	}
	return store, d
}

// A second client that we did not write, and that shares no code with how our
// mirrors log in: it pushes what tart would, copies it between repositories,
// through a mirror, and hangs an artifact on it, which a collection keeps.
func TestOrasIsServed(t *testing.T) {
	s := guarded(t, Options{})
	ts := httptest.NewServer(s.Handler())
	defer ts.Close()
	ctx := t.Context()
	store, want := orasImage(t)

	reader, writer := orasRepository(t, ts.URL, "team/image", "mac"), orasRepository(t, ts.URL, "team/image", "ci")
	if _, err := oras.Copy(ctx, store, "t", reader, "t", oras.DefaultCopyOptions); err == nil || !strings.Contains(err.Error(), "may read only") {
		t.Errorf("a reader's push: %v, want a refusal that says why", err)
	}
	if d, err := oras.Copy(ctx, store, "t", writer, "t", oras.DefaultCopyOptions); err != nil || d.Digest != want.Digest {
		t.Fatalf("pushed %s: %v; want %s", d.Digest, err, want.Digest)
	}
	other := orasRepository(t, ts.URL, "team/other", "ci")
	var mounted atomic.Int64
	opt := oras.DefaultCopyOptions
	opt.MountFrom = func(context.Context, ocispec.Descriptor) ([]string, error) { return []string{"team/image"}, nil }
	opt.OnMounted = func(context.Context, ocispec.Descriptor) error { mounted.Add(1); return nil }
	if _, err := oras.Copy(ctx, writer, "t", other, "copied", opt); err != nil || mounted.Load() == 0 {
		t.Errorf("copied with %d blobs mounted: %v", mounted.Load(), err)
	}

	up, err := New(Options{Dir: t.TempDir(), Log: s.log, Mirrors: []Mirror{{Name: "up", Upstream: ts.URL, Username: "mac", Password: known("right password")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	through := httptest.NewServer(up.Handler())
	defer through.Close()
	for _, from := range []*remote.Repository{reader, other, orasRepository(t, through.URL, "mirror/up/team/image", "mac")} {
		tag := "t"
		if from == other {
			tag = "copied"
		}
		if d, err := oras.Copy(ctx, from, tag, memory.New(), "here", oras.DefaultCopyOptions); err != nil || d.Digest != want.Digest {
			t.Errorf("pulled from %s: %s, %v; want %s", from.Reference, d.Digest, err, want.Digest)
		}
	}
	keepsReferrers(t, s, ts.URL, want)
}

// keepsReferrers hangs an artifact on an image, as cosign and oras attach do.
func keepsReferrers(t *testing.T, s *Server, url string, subject ocispec.Descriptor) {
	t.Helper()
	ctx, repo := t.Context(), orasRepository(t, url, "team/image", "ci")
	artifact, err := oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, "application/vnd.example.signature",
		oras.PackManifestOptions{Subject: &subject, ManifestAnnotations: map[string]string{ocispec.AnnotationCreated: "2026-11-24T00:00:00Z"}})
	if err != nil {
		t.Fatal(err)
	}
	referrers := func() (n int) {
		t.Helper()
		err := repo.Referrers(ctx, subject, "", func(found []ocispec.Descriptor) error {
			for _, d := range found {
				if d.Digest == artifact.Digest {
					n++
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	if referrers() != 1 {
		t.Error("the artifact is not found by the image that it hangs on")
	}
	b := &bench{s, t, url}
	b.age(2 * week)
	policy := usual
	policy.KeepLast = 1
	if _, err := s.Collect(ctx, policy, false); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Fetch(ctx, artifact); err != nil || referrers() != 1 {
		t.Errorf("a collection took the artifact of an image that stays: %v", err)
	}
	if err := repo.Delete(ctx, subject); err != nil {
		t.Fatal(err)
	}
	b.age(2 * week)
	if _, err := s.Collect(ctx, policy, false); err != nil {
		t.Fatal(err)
	}
	if rc, err := repo.Fetch(ctx, artifact); err == nil {
		_ = rc.Close()
		t.Error("the image is gone and what hung on it stays")
	}
}
