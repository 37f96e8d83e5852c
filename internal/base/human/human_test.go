package human_test

import (
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/human"
)

func TestAmountsAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1900 * time.Millisecond: "1s", 59 * time.Second: "59s", 60 * time.Second: "1m", 61 * time.Second: "1m 1s",
		time.Hour: "1h", time.Hour + 5*time.Second: "1h", 26 * time.Hour: "1d 2h", 2*time.Hour + 5*time.Minute + time.Second: "2h 5m", 49 * time.Hour: "2d 1h",
	} {
		if got := human.Duration(d); got != want {
			t.Errorf("Duration(%v) is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "2 kB", 2_500_000: "2.5 MB", 21_000_000_000: "21.0 GB"} {
		if got := human.Bytes(n); got != want {
			t.Errorf("Bytes(%d) is %q, want %q", n, got, want)
		}
	}
	if one, two := human.Count(1, "pool"), human.Count(2, "pool"); one != "1 pool" || two != "2 pools" {
		t.Errorf("%q and %q", one, two)
	}
}
