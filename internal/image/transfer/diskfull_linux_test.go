package transfer_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// Incident disk-full, the part that shows only while writing.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := newFaultFixture(t)
	// It would fit, but while it comes somebody else takes the space.
	f.h.breakWith(onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n == 4 {
			// As much as there is: how far the pull came meanwhile is its own affair.
			if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 14*mib), 0o644); err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
		}
		next.ServeHTTP(w, r)
	}))
	s, err := store.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.pull(t.Context(), s)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk.img") {
		t.Fatalf("pull onto a full disk = %v", err)
	}
	seen := map[string]bool{}
	for _, get := range f.h.requests("GET /v2/r/blobs/") {
		if seen[get] {
			t.Errorf("a full disk was taken for a passing fault: %s again", get)
		}
		seen[get] = true
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("the store shows %v, %v", list, err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	var img image.Local
	if img, err = transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	sameFile(t, f.disk, img.Disk)
}
