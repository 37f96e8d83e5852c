package transfer_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// Incident stale-tag: a cached tag was cloned for ever and never refreshed.
func TestStaleTag(t *testing.T) {
	h := newHub(t)
	s := openStore(t)
	disk := makeDisk(t, 4*mib, mib)
	for _, version := range []string{"1", "2", "3"} {
		want := mustPush(t, h, image.Source{Disk: disk, Labels: map[string]string{image.LabelRecipe: version}}, "r:t", quick())
		img, err := transfer.Pull(t.Context(), h.ref("r:t"), s, quick())
		if err != nil || img.Digest != want || img.Labels[image.LabelRecipe] != version {
			t.Errorf("version %s: pull = %s, %v, want %s", version, img.Digest, err, want)
		}
		if d, err := s.Resolve(h.ref("r:t")); err != nil || d != want {
			t.Errorf("version %s: the tag means %s here, %v", version, d, err)
		}
	}
	if list, err := s.List(); len(list) != 3 || err != nil {
		t.Errorf("%d images are here, %v; none may replace another", len(list), err)
	}
}

// Incident pull-storm: every host pulled at once and the registry collapsed. It
// can say so: who is told to come back later does, and not before.
func TestPullStorm(t *testing.T) {
	const hosts, atOnce = 6, 3
	f := newFaultFixture(t)
	var mu sync.Mutex
	var busy, most, refused, early int
	notBefore := map[string]time.Time{} // by host and path
	f.h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !isBlobGet(r) {
			next.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		who := r.Header.Get("X-Host") + r.URL.Path
		if time.Now().Before(notBefore[who]) {
			early++
		}
		if busy == atOnce {
			refused++
			notBefore[who] = time.Now().Add(time.Second)
			mu.Unlock()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		busy++
		most = max(most, busy)
		mu.Unlock()
		next.ServeHTTP(w, r)
		mu.Lock()
		busy--
		mu.Unlock()
	})
	var wg sync.WaitGroup
	for host := range hosts {
		s, opt := openStore(t), f.opt
		opt.Transport = named{fmt.Sprint("host", host)}
		wg.Go(func() {
			img, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, opt)
			if err != nil || img.Digest != f.digest {
				t.Errorf("host %d: %s, %v", host, img.Digest, err)
			}
		})
	}
	wg.Wait()
	if refused == 0 || early > 0 || most > atOnce {
		t.Errorf("%d requests were refused and %d came again too early; %d at once", refused, early, most)
	}
}

// named says which host a request comes from.
type named struct{ host string }

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Host", n.host)
	return http.DefaultTransport.RoundTrip(r)
}

// Incident pull-on-job-path: jobs waited for a pull. While the next image comes,
// the one of before is there at once for whoever needs it.
func TestPullOnJobPath(t *testing.T) {
	f := newDeltaFixture(t)
	s := openStore(t)
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err != nil {
		t.Fatal(err)
	}
	next := mustPush(t, f.h, image.Source{Disk: f.next}, "r:t", f.opt)
	underWay, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.h.breakWith(onLayers(func(n int, w http.ResponseWriter, r *http.Request, handler http.Handler) {
		if n > 1 {
			once.Do(func() { close(underWay) })
			<-goOn
		}
		handler.ServeHTTP(w, r)
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		img, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt)
		if err != nil || img.Digest != next {
			t.Errorf("pull = %s, %v", img.Digest, err)
		}
	})
	<-underWay
	digest, err := s.Resolve(f.h.ref("r:t"))
	if err != nil || digest != f.firstDigest {
		t.Errorf("during the pull the tag means %s, %v, want the image of before", digest, err)
	}
	release, err := s.Hold(digest)
	if err != nil {
		t.Errorf("during the pull the image of before cannot be held: %v", err)
	} else {
		release()
	}
	close(goOn)
	wg.Wait()
	if digest, err := s.Resolve(f.h.ref("r:t")); err != nil || digest != next {
		t.Errorf("after the pull the tag means %s, %v, want %s", digest, err, next)
	}
}

// A limit holds for what a pull fetches, and nothing is lost to it.
func TestAPullKeepsToItsLimit(t *testing.T) {
	f := newFaultFixture(t)
	in, err := transfer.Inspect(t.Context(), f.h.ref("r:t"), f.opt)
	if err != nil {
		t.Fatal(err)
	}
	f.opt.Limit = transfer.NewLimiter(2 * in.Download)
	start := time.Now()
	img, err := f.pull(t.Context(), openStore(t))
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, f.disk, img.Disk)
	if took := time.Since(start); took < 300*time.Millisecond { // a half of a second, less what is let through at once
		t.Errorf("%d bytes at %d a second took %v", in.Download, 2*in.Download, took)
	}
}
