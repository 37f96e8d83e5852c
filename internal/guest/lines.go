package guest

import "bytes"

// maxLine is how many bytes of a line are kept; signals are far shorter.
const maxLine = 16 << 10

// Lines is a writer that cuts what it is given into lines and calls back for
// each, without its end. Of a line longer than 16 KiB only the beginning is
// given. It is not safe for concurrent use.
type Lines struct {
	each func(line string)
	part []byte
}

// NewLines returns a Lines that calls each.
func NewLines(each func(line string)) *Lines { return &Lines{each: each} }

// Write never fails.
func (l *Lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		l.part = append(l.part, line[:min(len(line), maxLine-len(l.part))]...)
		if ended {
			l.give()
		}
		p = rest
	}
	return n, nil
}

// Flush gives a last line that has no end, if there is one.
func (l *Lines) Flush() {
	if len(l.part) > 0 {
		l.give()
	}
}

func (l *Lines) give() {
	l.each(string(bytes.TrimSuffix(l.part, []byte{'\r'})))
	l.part = l.part[:0]
}
