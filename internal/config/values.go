package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time as people write it: "90s", "30m", "6h", "2d".
type Duration time.Duration

// UnmarshalText reads Go's notation and whole days.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a duration; write 90s, 30m, 6h or 2d", s)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration; write 90s, 30m, 6h or 2d", s)
	}
	if v < 0 {
		return fmt.Errorf("%q is less than nothing; write a duration such as 30m", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the shortest form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the duration without units that are zero: "6h", not "6h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is an amount of memory or disk in bytes.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
}

// UnmarshalText reads a number with a unit.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.bytes > 1<<60 {
			break
		}
		*s = Size(v * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size; write a number and a unit, such as 4GiB or 80GB", text)
}

// MarshalText writes the largest unit that keeps the number whole.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the size in the largest unit that keeps the number whole.
func (s Size) String() string {
	if s == 0 {
		return "0GiB"
	}
	for _, unit := range []string{"TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"} {
		for _, u := range sizeUnits {
			if n := Size(u.bytes); u.suffix == unit && s%n == 0 {
				return strconv.FormatInt(int64(s/n), 10) + unit
			}
		}
	}
	return strconv.FormatFloat(float64(s)/(1<<20), 'f', -1, 64) + "MiB"
}

// MiB is the size in units of 2^20 bytes, rounded up.
func (s Size) MiB() int { return int((s + 1<<20 - 1) >> 20) }

// GB is the size in units of 10^9 bytes, rounded up.
func (s Size) GB() int { return int((s + 1e9 - 1) / 1e9) }

// Mode is the permission bits of a file, written in octal.
type Mode uint32

// UnmarshalText reads octal digits.
func (m *Mode) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(string(b), "0o"), 8, 32)
	if err != nil || v > 0o777 {
		return fmt.Errorf("%q is not a file mode; write three octal digits, such as 0644", b)
	}
	*m = Mode(v)
	return nil
}

// MarshalText writes four octal digits.
func (m Mode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// Command is a program and its arguments, run without a shell.
type Command []string
