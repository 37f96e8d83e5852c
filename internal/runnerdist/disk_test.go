package runnerdist_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/runnerdist"
)

// noRoom lets the body of an answer end as a write to a full disk does.
type noRoom struct{ next http.RoundTripper }

func (n noRoom) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := n.next.RoundTrip(req)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(res.Body, 1000), full{}), res.Body}
	}
	return res, err
}

type full struct{}

func (full) Read([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "partial", Err: syscall.ENOSPC}
}

func TestAFullDiskIsSaidAndGivenItsRoomBack(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	c, _ := open(t, dir, s, func(o *runnerdist.Options) { o.HTTP, o.Every = noRoom{http.DefaultTransport}, time.Hour })
	until(t, c, "the trouble", func() bool { return strings.Contains(c.Status()[0].Problem, "the disk is full") })
	parts, err := filepath.Glob(filepath.Join(dir, "partial", "*"))
	if err != nil || len(parts) > 0 {
		t.Errorf("%v stay on the full disk: %v", parts, err)
	}
}

func TestAFolderThatCannotBeMadeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runnerdist.New(runnerdist.Options{Dir: filepath.Join(file, "runners")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("got %v", err)
	}
}
