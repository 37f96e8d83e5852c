// Package logtail reads the end of a log that another program writes, for a
// person: a bounded part of it, without what a terminal would obey.
package logtail

import (
	"os"
	"strings"
)

// Read returns the last bytes of a file, at most so many. A file that grows
// meanwhile is no error.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-most)
	buf := make([]byte, info.Size()-from)
	n, err := f.ReadAt(buf, from)
	if n > 0 {
		err = nil
	}
	return buf[:n], err
}

// Printable returns a line without what a terminal does not print. A tab
// becomes a space.
func Printable(line string) string { return strings.Map(printable, line) }

func printable(r rune) rune {
	if r == '\t' {
		return ' '
	}
	if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' {
		return -1
	}
	return r
}
