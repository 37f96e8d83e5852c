package transfer_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// Pulls of images that share most of their content, prunes that remove all that
// nobody holds, and clones of what is there, all at once: what is held is whole
// and stays, and no pull fails or brings anything else.
func TestPullPruneAndCloneAtOnce(t *testing.T) {
	f := newDeltaFixture(t)
	disks := []string{f.first, f.next}
	second := mustPush(t, f.h, image.Source{Disk: f.next}, "r:next", f.opt)
	digests := []string{f.firstDigest, second}
	var whole [2]string
	for i, disk := range disks {
		whole[i] = readFile(t, disk)
	}
	s := openStore(t)
	dir := s.Dir()
	var pullers, pruner sync.WaitGroup
	done := make(chan struct{})
	pruner.Go(func() {
		other, err := store.Open(dir) // as another process would
		if err != nil {
			t.Error(err)
			return
		}
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := other.Prune(t.Context(), image.Retention{Floor: math.MaxInt64}, false); err != nil {
				t.Errorf("prune: %v", err)
				return
			}
		}
	})
	for p := range 2 {
		pullers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(p), 7))
			for n := 0; n < 3; {
				i := rnd.IntN(2)
				img, err := transfer.Pull(t.Context(), f.h.ref("r:x").WithDigest(digests[i]), s, f.opt)
				if errors.Is(err, image.ErrNotFound) {
					continue // removed between its last byte and our look
				}
				if err != nil {
					t.Errorf("pull %d: %v", i, err)
					return
				}
				release, err := s.Hold(digests[i])
				if errors.Is(err, image.ErrNotFound) || errors.Is(err, image.ErrInUse) {
					continue // pruned at once: it is asked for again
				}
				if err != nil {
					t.Errorf("hold %d: %v", i, err)
					return
				}
				got, err := os.ReadFile(img.Disk)
				if err != nil || string(got) != whole[i] {
					t.Errorf("image %d under a hold: %d bytes, %v; it is not what was pushed", i, len(got), err)
				}
				release()
				n++
			}
		})
	}
	pullers.Wait()
	close(done)
	pruner.Wait()
}
