package registry

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Incident disk-full, while a push that did not say how much it sends is at it.
func TestADiskThatFillsUpCutsAPush(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := newBench(t, Options{Dir: dir})
	var looks atomic.Int64
	b.free = func(dir string) (uint64, error) {
		if looks.Add(1) <= 1000 { // the guard before an upload sees nothing yet
			return math.MaxInt64, nil
		}
		return freeBytes(dir)
	}
	b.push("x", "keep", "kept")
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	put := func() (*http.Response, string) {
		t.Helper()
		resp, _ := do(t, http.MethodPost, b.url+"/v2/x/blobs/uploads/", "", nil)
		looks.Store(999)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, resp.Header.Get("Location"), io.MultiReader(bytes.NewReader(blob)))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err = http.DefaultClient.Do(req); err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	if resp, body := put(); resp.StatusCode != http.StatusInsufficientStorage || !strings.Contains(body, "disk is full") {
		t.Errorf("%d %s, want 507 and what is wrong", resp.StatusCode, body)
	}
	if !b.has("x", "keep", "kept") {
		t.Error("an image that was there is not served")
	}
	looks.Store(0)
	if resp, _ := do(t, http.MethodHead, b.url+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("half a blob: %d, want 404", resp.StatusCode)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if code := pushBlob(t, b.url, "x", blob, digestOf(blob)); code != http.StatusCreated {
		t.Errorf("with space again: %d, want 201", code)
	}
}
