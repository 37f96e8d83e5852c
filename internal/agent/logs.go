package agent

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/guest"
)

// What a host keeps of each runner, so that its disk lasts.
const (
	logLength     = 64 << 20 // bytes of a program's log; what comes after is followed and not kept
	consoleLength = 1 << 20  // bytes of a console: its end, which says how the guest died
)

// Logs says how long logs of runners that are gone are kept: for so long, and of
// so many, the newest.
type Logs struct {
	Runs int           // 0: 200
	Age  time.Duration // 0: 7 days
}

// LogPath returns where the log of a runner's program is kept on this host: its
// first 64 MiB, for as long as Options.Logs says.
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
	if err := sweepLogs(filepath.Join(a.opt.Home, "logs"), live, a.opt.Logs.Runs, time.Now().Add(-a.opt.Logs.Age)); err != nil {
		a.log.Warn("cannot delete old logs of runners", "err", err)
	}
}

// sweepLogs deletes the logs in dir of runners that wrote last before oldest,
// and of the others all but those of the newest so many; those of live runners
// stay. A runner has several files, which stay or go together.
func sweepLogs(dir string, live map[string]bool, most int, oldest time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	files, wrote := map[string][]string{}, map[string]time.Time{}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".") // a runner's name has no dot
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || live[name] {
			continue
		}
		files[name] = append(files[name], filepath.Join(dir, e.Name()))
		if info.ModTime().After(wrote[name]) {
			wrote[name] = info.ModTime()
		}
	}
	ended := slices.SortedFunc(maps.Keys(files), func(x, y string) int {
		return cmp.Or(wrote[y].Compare(wrote[x]), strings.Compare(x, y))
	})
	for i, name := range ended {
		if i < most && !wrote[name].Before(oldest) {
			continue
		}
		for _, path := range files[name] {
			if err := os.Remove(path); err != nil {
				return err
			}
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
