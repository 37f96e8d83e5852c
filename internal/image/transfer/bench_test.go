package transfer_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// BenchmarkImage puts a pull beside what bounds it, on the same data, registry
// and file system: copying the disk, and fetching the blobs to nothing.
//
//	go test -run '^$' -bench Image -benchtime 3x ./internal/image/transfer
//
// TASUKI_BENCH_MB sets the megabytes of data in the disk, which is four times
// as large; 256 if it is not set.
func BenchmarkImage(b *testing.B) {
	data := benchData(b)
	h := newHub(b)
	disk := makeDisk(b, 4*data*mib, data*mib)
	opt := quick()
	digest := mustPush(b, h, image.Source{Disk: disk}, "r:t", opt)
	ref := h.ref("r:t").WithDigest(digest)
	kept, err := transfer.Pull(b.Context(), ref, openStore(b), opt)
	if err != nil {
		b.Fatal(err)
	}
	mf, err := tartfmt.Parse([]byte(readFile(b, filepath.Join(kept.Dir, store.FileManifest))))
	if err != nil {
		b.Fatal(err)
	}

	b.Run("copy", func(b *testing.B) {
		b.SetBytes(data * mib)
		for i := range b.N {
			copySparse(b, disk, filepath.Join(b.TempDir(), strconv.Itoa(i)))
		}
	})
	b.Run("copy+fsync", func(b *testing.B) {
		b.SetBytes(data * mib)
		for i := range b.N {
			copySparse(b, disk, filepath.Join(b.TempDir(), strconv.Itoa(i)))
			unix.Sync()
		}
	})
	b.Run("get", func(b *testing.B) {
		b.SetBytes(data * mib)
		for b.Loop() {
			getBlobs(b, h, mf, 4)
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(data * mib)
		s := openStore(b)
		for b.Loop() {
			if _, err := transfer.Pull(b.Context(), ref, s, opt); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := s.Remove(digest); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("push", func(b *testing.B) {
		b.SetBytes(data * mib)
		for i := range b.N {
			if _, err := transfer.Push(b.Context(), image.Source{Disk: disk}, h.ref(fmt.Sprintf("new%d-%d:t", b.N, i)), opt); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("push-again", func(b *testing.B) {
		b.SetBytes(data * mib)
		for b.Loop() {
			if _, err := transfer.Push(b.Context(), image.Source{Disk: disk}, h.ref("r:t"), opt); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// benchData is how many megabytes of data the disk has.
func benchData(b *testing.B) int64 {
	b.Helper()
	s := os.Getenv("TASUKI_BENCH_MB")
	if s == "" {
		return 256
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// copySparse copies the data of a file and keeps its holes.
func copySparse(b *testing.B, from, to string) {
	b.Helper()
	src, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer dst.Close()
	copyData(b, dst, src)
}

// getBlobs fetches each different disk blob and throws it away.
func getBlobs(b *testing.B, h *hub, mf *tartfmt.Manifest, parallel int) {
	b.Helper()
	seen := map[string]bool{}
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, ch := range mf.Chunks {
		if seen[ch.Digest] {
			continue
		}
		seen[ch.Digest] = true
		g.Go(func() error {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+h.host+"/v2/r/blobs/"+ch.Digest, nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(struct{ io.Writer }{io.Discard}, resp.Body)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}
