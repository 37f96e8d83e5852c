package transfer

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
)

// journal notes which chunks of a partial disk are written: a line each, in a
// file beside the disk. It is a hint, not a proof: what it names is hashed
// before it is believed, so it needs no sync, and a power loss can do no harm.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

const (
	journalHead = "tasuki pull 1\n"
)

// readJournal returns the indexes of chunks below n that the journal at path
// names. A line that was cut is left out.
func readJournal(path string, n int) map[int]bool {
	done := map[int]bool{}
	f, err := os.Open(path)
	if err != nil {
		return done
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if head, err := r.ReadString('\n'); err != nil || head != journalHead {
		return done
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return done
		}
		var i int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%d", &i); err == nil && i >= 0 && i < n {
			done[i] = true
		}
	}
}

// createJournal replaces the journal at path by one that names these chunks.
func createJournal(path string, done map[int]bool) (*journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	b := []byte(journalHead)
	for i := range done {
		b = fmt.Appendf(b, "%d\n", i)
	}
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &journal{f: f}, nil
}

// add notes chunks as written.
func (j *journal) add(indexes []int) error {
	var b []byte
	for _, i := range indexes {
		b = fmt.Appendf(b, "%d\n", i)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.f.Write(b)
	return err
}

func (j *journal) close() { _ = j.f.Close() }
