package transfer_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// BenchmarkDelta changes some hundred files of an ext4 disk and prints what an
// update moves: with layers of several lengths, and as single blocks of 64 KiB,
// which is the least that a format of blocks could do. It also times our pull
// of the update beside our pull of everything, and the two pushes.
//
//	make bench-images
func BenchmarkDelta(b *testing.B) {
	h := newHub(b)
	first := ext4Disk(b)
	next := filepath.Join(b.TempDir(), "next.img")
	copySparse(b, first, next)
	files := changeFiles(b, next)
	opt := quick()
	var text strings.Builder
	fmt.Fprintf(&text, "%d files changed: layers to fetch, MB that move\n", files)
	for _, size := range []int64{512, 64, 16, 4} {
		opt.ChunkSize = size * mib
		repo := fmt.Sprintf("l%d", size)
		d := transfer.Diff(pushed(b, h, repo, first, opt), pushed(b, h, repo, next, opt))
		fmt.Fprintf(&text, "%3d MiB    %10d %10.1f\n", size, d.Fetch, float64(d.FetchBytes)/1e6)
	}
	blocks, moved := changedBlocks(b, first, next)
	fmt.Fprintf(&text, " 64 KiB    %10d %10.1f  (blocks, compressed by themselves)\n", blocks, float64(moved)/1e6)
	took := map[string][]time.Duration{}
	for b.Loop() {
		timeUpdate(b, h, [2]string{first, next}, took)
	}
	for _, what := range []string{"whole", "update"} {
		fmt.Fprintf(&text, "%-7s push %.2f s, pull %.2f s\n", what, medianOf(took[what+" push"]).Seconds(), medianOf(took[what+" pull"]).Seconds())
	}
	b.Log(text.String())
}

func pushed(b *testing.B, h *hub, repo, disk string, opt transfer.Options) transfer.Inspection {
	b.Helper()
	mustPush(b, h, image.Source{Disk: disk}, repo+":t", opt)
	in, err := transfer.Inspect(b.Context(), h.ref(repo+":t"), opt)
	if err != nil {
		b.Fatal(err)
	}
	return in
}

// timeUpdate pushes and pulls the first disk, and then the second.
func timeUpdate(b *testing.B, h *hub, disks [2]string, took map[string][]time.Duration) {
	b.Helper()
	s := openStore(b)
	repo := "update" + filepath.Base(filepath.Dir(s.Dir())) + fmt.Sprint(time.Now().UnixNano())
	for i, what := range []string{"whole", "update"} {
		unix.Sync()
		start := time.Now()
		mustPush(b, h, image.Source{Disk: disks[i]}, repo+":t", quick())
		took[what+" push"] = append(took[what+" push"], time.Since(start))
		unix.Sync()
		start = time.Now()
		img, err := transfer.Pull(b.Context(), h.ref(repo+":t"), s, quick())
		if err != nil {
			b.Fatal(err)
		}
		took[what+" pull"] = append(took[what+" pull"], time.Since(start))
		sameFile(b, disks[i], img.Disk)
	}
}

// changeFiles gives some hundred files of the disk's file system new content, as
// an update of packages does, and returns how many.
func changeFiles(b *testing.B, disk string) int {
	b.Helper()
	root := cmp.Or(os.Getenv(benchRoot), "/usr/share")
	dir := b.TempDir()
	var script strings.Builder
	seen, changed := 0, 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || changed == 300 || strings.ContainsAny(path, " \"") {
			return nil //nolint:nilerr // what cannot be read is not changed
		}
		info, err := e.Info()
		if seen++; err != nil || seen%20 != 0 || info.Size() > mib {
			return nil //nolint:nilerr // as above
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		from := filepath.Join(dir, fmt.Sprint(changed))
		if err := os.WriteFile(from, append([]byte("changed\n"), content...), 0o644); err != nil {
			return err
		}
		to := strings.TrimPrefix(path, root)
		fmt.Fprintf(&script, "rm %s\nwrite %s %s\n", to, from, to)
		changed++
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	run(b, "debugfs", "-w", "-f", writeFile(b, "script", script.String()), disk)
	return changed
}

// changedBlocks counts blocks of 64 KiB that differ, and what they compress to.
func changedBlocks(b *testing.B, first, next string) (blocks int, compressed int64) {
	b.Helper()
	const size = 64 << 10
	var files [2]*os.File
	for i, path := range []string{first, next} {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	old, now := make([]byte, size), make([]byte, size)
	var enc tartfmt.Encoder
	for {
		if _, err := io.ReadFull(files[0], old); err != nil {
			return blocks, compressed
		}
		if _, err := io.ReadFull(files[1], now); err != nil {
			b.Fatal(err)
		}
		if !bytes.Equal(old, now) {
			blocks++
			compressed += int64(len(enc.Append(nil, now)))
		}
	}
}
