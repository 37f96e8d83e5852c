package transfer_test

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

func TestRoundTripKeepsEveryBitAndHole(t *testing.T) {
	size, data := int64(1<<30), int64(400*mib)
	switch {
	case os.Getenv("TASUKI_SOAK") != "":
		size, data = 20<<30, 8<<30
	case testing.Short():
		size, data = 128*mib, 30*mib
	}
	h := newHub(t)
	disk := makeDisk(t, size+12345, data) // the last chunk is short and odd
	src := image.Source{Disk: disk, NVRAM: writeFile(t, "nvram", "variables"), Labels: map[string]string{image.LabelOS: "linux", image.LabelUser: "runner"}}
	var last transfer.Progress
	opt := quick()
	opt.Progress = func(p transfer.Progress) { last = p }
	digest := mustPush(t, h, src, "vm/runner:v1", opt)
	if want := (transfer.Progress{Phase: transfer.PhasePush, Done: size + 12345, Total: size + 12345}); last != want {
		t.Errorf("push ended with %+v, want %+v", last, want)
	}
	s := openStore(t)
	img, err := transfer.Pull(t.Context(), h.ref("vm/runner:v1"), s, opt)
	if err != nil {
		t.Fatal(err)
	}
	if img.Digest != digest || img.DiskSize != size+12345 || img.Labels[image.LabelUser] != "runner" || img.Kernel != "" {
		t.Errorf("pulled %+v", img)
	}
	sameFile(t, disk, img.Disk)
	if got, want := allocated(t, img.Disk), allocated(t, disk); got > want+want/50+mib {
		t.Errorf("the pulled disk takes %d bytes, the original %d: holes were filled", got, want)
	}
	if _, err := s.Verify(t.Context(), digest, nil); err != nil {
		t.Error(err)
	}
	if got := readFile(t, img.NVRAM); got != "variables" {
		t.Errorf("nvram is %q", got)
	}
	if left, err := os.ReadDir(img.Dir); err != nil || len(left) != 6 {
		t.Errorf("the image's directory holds %v, %v", left, err)
	}
}

func TestZerosAndEqualChunksAreNotMovedTwice(t *testing.T) {
	h := newHub(t)
	const chunk = mib
	disk := make([]byte, 16*chunk)
	for _, i := range []int{3, 7, 12} { // three equal chunks, thirteen of zeros
		for j := range chunk {
			disk[i*chunk+j] = byte(j % 251)
		}
	}
	path := writeFile(t, "disk", string(disk)) // written whole: no holes to see
	opt := quick()
	opt.ChunkSize = chunk
	opt.Parallel = 1
	if _, err := transfer.Push(t.Context(), image.Source{Disk: path}, h.ref("r:t"), opt); err != nil {
		t.Fatal(err)
	}
	if puts := h.requests("PUT /v2/r/blobs/uploads/"); len(puts) != 2+3 { // zeros, data, two configs, nvram
		t.Errorf("%d blobs uploaded: %v", len(puts), puts)
	}
	img, err := transfer.Pull(t.Context(), h.ref("r:t"), openStore(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	if gets := h.requests("GET /v2/r/blobs/"); len(gets) != 1+2 { // data, two configs
		t.Errorf("%d blobs fetched: %v", len(gets), gets)
	}
	sameFile(t, path, img.Disk)
	if got := allocated(t, img.Disk); got > 4*chunk {
		t.Errorf("the pulled disk takes %d bytes", got)
	}
}

func TestPushSkipsWhatTheRegistryHas(t *testing.T) {
	h := newHub(t)
	disk := makeDisk(t, 64*mib, 20*mib)
	opt := quick()
	first := mustPush(t, h, image.Source{Disk: disk}, "r:a", opt)
	second, err := transfer.Push(t.Context(), image.Source{Disk: disk}, h.ref("r:b"), opt)
	if err != nil || second != first {
		t.Errorf("second push: %s, %v, want %s", second, err, first)
	}
	if puts := h.requests("PUT /v2/r/blobs/"); len(puts) != 0 {
		t.Errorf("blobs sent again: %v", puts)
	}
}

func TestKernelAndInitrdTravelAsAnArtifact(t *testing.T) {
	h := newHub(t)
	src := image.Source{
		Disk: makeDisk(t, 4*mib, 2*mib), Kernel: writeFile(t, "vmlinuz", "the kernel"), Initrd: writeFile(t, "initrd", "the initrd"),
		Labels: map[string]string{image.LabelBoot: image.BootKernel, image.LabelCmdline: "console=ttyS0"},
	}
	digest := mustPush(t, h, src, "r:t", quick())
	if src.Labels[image.LabelKernelDigest] != "" {
		t.Error("the caller's labels were changed")
	}
	img, err := transfer.Pull(t.Context(), h.ref("r:t").WithDigest(digest), openStore(t), quick())
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, img.Kernel) + readFile(t, img.Initrd); got != "the kernelthe initrd" {
		t.Errorf("kernel and initrd are %q", got)
	}
	if img.NVRAM != "" {
		t.Errorf("an image without firmware variables has the nvram %q", img.NVRAM)
	}
	if m := readFile(t, img.Dir+"/manifest.json"); strings.Contains(m, "kernel") {
		t.Errorf("the image's manifest speaks of the kernel: %s", m)
	}
	// Without the artifact there is no image, and the error says what is missing.
	resp := h.delete(t, "/v2/r/manifests/sha256-"+strings.TrimPrefix(digest, "sha256:")+".boot")
	if resp != http.StatusAccepted {
		t.Fatalf("deleting the artifact: status %d", resp)
	}
	s := openStore(t)
	_, err = transfer.Pull(t.Context(), h.ref("r:t"), s, quick())
	if err == nil || !strings.Contains(err.Error(), "boot artifact") {
		t.Errorf("pull without the boot artifact: %v", err)
	}
}

// The tag of a boot artifact can be moved by whoever may push; the image's own
// digest decides which kernel is booted all the same.
func TestAForeignKernelIsRefused(t *testing.T) {
	h := newHub(t)
	disk := makeDisk(t, 4*mib, mib)
	labels := map[string]string{image.LabelBoot: image.BootKernel}
	good := mustPush(t, h, image.Source{Disk: disk, Labels: labels, Kernel: writeFile(t, "k", "good")}, "r:t", quick())
	evil := mustPush(t, h, image.Source{Disk: disk, Labels: labels, Kernel: writeFile(t, "k", "evil")}, "r:e", quick())
	tag := func(d string) string {
		return "/v2/r/manifests/sha256-" + strings.TrimPrefix(d, "sha256:") + ".boot"
	}
	h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == tag(good) {
			r.URL.Path = tag(evil)
		}
		next.ServeHTTP(w, r)
	})
	_, err := transfer.Pull(t.Context(), h.ref("r:t"), openStore(t), quick())
	if err == nil || !strings.Contains(err.Error(), "the image wants") {
		t.Errorf("pull with a foreign kernel: %v", err)
	}
}

func TestResolveFollowsTheTag(t *testing.T) {
	h := newHub(t)
	disk := makeDisk(t, 4*mib, mib)
	if _, err := transfer.Resolve(t.Context(), h.ref("r:t"), quick()); !errors.Is(err, image.ErrNotInRegistry) {
		t.Errorf("a missing image: %v", err)
	}
	for _, user := range []string{"a", "b"} {
		digest := mustPush(t, h, image.Source{Disk: disk, Labels: map[string]string{image.LabelUser: user}}, "r:t", quick())
		got, err := transfer.Resolve(t.Context(), h.ref("r:t"), quick())
		if err != nil || got != digest {
			t.Errorf("Resolve = %s, %v, want %s", got, err, digest)
		}
	}
}

// Incident registry-down-cached: a pull that failed although the image was on
// the disk stopped every job.
func TestRegistryDownCached(t *testing.T) {
	h := newHub(t)
	digest := mustPush(t, h, image.Source{Disk: makeDisk(t, 4*mib, mib)}, "r:t", quick())
	s := openStore(t)
	want, err := transfer.Pull(t.Context(), h.ref("r:t"), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	h.breakWith(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusBadGateway) })
	got, err := transfer.Pull(t.Context(), h.ref("r:t").WithDigest(digest), s, quick())
	if err != nil {
		t.Fatalf("pull by digest of what is there: %v", err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b image.Ref) bool { return a == b })); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	if d, err := s.Resolve(h.ref("r:t")); err != nil || d != digest {
		t.Errorf("the tag's last meaning: %s, %v", d, err)
	}
	if _, err := transfer.Resolve(t.Context(), h.ref("r:t"), quick()); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("Resolve = %v, want what the registry said", err)
	}
}

func TestConcurrentPullsAreOneTransfer(t *testing.T) {
	h := newHub(t)
	opt := quick()
	opt.ChunkSize = mib
	digest := mustPush(t, h, image.Source{Disk: makeDisk(t, 16*mib, 8*mib)}, "r:t", opt)
	s := openStore(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			img, err := transfer.Pull(t.Context(), h.ref("r:t"), s, opt)
			if err != nil || img.Digest != digest {
				t.Errorf("pull: %s, %v", img.Digest, err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, get := range h.requests("GET /v2/r/blobs/") {
		if seen[get] {
			t.Errorf("fetched twice: %s", get)
		}
		seen[get] = true
	}
}

func TestLogin(t *testing.T) {
	h := newHub(t)
	h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if user, pass, ok := r.BasicAuth(); !ok || user != "ci" || pass != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	src := image.Source{Disk: makeDisk(t, 4*mib, mib)}
	opt := quick()
	opt.Username, opt.Password = "ci", secret.New("wrong-pass")
	_, err := transfer.Push(t.Context(), src, h.ref("r:t"), opt)
	if err == nil || !strings.Contains(err.Error(), "user name and password") || strings.Contains(err.Error(), "wrong-pass") {
		t.Errorf("a wrong password: %v", err)
	}
	opt.Password = secret.New("s3cret")
	if _, err := transfer.Push(t.Context(), src, h.ref("r:t"), opt); err != nil {
		t.Error(err)
	}
}

func TestPlainHTTPNeedsLeave(t *testing.T) {
	// The registry's name is no loopback address; the requests go to one all the same.
	h := newHub(t)
	ref, err := image.Parse("10.1.2.3:5000/r:t")
	if err != nil {
		t.Fatal(err)
	}
	opt := quick()
	opt.Tries = 2
	opt.Transport = redirectTransport{h.host}
	src := image.Source{Disk: makeDisk(t, 4*mib, mib)}
	if _, err := transfer.Push(t.Context(), src, ref, opt); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("push without leave: %v", err)
	}
	if got := h.requests("PUT"); len(got) != 0 {
		t.Errorf("it was sent in plain: %v", got)
	}
	opt.Insecure = true
	if _, err := transfer.Push(t.Context(), src, ref, opt); err != nil {
		t.Errorf("push with leave: %v", err)
	}
}

func TestPushSaysWhatIsWrong(t *testing.T) {
	h := newHub(t)
	disk := makeDisk(t, 4*mib, mib)
	tests := map[string]struct {
		src  image.Source
		ref  image.Ref
		word string
	}{
		"no disk":      {image.Source{Disk: "/nonexistent/disk"}, h.ref("r:t"), "/nonexistent/disk"},
		"empty disk":   {image.Source{Disk: writeFile(t, "d", "")}, h.ref("r:t"), "0 bytes"},
		"no kernel":    {image.Source{Disk: disk, Kernel: "/nonexistent/k"}, h.ref("r:t"), "/nonexistent/k"},
		"to a digest":  {image.Source{Disk: disk}, h.ref("r:t").WithDigest("sha256:" + strings.Repeat("a", 64)), "needs a tag"},
		"nobody there": {image.Source{Disk: disk}, closedPort(t), "connection refused"},
	}
	for name, tt := range tests {
		opt := quick()
		opt.Tries = 2
		if _, err := transfer.Push(t.Context(), tt.src, tt.ref, opt); err == nil || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: %v, want a word about %q", name, err, tt.word)
		}
	}
}
