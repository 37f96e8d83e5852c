package registry

import (
	"bytes"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A client that we did not write: pushes as a writer, pulls as a reader,
// through a mirror, and is told why it may not.
func TestGoContainerregistryIsServed(t *testing.T) {
	s := guarded(t, Options{})
	ts := httptest.NewServer(s.Handler())
	defer ts.Close()
	host := strings.TrimPrefix(ts.URL, "http://")
	as := func(user string) remote.Option {
		return remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: user, Password: "right password"}))
	}
	img, err := random.Image(100_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/team/image:t")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, as("mac"), remote.WithContext(t.Context())); err == nil || !strings.Contains(err.Error(), "may read only") {
		t.Errorf("a reader's push: %v, want a refusal that says why", err)
	}
	if err := remote.Write(ref, img, as("ci"), remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()

	front, err := New(Options{Dir: t.TempDir(), Log: s.log, Mirrors: []Mirror{{Name: "up", Upstream: ts.URL, Username: "mac", Password: known("right password")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	mirrored := httptest.NewServer(front.Handler())
	defer mirrored.Close()
	through, err := name.ParseReference(strings.TrimPrefix(mirrored.URL, "http://") + "/mirror/up/team/image:t")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []name.Reference{ref, through, through} {
		got, err := remote.Image(from, as("mac"), remote.WithContext(t.Context()))
		if err != nil {
			t.Fatalf("%s: %v", from, err)
		}
		if digest, err := got.Digest(); err != nil || digest != want {
			t.Errorf("%s: digest %v, %v; want %v", from, digest, err, want)
		}
		layers, err := got.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			_ = r.Close()
			digest, _ := l.Digest()
			if err != nil || digestOf(b) != digest.String() {
				t.Errorf("%s: layer %s: %d bytes of another digest, %v", from, digest, len(b), err)
			}
		}
	}
}

// skopeo is a program of a distribution's; make test installs it.
func TestSkopeoIsServed(t *testing.T) {
	path, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("TASUKI_TEST_CLIENTS") != "" {
			t.Fatal("skopeo is not installed")
		}
		t.Skip("skopeo is not installed; make prepare installs it")
	}
	s := guarded(t, Options{})
	ts := httptest.NewServer(s.Handler())
	defer ts.Close()
	ref := "docker://" + strings.TrimPrefix(ts.URL, "http://") + "/team/image:t"
	dir := t.TempDir()
	layout := filepath.Join(dir, "in")
	skopeo := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), path, append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	writeLayout(t, layout)
	if out, err := skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds=mac:right password", "dir:"+layout, ref); err == nil {
		t.Errorf("a reader's push succeeded: %s", out)
	}
	if out, err := skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds=ci:right password", "dir:"+layout, ref); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
	back := filepath.Join(dir, "out")
	if out, err := skopeo("copy", "--preserve-digests", "--src-tls-verify=false", "--src-creds=mac:right password", ref, "dir:"+back); err != nil {
		t.Fatalf("pull: %v\n%s", err, out)
	}
	want, _ := os.ReadFile(filepath.Join(layout, "manifest.json"))
	got, err := os.ReadFile(filepath.Join(back, "manifest.json"))
	if err != nil || !bytes.Equal(want, got) {
		t.Errorf("the manifest came back as %q, %v; want %q", got, err, want)
	}
	if out, err := skopeo("list-tags", "--tls-verify=false", "--creds=mac:right password", strings.TrimSuffix(ref, ":t")); err != nil || !strings.Contains(out, `"t"`) {
		t.Errorf("list-tags: %v\n%s", err, out)
	}
}

// writeLayout writes an image of the kind that tart makes, as skopeo's dir: has it.
func writeLayout(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := `{"architecture":"arm64","config":{"Labels":{"org.cirruslabs.tart.disk.format":"raw"}},"os":"darwin"}`
	layers := []struct{ mediaType, content string }{
		{"application/vnd.cirruslabs.tart.config.v1", `{"version":1}`},
		{"application/vnd.cirruslabs.tart.disk.v2", "bv4$"},
		{"application/vnd.cirruslabs.tart.nvram.v1", "nvram"},
	}
	var b strings.Builder
	put := func(content string) string {
		digest := digestOf([]byte(content))
		if err := os.WriteFile(filepath.Join(dir, strings.TrimPrefix(digest, "sha256:")), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	b.WriteString(`{"annotations":{},"config":{"digest":"` + put(config) + `","mediaType":"application\/vnd.oci.image.config.v1+json","size":` + strconv.Itoa(len(config)) + `},"layers":[`)
	for i, l := range layers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"annotations":{},"digest":"` + put(l.content) + `","mediaType":"` + strings.ReplaceAll(l.mediaType, "/", `\/`) + `","size":` + strconv.Itoa(len(l.content)) + `}`)
	}
	b.WriteString(`],"mediaType":"application\/vnd.oci.image.manifest.v1+json","schemaVersion":2}`)
	for name, content := range map[string]string{"manifest.json": b.String(), "version": "Directory Transport Version: 1.1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
