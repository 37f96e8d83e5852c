package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// syncBuffer is a log's target that several requests write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func open(t *testing.T, opt Options) (*Server, *httptest.Server, *syncBuffer) {
	t.Helper()
	logs := &syncBuffer{}
	opt.Log = slog.New(slog.NewTextHandler(logs, nil))
	if opt.Dir == "" {
		opt.Dir = t.TempDir()
	}
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		ts.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, ts, logs
}

func do(t *testing.T, method, url, contentType string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", manifestType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, got
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// pushBlob uploads as every client does: POST for a session, PUT with the digest.
func pushBlob(t *testing.T, base, repo string, blob []byte, digest string) int {
	t.Helper()
	resp, _ := do(t, http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if resp.StatusCode != http.StatusAccepted {
		return resp.StatusCode
	}
	url := resp.Header.Get("Location") + "&digest=" + digest
	resp, _ = do(t, http.MethodPut, url, "application/octet-stream", blob)
	return resp.StatusCode
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func pushImage(t *testing.T, base, repo, tag string) (manifest []byte) {
	t.Helper()
	config := []byte("{}")
	if code := pushBlob(t, base, repo, config, digestOf(config)); code != http.StatusCreated {
		t.Fatalf("pushing a blob: status %d", code)
	}
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":%q},"layers":[]}`,
		manifestType, digestOf(config))
	resp, body := do(t, http.MethodPut, base+"/v2/"+repo+"/manifests/"+tag, manifestType, manifest)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("pushing a manifest: status %d: %s", resp.StatusCode, body)
	}
	return manifest
}

func TestPushAndPullSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler())
	manifest := pushImage(t, ts.URL, "team/runner", "v1")
	ts.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	_, ts2, logs := open(t, Options{Dir: dir})
	for _, ref := range []string{"v1", digestOf(manifest)} {
		resp, got := do(t, http.MethodGet, ts2.URL+"/v2/team/runner/manifests/"+ref, "", nil)
		if resp.StatusCode != http.StatusOK || !bytes.Equal(got, manifest) {
			t.Errorf("manifest %s: status %d, body %q, want %q", ref, resp.StatusCode, got, manifest)
		}
	}
	if logs.String() != "" {
		t.Errorf("a server at work logged at level info: %s", logs)
	}
}

func TestBlobRangesAreServed(t *testing.T) {
	_, ts, _ := open(t, Options{})
	blob := []byte("0123456789")
	if code := pushBlob(t, ts.URL, "r", blob, digestOf(blob)); code != http.StatusCreated {
		t.Fatalf("status %d", code)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ts.URL+"/v2/r/blobs/"+digestOf(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=4-")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusPartialContent || string(got) != "456789" {
		t.Errorf("status %d, body %q, want 206 and %q", resp.StatusCode, got, "456789")
	}
}

func TestAWrongDigestIsRefused(t *testing.T) {
	_, ts, _ := open(t, Options{})
	if code := pushBlob(t, ts.URL, "r", []byte("a"), digestOf([]byte("b"))); code != http.StatusBadRequest {
		t.Errorf("status %d, want 400", code)
	}
}

func TestReadOnlyRefusesPushes(t *testing.T) {
	_, ts, _ := open(t, Options{ReadOnly: true})
	if code := pushBlob(t, ts.URL, "r", []byte("a"), digestOf([]byte("a"))); code != http.StatusMethodNotAllowed {
		t.Errorf("status %d, want 405", code)
	}
}

// Two servers of one process must not mix up their content or their logs.
func TestServersOfOneProcessAreApart(t *testing.T) {
	_, a, logA := open(t, Options{})
	_, b, logB := open(t, Options{})
	pushImage(t, a.URL, "r", "t")
	if resp, _ := do(t, http.MethodGet, b.URL+"/v2/r/manifests/t", "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the other server answers %d, want 404", resp.StatusCode)
	}
	resp, _ := do(t, http.MethodPut, b.URL+"/v2/r/manifests/t", manifestType, []byte("{"))
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a broken manifest: status %d, want 400", resp.StatusCode)
	}
	if !strings.Contains(logB.String(), "manifest invalid") {
		t.Errorf("server b's log does not tell of the broken manifest: %q", logB)
	}
	if logA.String() != "" {
		t.Errorf("server a logged what happened to b: %s", logA)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s, err := New(Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	pushImage(t, "http://"+l.Addr().String(), "r", "t")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil after its context ended", err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the listener still accepts connections")
	}
}

func TestNewNamesTheBadDirectory(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New without a directory succeeded")
	}
	if _, err := New(Options{Dir: "/dev/null/x"}); err == nil || !strings.Contains(err.Error(), "/dev/null") {
		t.Errorf("error %v does not name the directory", err)
	}
}
