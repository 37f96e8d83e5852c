package image

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func stored(name string, used int, size int64) Stored {
	return Stored{Local: Local{Digest: name}, Size: size, LastUsed: time.Unix(int64(used), 0)}
}

func digests(images []Stored) []string {
	out := []string{}
	for _, img := range images {
		out = append(out, img.Digest)
	}
	return out
}

func TestExcess(t *testing.T) {
	held := stored("held", 1, 10)
	held.InUse = true
	images := []Stored{stored("new", 9, 10), stored("named", 1, 10), stored("old", 3, 10), held, stored("previous", 2, 10), stored("cloned", 2, 10), stored("older", 2, 10)}
	r := Retention{}
	for _, digest := range []string{"named", "elsewhere", "previous", "cloned", ""} {
		r.Need(digest, "of the test")
	}
	for _, tt := range []struct {
		floor int64
		want  []string
	}{
		{0, []string{}},
		{100, []string{}},
		{101, []string{"older"}},
		{110, []string{"older"}},
		{111, []string{"older", "old"}},
		{130, []string{"older", "old", "new"}},
		{math.MaxInt64, []string{"older", "old", "new"}},
	} {
		r.Floor = tt.floor
		if got := digests(r.Excess(images, 100)); !slices.Equal(got, tt.want) {
			t.Errorf("floor %d: %v, want %v", tt.floor, got, tt.want)
		}
	}
}

// Whatever there is: nothing that is needed goes, nothing goes without need,
// what goes was used no later than what could have gone and stays, and space
// is made wherever it can be.
func TestExcessProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 5000 {
		var images []Stored
		for i := range rnd.IntN(12) {
			img := stored(fmt.Sprint(i), rnd.IntN(6), rnd.Int64N(50))
			img.InUse = rnd.IntN(5) == 0
			images = append(images, img)
		}
		r := Retention{Floor: rnd.Int64N(400)}
		for _, img := range images {
			for range rnd.IntN(9) / 5 * rnd.IntN(4) {
				r.Need(img.Digest, fmt.Sprint("why ", rnd.IntN(2)))
			}
		}
		free := rnd.Int64N(300)
		gone := r.Excess(images, free)
		var freed int64
		for i, img := range gone {
			if r.Keeps(img) {
				t.Fatalf("round %d: %s goes and is needed", round, img.Digest)
			}
			if free+freed >= r.Floor {
				t.Fatalf("round %d: %s goes without need", round, img.Digest)
			}
			if i > 0 && img.LastUsed.Before(gone[i-1].LastUsed) {
				t.Fatalf("round %d: %s goes after one that was used later", round, img.Digest)
			}
			freed += img.Size
		}
		for _, img := range images {
			if r.Keeps(img) || slices.Contains(digests(gone), img.Digest) {
				continue
			}
			if free+freed < r.Floor {
				t.Fatalf("round %d: %s stays and the floor does not hold", round, img.Digest)
			}
			if n := len(gone); n > 0 && img.LastUsed.Before(gone[n-1].LastUsed) {
				t.Fatalf("round %d: %s stays, %s was used later and goes", round, img.Digest, gone[n-1].Digest)
			}
		}
	}
}

// Why an image stays is told once for each reason.
func TestWhy(t *testing.T) {
	var r Retention
	for _, why := range []string{"pool a runs on it", "pool b runs on it", "pool a runs on it"} {
		r.Need("x", why)
	}
	held := Stored{Local: Local{Digest: "y"}, InUse: true}
	for img, want := range map[*Stored]string{
		{Local: Local{Digest: "x"}, InUse: true}: "pool a runs on it; pool b runs on it", &held: "a process holds it", {Local: Local{Digest: "z"}}: "",
	} {
		if got := r.Why(*img); got != want {
			t.Errorf("%s: %q, want %q", img.Digest, got, want)
		}
	}
}
