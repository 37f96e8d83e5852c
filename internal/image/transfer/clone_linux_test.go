package transfer_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// cloningDir is a folder on a file system that can clone: an XFS in a file.
func cloningDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	disk, mnt := filepath.Join(dir, "xfs.img"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(disk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 400*mib); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", disk}, {"mount", "-o", "loop", disk, mnt}} {
		path, err := proc.Look(c[0])
		if err == nil {
			_, err = proc.Run(t.Context(), proc.Cmd{Path: path, Args: c[1:]})
		}
		if err != nil {
			t.Skipf("a file system that can clone needs root, loop devices and xfsprogs: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

func TestADeltaSharesItsSpaceWhereItCan(t *testing.T) {
	f := newDeltaFixture(t)
	s, err := store.Open(filepath.Join(cloningDir(t), "images"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err != nil {
		t.Fatal(err)
	}
	before, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	img := f.update(t, s)
	after, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	if took := before - after; took > 6*mib { // two chunks of 2 MiB that are new, and the books
		t.Errorf("the update took %d bytes of space for 4 MiB that changed", took)
	}
	for _, digest := range []string{f.firstDigest, img.Digest} {
		if _, err := s.Verify(t.Context(), digest, nil); err != nil {
			t.Error(err)
		}
	}
	// Cut in the middle, it goes on from the clone.
	if err := s.Remove(img.Digest); err != nil {
		t.Fatal(err)
	}
	f.h.breakWith(onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n > 1 { // the labels come, no layer does
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t").WithDigest(img.Digest), s, f.opt); err == nil {
		t.Fatal("a pull from a registry that refuses succeeded")
	}
	f.h.breakWith(nil)
	f.update(t, s)
}
