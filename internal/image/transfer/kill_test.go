package transfer_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// Names of the variables that tell TestChildPulls what to do.
const (
	childRef = "TASUKI_TEST_PULL_REF"
	childDir = "TASUKI_TEST_PULL_DIR"
)

// TestChildPulls is not a test of its own but the process that TestKill9 kills.
func TestChildPulls(t *testing.T) {
	if os.Getenv(childRef) == "" {
		t.Skip("it is the child process of TestKill9")
	}
	ref, err := image.Parse(os.Getenv(childRef))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(os.Getenv(childDir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Pull(t.Context(), ref, s, quick()); err != nil {
		t.Fatal(err)
	}
}

// A process that pulls is killed, time after time, each time a little further
// on; the next one goes on, and no image is ever wrong.
func TestKill9(t *testing.T) {
	f := newFaultFixture(t)
	dir := filepath.Join(t.TempDir(), "images")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	deaths := 0
	for {
		killed := startChild(t, f, dir, 7)
		if !killed {
			break
		}
		deaths++
		if list, err := s.List(); len(list) != 0 || err != nil {
			t.Fatalf("after death %d the store shows %v, %v", deaths, list, err)
		}
	}
	if deaths < 2 {
		t.Errorf("the child finished after %d deaths: nothing was tested", deaths)
	}
	img, err := s.Get(f.digest)
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, f.disk, img.Disk)
	if left, err := os.ReadDir(filepath.Join(dir, "partial")); len(left) != 0 || err != nil {
		t.Errorf("left in partial: %v, %v", left, err)
	}
}

// Who dies after the last byte came, while the disk is made durable, which takes
// minutes for a large one, fetches nothing again.
func TestDeathOverTheCommit(t *testing.T) {
	f := newFaultFixture(t)
	s := openStore(t)
	obstacle := filepath.Join(partialDir(s, f.digest), "obstacle") // the commit fails at it
	if err := os.MkdirAll(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pull(t.Context(), s); err == nil {
		t.Fatal("the commit did not fail")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	f.h.requests("")
	img, err := f.pull(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, f.disk, img.Disk)
	if got := f.h.requests("GET /v2/r/blobs/"); len(got) != 2 { // both configurations
		t.Errorf("it fetched %d blobs again: %v", len(got), got)
	}
}

// startChild runs a pull in a process of its own and kills it at its nth fetch
// of a blob. It reports whether that happened before the pull was done.
func startChild(t *testing.T, f *faultFixture, dir string, n int) (killed bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var child *os.Process
	var mu sync.Mutex // held until child is set
	mu.Lock()
	f.h.breakWith(onLayers(func(i int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if i == n {
			mu.Lock()
			defer mu.Unlock()
			if err := child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
			killed = true
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}))
	ref := f.h.ref("r:t").WithDigest(f.digest).String()
	child, err = os.StartProcess(self, []string{self, "-test.run=^TestChildPulls$"}, &os.ProcAttr{
		Env:   append(os.Environ(), childRef+"="+ref, childDir+"="+dir),
		Files: []*os.File{nil, nil, os.Stderr},
	})
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	state, err := child.Wait()
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !killed && !state.Success() {
		t.Fatalf("the child failed: %v", state)
	}
	return killed
}
