package transfer_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// What a benchmark reads from its environment.
const (
	// benchRoot is the folder that the disk's file system is filled with.
	benchRoot = "TASUKI_BENCH_ROOT"
	// benchGiB is the size of that disk.
	benchGiB = "TASUKI_BENCH_GIB"
)

// BenchmarkPeers brings one image to a usable raw disk in every way that people
// use, in turns, from one registry on this host, and beside them what bounds
// it: copying the disk. It prints the medians. Programs that are not on PATH
// are left out.
//
//	make bench-images
//
// "ready" is when the disk can be read, "durable" when it would survive a power
// loss; our pull ends only then. The others unpack with our own decoder,
// on all processors, and without verifying more than they did themselves.
func BenchmarkPeers(b *testing.B) {
	site := newBenchSite(b)
	all := site.contenders(b)
	took := map[string][]lap{}
	for b.Loop() {
		for _, c := range all {
			unix.Sync() // nobody pays for what another one wrote
			took[c.name] = append(took[c.name], site.run(b, c))
		}
	}
	b.Logf("disk of %d MiB, %d MiB of data, %d MiB to fetch; %d rounds\n%s",
		site.info.DiskSize>>20, allocated(b, site.disk)>>20, site.info.Download>>20, len(took[all[0].name]), table(all, took))
}

// lap is one run of a contender.
type lap struct{ ready, durable, cpu time.Duration }

// contender is one way to get a disk into a folder.
type contender struct {
	name string
	run  func(b *testing.B, dir string) (disk string)
}

// benchSite is a registry with an image, and the disk that it was made of.
type benchSite struct {
	h    *hub
	disk string
	ref  image.Ref
	info transfer.Inspection
}

func newBenchSite(b *testing.B) *benchSite {
	b.Helper()
	s := &benchSite{h: newHub(b), disk: ext4Disk(b)}
	s.ref = s.h.ref("bench:t")
	mustPush(b, s.h, image.Source{Disk: s.disk}, "bench:t", quick())
	var err error
	if s.info, err = transfer.Inspect(b.Context(), s.ref, quick()); err != nil {
		b.Fatal(err)
	}
	return s
}

// ext4Disk makes a disk whose file system holds a folder of this host.
func ext4Disk(b *testing.B) string {
	b.Helper()
	gib, err := strconv.ParseInt(cmp.Or(os.Getenv(benchGiB), "4"), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(path, gib<<30); err != nil {
		b.Fatal(err)
	}
	run(b, "mke2fs", "-q", "-F", "-t", "ext4", "-d", cmp.Or(os.Getenv(benchRoot), "/usr/share"), path)
	return path
}

// run runs a program to its end.
func run(b testing.TB, name string, args ...string) {
	b.Helper()
	path, err := proc.Look(name)
	if err != nil {
		b.Skip(err)
	}
	if res, err := proc.Run(b.Context(), proc.Cmd{Path: path, Args: args}); err != nil {
		b.Fatalf("%s: %v: %s", name, err, res.Stderr)
	}
}

func (s *benchSite) contenders(b *testing.B) []contender {
	all := []contender{
		{"copy", s.copyDisk(false)},
		{"copy and hash", s.copyDisk(true)},
		{"tasuki", s.tasuki},
	}
	for _, peer := range []struct {
		name, blobs string
		args        func(dir string) []string
	}{
		{"skopeo", "out", func(dir string) []string {
			return []string{"copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "docker://" + s.ref.String(), "dir:" + dir + "/out"}
		}},
		{"crane", "out/blobs/sha256", func(dir string) []string {
			return []string{"pull", "--insecure", "--format=oci", s.ref.String(), dir + "/out"}
		}},
		{"oras", "out/blobs/sha256", func(dir string) []string {
			return []string{"copy", "--no-tty", "--from-plain-http", s.ref.String(), "--to-oci-layout", dir + "/out:t"}
		}},
	} {
		if _, err := proc.Look(peer.name); err != nil {
			b.Logf("%s is left out: %v", peer.name, err)
			continue
		}
		all = append(all, contender{peer.name + ", then unpack", func(b *testing.B, dir string) string {
			run(b, peer.name, peer.args(dir)...)
			return s.unpack(b, filepath.Join(dir, peer.blobs), dir)
		}})
	}
	return all
}

// run times a contender and checks what it made.
func (s *benchSite) run(b *testing.B, c contender) lap {
	b.Helper()
	dir, err := os.MkdirTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	before, start := cpuTime(b), time.Now()
	disk := c.run(b, dir)
	l := lap{ready: time.Since(start), cpu: cpuTime(b) - before}
	f, err := os.Open(disk)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	l.durable = time.Since(start)
	if got := diskDigest(b, disk); got != diskDigest(b, s.disk) {
		b.Fatalf("%s made another disk", c.name)
	}
	return l
}

// diskDigest is cheap and enough to find a wrong disk: of some places.
func diskDigest(b *testing.B, path string) string {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	all := fmt.Sprint(info.Size())
	for off := int64(0); off+mib < info.Size(); off += 61 * mib {
		d, err := sparse.Digest(f, off, mib)
		if err != nil {
			b.Fatal(err)
		}
		all += d
	}
	return all
}

// cpuTime is what this process, which has the registry in it, and its finished
// children used so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// tasuki pulls in a process of its own, as the others do.
func (s *benchSite) tasuki(b *testing.B, dir string) string {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	res, err := proc.Run(b.Context(), proc.Cmd{
		Path: self, Args: []string{"-test.run=^TestChildPulls$"}, Env: []string{childRef + "=" + s.ref.String(), childDir + "=" + dir + "/images"},
	})
	if err != nil {
		b.Fatalf("%v: %s", err, res.Stdout)
	}
	return filepath.Join(dir, "images", "sha256-"+image.DigestHex(s.info.Digest), "disk.img")
}

// copyDisk copies the data of the disk; with hash it also computes the sha256
// of every chunk's content, on all processors.
func (s *benchSite) copyDisk(hash bool) func(*testing.B, string) string {
	return func(b *testing.B, dir string) string {
		path := filepath.Join(dir, "disk.img")
		if !hash {
			copySparse(b, s.disk, path)
			return path
		}
		src, err := os.Open(s.disk)
		if err != nil {
			b.Fatal(err)
		}
		defer src.Close()
		s.eachChunk(b, path, func(ch tartfmt.Chunk, dst *os.File) error {
			got, err := sparse.Copy(dst, ch.Offset, src, ch.Offset, ch.RawSize)
			if err == nil && got != ch.RawDigest {
				err = fmt.Errorf("chunk at %d has the digest %s", ch.Offset, got)
			}
			return err
		})
		return path
	}
}

// unpack makes a disk of the layers in a folder.
func (s *benchSite) unpack(b *testing.B, blobs, dir string) string {
	path := filepath.Join(dir, "disk.img")
	s.eachChunk(b, path, func(ch tartfmt.Chunk, dst *os.File) error {
		f, err := os.Open(filepath.Join(blobs, image.DigestHex(ch.Digest)))
		if err != nil {
			return err
		}
		defer f.Close()
		return new(tartfmt.Decoder).Decode(&sparseAt{dst, ch.Offset}, f, ch.RawSize)
	})
	return path
}

// eachChunk makes the disk at path from the chunks that are not zeros.
func (s *benchSite) eachChunk(b *testing.B, path string, do func(tartfmt.Chunk, *os.File) error) {
	b.Helper()
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer dst.Close()
	if err := dst.Truncate(s.info.DiskSize); err != nil {
		b.Fatal(err)
	}
	var zeros tartfmt.Zeros
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, ch := range s.info.Manifest.Chunks {
		if !zeros.Chunk(ch) {
			g.Go(func() error { return do(ch, dst) })
		}
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// sparseAt writes one thing after another from a place on, and leaves out zeros.
type sparseAt struct {
	f   *os.File
	off int64
}

func (w *sparseAt) Write(p []byte) (int, error) {
	err := sparse.WriteAt(w.f, p, w.off)
	w.off += int64(len(p))
	return len(p), err
}

// table prints medians.
func table(all []contender, took map[string][]lap) string {
	median := func(name string, of func(lap) time.Duration) float64 {
		var v []time.Duration
		for _, l := range took[name] {
			v = append(v, of(l))
		}
		return medianOf(v).Seconds()
	}
	s := fmt.Sprintf("%-22s %8s %8s %8s\n", "seconds", "ready", "durable", "cpu")
	for _, c := range all {
		s += fmt.Sprintf("%-22s %8.2f %8.2f %8.2f\n", c.name,
			median(c.name, func(l lap) time.Duration { return l.ready }),
			median(c.name, func(l lap) time.Duration { return l.durable }),
			median(c.name, func(l lap) time.Duration { return l.cpu }))
	}
	return s
}

func medianOf(v []time.Duration) time.Duration {
	slices.Sort(v)
	return v[len(v)/2]
}
