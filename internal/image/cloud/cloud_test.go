package cloud_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image/cloud"
)

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(s[:])
}

// server sends data, each time with another fault first.
type server struct {
	data []byte

	mu     sync.Mutex
	faults []func(w http.ResponseWriter) (done bool)
	ranges []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	var fault func(http.ResponseWriter) bool
	if len(s.faults) > 0 {
		fault, s.faults = s.faults[0], s.faults[1:]
	}
	s.mu.Unlock()
	if fault == nil || !fault(w) {
		http.ServeContent(w, r, "disk", time.Time{}, bytes.NewReader(s.data))
	}
}

func TestADownloadGoesOnWhereItWasCut(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	s := &server{data: data, faults: []func(http.ResponseWriter) bool{
		func(w http.ResponseWriter) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:40_000])
			panic(http.ErrAbortHandler)
		},
		func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusServiceUnavailable); return true },
	}}
	hs := httptest.NewServer(s)
	defer hs.Close()
	c := &cloud.Cache{Dir: t.TempDir()}
	var last int64
	path, err := c.Fetch(t.Context(), hs.URL+"/disk", sum(data), func(done, total int64) { last = done })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) || last != int64(len(data)) {
		t.Errorf("got %d bytes, %v, progress up to %d; want %d", len(got), err, last, len(data))
	}
	if len(s.ranges) != 3 || s.ranges[2] == "" || s.ranges[2] != s.ranges[1] {
		t.Errorf("ranges that were asked for: %q; the third should go on where the first was cut", s.ranges)
	}
	if _, err := c.Fetch(t.Context(), hs.URL+"/disk", sum(data), nil); err != nil || len(s.ranges) != 3 {
		t.Errorf("a second fetch asked the server, or failed: %v", err)
	}
	// What was damaged here is fetched again.
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Fetch(t.Context(), hs.URL+"/disk", sum(data), nil); err != nil || again != path {
		t.Errorf("after damage: %q, %v", again, err)
	}
}

func TestWhatIsAnotherFileIsRefused(t *testing.T) {
	hs := httptest.NewServer(&server{data: []byte("evil")})
	defer hs.Close()
	c := &cloud.Cache{Dir: t.TempDir()}
	for range 2 { // nothing of the first try stays
		if _, err := c.Fetch(t.Context(), hs.URL, sum([]byte("good")), nil); !errors.Is(err, cloud.ErrChecksum) {
			t.Errorf("got %v, want ErrChecksum", err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, bad := range []string{"", "sha256:12", "md5:" + strings.Repeat("0", 32), strings.ToUpper(sum(nil))} {
		if _, err := c.Fetch(t.Context(), hs.URL, bad, nil); err == nil || !strings.Contains(err.Error(), "is not a checksum") {
			t.Errorf("checksum %q: got %v", bad, err)
		}
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	defer gone.Close()
	if _, err := c.Fetch(t.Context(), gone.URL, sum(nil), nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a file that is not there: got %v", err)
	}
}

func TestFilesOfThisHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk.img")
	data := make([]byte, 1<<20)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s512 := sha512.Sum512(data)
	c := &cloud.Cache{Dir: filepath.Join(t.TempDir(), "cache")}
	for from, checksum := range map[string]string{file: sum(data), "file://" + file: "sha512:" + hex.EncodeToString(s512[:])} {
		if got, err := c.Disk(t.Context(), from, checksum, nil); err != nil || got != file {
			t.Errorf("%s: got %q, %v", from, got, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(iotest.ErrTimeout)
	if _, err := c.Disk(ctx, file, sum(data), nil); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("called off: got %v", err)
	}
}

// A qcow2 file that takes its content from another file would bring files of
// this host into an image.
func TestADiskThatNamesOthersIsRefused(t *testing.T) {
	if _, err := proc.Look("qemu-img"); err != nil {
		t.Skip("needs qemu-img: sudo apt-get install qemu-utils")
	}
	dir := t.TempDir()
	c := &cloud.Cache{Dir: filepath.Join(dir, "cache")}
	img := func(args ...string) {
		t.Helper()
		if _, err := proc.Run(t.Context(), proc.Cmd{Path: "qemu-img", Args: args, Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	img("create", "-q", "-f", "raw", "secret", "1M")
	img("create", "-q", "-f", "qcow2", "good.qcow2", "1M")
	img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret", "backed.qcow2")
	img("create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "split.qcow2", "1M")
	for name, want := range map[string]string{
		"good.qcow2": "", "backed.qcow2": "it names a backing file", "split.qcow2": "it names an external data file",
	} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Disk(t.Context(), path, sum(data), nil)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
			}
			continue
		}
		if info, statErr := os.Stat(got); err != nil || statErr != nil || info.Size() != 1<<20 {
			t.Errorf("%s: %v, %v, %v", name, got, err, statErr)
		}
	}
}

// TestSeed reads the medium by the offsets of ECMA-119.
func TestSeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.iso")
	seed := cloud.Seed{Instance: "i-1", Hostname: "h", User: "runner", Key: `ssh-ed25519 AAAA it's "quoted"`}
	if err := seed.Write(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	descriptor := b[16*2048:]
	if string(descriptor[:7]) != "\x01CD001\x01" || strings.TrimRight(string(descriptor[40:72]), " ") != "cidata" {
		t.Fatalf("no volume named cidata: %q", descriptor[:80])
	}
	if sectors := binary.LittleEndian.Uint32(descriptor[80:]); int(sectors)*2048 != len(b) {
		t.Errorf("the volume has %d sectors and %d bytes", sectors, len(b))
	}
	root := b[binary.LittleEndian.Uint32(descriptor[158:])*2048:]
	files := map[string]string{}
	for at := 0; root[at] != 0; at += int(root[at]) {
		r := root[at:]
		name := string(r[33 : 33+r[32]])
		if start, size := binary.LittleEndian.Uint32(r[2:]), binary.BigEndian.Uint32(r[14:]); r[25]&2 == 0 {
			files[name] = string(b[start*2048 : start*2048+size])
		}
	}
	if len(files) != 2 || !strings.Contains(files["meta-data"], `"instance-id":"i-1"`) || !strings.HasPrefix(files["user-data"], "#cloud-config\n{") ||
		!strings.Contains(files["user-data"], `it's \"quoted\"`) {
		t.Errorf("files: %q", files)
	}
	if out, err := proc.Run(t.Context(), proc.Cmd{Path: "blkid", Args: []string{"-p", "-o", "value", "-s", "LABEL", path}}); err == nil {
		if got := strings.TrimSpace(string(out.Stdout)); got != "cidata" {
			t.Errorf("blkid takes it for %q", got)
		}
	}
}
