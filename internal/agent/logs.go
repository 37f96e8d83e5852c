package agent

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/guest"
)

// What a host keeps of the logs of its runners' programs, so that its disk
// lasts: the newest ones of those that ended, for a time, each up to a size.
const (
	logsKept  = 200
	logsAge   = 7 * 24 * time.Hour
	logLength = 64 << 20 // bytes; what comes after is followed and not kept
)

// LogPath returns where the log of a runner's program is kept on this host: its
// first 64 MiB, for seven days after it ended, and of the 200 newest.
func (a *Agent) LogPath(name string) string { return filepath.Join(a.opt.Home, "logs", name+".log") }

// sweepLogs deletes the logs of ended runners that are too many or too old.
func (a *Agent) sweepLogs() {
	live := map[string]bool{}
	a.mu.Lock()
	for name := range a.keepers {
		live[name] = true
	}
	for name := range a.stranded {
		live[name] = true
	}
	a.mu.Unlock()
	if err := sweepLogs(filepath.Join(a.opt.Home, "logs"), live, logsKept, time.Now().Add(-logsAge)); err != nil {
		a.log.Warn("cannot delete old logs of runners", "err", err)
	}
}

// sweepLogs deletes the logs in dir that were last written before oldest, and
// of the others all but the newest so many; those of live runners stay.
func sweepLogs(dir string, live map[string]bool, most int, oldest time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var ended []fs.FileInfo
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".") // a runner's name has no dot
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && !live[name] {
			ended = append(ended, info)
		}
	}
	slices.SortFunc(ended, func(x, y fs.FileInfo) int {
		return cmp.Or(y.ModTime().Compare(x.ModTime()), strings.Compare(x.Name(), y.Name()))
	})
	for i, info := range ended {
		if i < most && !info.ModTime().Before(oldest) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, info.Name())); err != nil {
			return err
		}
	}
	return nil
}

// keptLog writes to the file first, as long as there is room: what was not kept
// was not read. What finds no room is only read; the next follower reads it
// from the guest again.
type keptLog struct {
	file  *os.File
	room  int64 // bytes that the file may grow
	lines *guest.Lines
}

func (l *keptLog) Write(p []byte) (int, error) {
	if kept := p[:max(0, min(int64(len(p)), l.room))]; len(kept) > 0 {
		n, err := l.file.Write(kept)
		l.room -= int64(n)
		if err != nil {
			return n, fmt.Errorf("cannot keep the runner's log: %w", err)
		}
	}
	return l.lines.Write(p)
}

// lastLine returns the last line of a file that is not empty.
func lastLine(path string) (string, error) {
	const most = 4 << 10
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-most), most))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:], nil
}
