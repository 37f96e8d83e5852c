package transfer_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/registry"
)

const mib = 1 << 20

// hub is a registry on loopback behind a handler that can break things.
type hub struct {
	t    testing.TB
	host string

	mu     sync.Mutex
	fault  func(http.ResponseWriter, *http.Request, http.Handler) // nil: none
	served []string                                               // "METHOD /path", in order
}

func newHub(t testing.TB) *hub {
	t.Helper()
	srv, err := registry.New(registry.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.served = append(h.served, r.Method+" "+r.URL.Path)
		fault := h.fault
		h.mu.Unlock()
		if fault != nil {
			fault(w, r, srv.Handler())
			return
		}
		srv.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		ts.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	h.host = strings.TrimPrefix(ts.URL, "http://")
	return h
}

func (h *hub) ref(s string) image.Ref {
	h.t.Helper()
	r, err := image.Parse(h.host + "/" + s)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *hub) breakWith(f func(http.ResponseWriter, *http.Request, http.Handler)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// requests returns what was served since the last call, with this prefix.
func (h *hub) requests(prefix string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var got []string
	for _, s := range h.served {
		if strings.HasPrefix(s, prefix) {
			got = append(got, s)
		}
	}
	h.served = nil
	return got
}

// quick are options whose retries take no time.
func quick() transfer.Options {
	return transfer.Options{
		Backoff: backoff.Policy{First: time.Millisecond, Most: 2 * time.Millisecond},
		Log:     slog.New(slog.DiscardHandler),
		Now:     func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
}

// isBlobGet tells the fetching of layers from everything else.
func isBlobGet(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

// makeDisk writes a sparse disk: of each 16 MiB some hold random data, some
// compressible data, some both among zeros, and the rest are holes.
func makeDisk(t testing.TB, size, data int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewChaCha8([32]byte{1}))
	const piece = mib
	text := bytes.Repeat([]byte("drwxr-xr-x root root 4096 /usr/share/doc\n"), piece/40+1)[:piece]
	buf := make([]byte, piece)
	stride := size / max(data/piece, 1)
	for i := int64(0); i*piece < data; i++ {
		off := min(i*stride/sparse.BlockSize*sparse.BlockSize, size-piece)
		switch i % 3 {
		case 0:
			_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), 7}).Read(buf)
		case 1:
			copy(buf, text)
			buf[rnd.IntN(piece)] ^= 1
		case 2: // blocks of data among blocks of zeros
			clear(buf)
			for b := 0; b < piece; b += 4 * sparse.BlockSize {
				copy(buf[b:b+sparse.BlockSize], text[rnd.IntN(1000):])
			}
		}
		if err := sparse.WriteAt(f, buf, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// copyData copies a file with its holes, by plain reads and writes, so that the
// kernel does not clone or copy by itself.
func copyData(t testing.TB, dst, src *os.File) {
	t.Helper()
	info, err := src.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := dst.Truncate(info.Size()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, mib)
	for off := int64(0); off < info.Size(); {
		start, end, err := sparse.NextData(src, off)
		if err != nil {
			t.Fatal(err)
		}
		w := struct{ io.Writer }{io.NewOffsetWriter(dst, start)}
		if _, err := io.CopyBuffer(w, struct{ io.Reader }{io.NewSectionReader(src, start, end-start)}, buf); err != nil {
			t.Fatal(err)
		}
		off = end
	}
}

func sameFile(t testing.TB, want, got string) {
	t.Helper()
	a, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	bufA, bufB := make([]byte, 4*mib), make([]byte, 4*mib)
	for off := int64(0); ; off += int64(len(bufA)) {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			t.Fatalf("%s differs from %s in the 4 MiB at %d", got, want, off)
		}
		if errA != nil || errB != nil {
			return
		}
	}
}

func allocated(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return sparse.Allocated(info)
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustPush(t testing.TB, h *hub, src image.Source, name string, opt transfer.Options) string {
	t.Helper()
	digest, err := transfer.Push(t.Context(), src, h.ref(name), opt)
	if err != nil {
		t.Fatal(err)
	}
	h.requests("")
	return digest
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (h *hub) delete(t testing.TB, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+h.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// redirectTransport sends plain requests to one host, whatever they name, and
// has no TLS to offer.
type redirectTransport struct{ host string }

func (rt redirectTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "http" {
		return nil, errors.New("http: server gave HTTP response to HTTPS client")
	}
	r = r.Clone(r.Context())
	r.URL.Host = rt.host
	return http.DefaultTransport.RoundTrip(r)
}

// closedPort is a reference to a registry that does not listen.
func closedPort(t testing.TB) image.Ref {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	ref, err := image.Parse(l.Addr().String() + "/r:t")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
