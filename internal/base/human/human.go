// Package human writes amounts as people say them.
package human

import (
	"fmt"
	"time"
)

// Duration writes a duration by its two largest units at most: "2h 5m". One
// that is negative is "0s".
func Duration(d time.Duration) string {
	d = max(d, 0)
	if d < time.Minute {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}
	for i, u := range units {
		if d < u.size {
			continue
		}
		text := fmt.Sprintf("%d%s", d/u.size, u.name)
		if next := units[i+1]; d%u.size >= next.size {
			text += fmt.Sprintf(" %d%s", d%u.size/next.size, next.name)
		}
		return text
	}
	return ""
}

// Bytes writes an amount of bytes in units of 1000: "1.5 GB".
func Bytes(n int64) string {
	switch f := float64(n); {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000_000:
		return fmt.Sprintf("%.0f kB", f/1e3)
	case n < 1000_000_000:
		return fmt.Sprintf("%.1f MB", f/1e6)
	default:
		return fmt.Sprintf("%.1f GB", f/1e9)
	}
}

// Count writes "1 pool" or "2 pools".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
