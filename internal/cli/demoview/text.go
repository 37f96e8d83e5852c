package demoview

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// marks are the few signs that are not ASCII.
type marks struct{ good, bad, none, bar, gap, rule, arrow, dots string }

var (
	unicodeMarks = marks{"✓", "✗", "–", "█", "░", "│", "→", "…"}
	asciiMarks   = marks{"ok", "FAIL", "-", "#", ".", "|", "->", "..."}
)

// The colours, as SGR parameters (ECMA-48 8.3.117).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// seconds writes a duration as people compare it: "0.4 s", "38 s", "2 min 05 s".
func seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "0.0 s"
	case d < 20*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
}

// bytes writes a count of bytes in powers of ten.
func bytes(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n < 10_000_000_000:
		return fmt.Sprintf("%d MB", n/1_000_000)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

var (
	escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?`)
	stamp   = regexp.MustCompile(`^\x{feff}?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ?`)
)

// plain makes a line of a guest's fit to be shown.
func plain(line string) string {
	line = escapes.ReplaceAllString(line, "")
	line = strings.ReplaceAll(line, "\t", "    ")
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, line)
}

// logLines splits a step's log and drops the time that begins each line.
func logLines(log string) []string {
	log = strings.TrimRight(strings.ReplaceAll(log, "\r\n", "\n"), "\n")
	if log == "" {
		return nil
	}
	lines := strings.Split(log, "\n")
	for i, line := range lines {
		lines[i] = plain(stamp.ReplaceAllString(line, ""))
	}
	return lines
}

// bound keeps the beginning and, above all, the end of a log.
func bound(lines []string, most int) (head, tail []string, left int) {
	if len(lines) <= most {
		return lines, nil, 0
	}
	first := most / 4
	return lines[:first], lines[len(lines)-(most-first):], len(lines) - most
}

// cut shortens a line to so many columns.
func cut(line string, columns int) string {
	if columns <= 0 {
		return line
	}
	runes := []rune(line)
	if len(runes) <= columns {
		return line
	}
	return string(runes[:columns-1]) + "…"
}

// pad fills up to so many columns; fmt's widths count runes too, but not for
// text that carries colours.
func pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-len([]rune(s))))
}
