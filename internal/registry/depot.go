package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the driver that depots are served by

	"github.com/mirego/tasuki/internal/image"
)

// storageRoot is where the library keeps everything, below a depot's directory.
// Source: distribution, registry/storage/paths.go.
const storageRoot = "docker/registry/v2"

// depot is one storage root and the library's instance on it.
type depot struct {
	dir  string
	app  http.Handler
	gate gate
	// doomed are the digests that a sweep under way deletes: asked for, they
	// are not there any more, so that no push relies on them.
	doomed atomic.Pointer[map[string]bool]
}

func (d *depot) root(parts ...string) string {
	return filepath.Join(append([]string{d.dir, filepath.FromSlash(storageRoot)}, parts...)...)
}

func (d *depot) isDoomed(digest string) bool {
	m := d.doomed.Load()
	return m != nil && (*m)[digest]
}

// blobPath is the directory of a blob; its bytes are the file "data" in it.
func (d *depot) blobPath(digest string) string {
	hex := image.DigestHex(digest)
	if hex == "" {
		return ""
	}
	return d.root("blobs", "sha256", hex[:2], hex)
}

// touch notes that somebody relies on a blob or a manifest of a repository
// now: the time of use is the files' own. What is not there is no matter.
func (d *depot) touch(repository, kind, digest string, now time.Time) {
	hex := image.DigestHex(digest)
	if hex == "" {
		return
	}
	link := d.root("repositories", filepath.FromSlash(repository), kind, "sha256", hex, "link")
	for _, path := range []string{link, filepath.Join(d.blobPath(digest), "data")} {
		_ = os.Chtimes(path, now, now)
	}
}

// newApp starts the library on a directory. It reports a bad configuration by
// a panic only, hence the recovery.
func newApp(instance string, conf *configuration.Configuration) (app *handlers.App, err error) {
	defer func() {
		if r := recover(); r != nil {
			app, err = nil, fmt.Errorf("%v", r)
		}
	}()
	//nolint:staticcheck // the library looks its instance up under this plain string
	ctx := context.WithValue(context.Background(), instanceKey, instance)
	return handlers.NewApp(ctx, conf), nil
}

// appConfig is the library's configuration for a directory. Upload purging is
// off: it is a goroutine that nobody can wait for.
func appConfig(dir string, readOnly bool, access *controller) *configuration.Configuration {
	conf := &configuration.Configuration{
		Version: "0.1",
		Auth:    configuration.Auth{accessName: configuration.Parameters{accessName: access}},
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": dir},
			"delete":     configuration.Parameters{"enabled": true},
			"redirect":   configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{
				"uploadpurging": map[any]any{"enabled": false},
				"readonly":      map[any]any{"enabled": readOnly},
			},
		},
	}
	conf.Catalog.MaxEntries = 1000
	return conf
}

// route is what a path below /v2/ means.
type route struct {
	repository string
	kind       string // kindManifest, kindBlob, kindUpload, kindTags; "" for the rest
	reference  string // a tag, a digest or an upload's id
}

const (
	kindManifest = "manifests"
	kindBlob     = "blobs"
	kindUpload   = "uploads"
	kindTags     = "tags"
)

// parseRoute reads a path as the distribution specification lays it out. The
// last word that fits counts: repositories may be called "blobs".
func parseRoute(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}
	}
	if i := strings.LastIndex(rest, "/blobs/uploads"); i > 0 {
		return route{rest[:i], kindUpload, strings.Trim(rest[i+len("/blobs/uploads"):], "/")}
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return route{name, kindTags, ""}
	}
	for _, kind := range []string{kindManifest, kindBlob} {
		if i := strings.LastIndex(rest, "/"+kind+"/"); i > 0 {
			return route{rest[:i], kind, rest[i+len(kind)+2:]}
		}
	}
	return route{}
}

// purgeUploads deletes uploads that nothing was added to since olderThan, and
// returns how many.
func (d *depot) purgeUploads(olderThan time.Time) (int, error) {
	var n int
	err := d.repositories(func(name string) error {
		dir := d.root("repositories", filepath.FromSlash(name), "_uploads")
		entries, err := readDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if lastTouched(path).After(olderThan) {
				continue
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("cannot delete abandoned uploads: %w", err)
	}
	return n, nil
}

// repositories calls each for every repository, in no order that matters.
func (d *depot) repositories(each func(name string) error) error {
	top := d.root("repositories")
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !e.IsDir() || path == top:
			return nil
		case strings.HasPrefix(e.Name(), "_"): // _manifests, _layers, _uploads
			return fs.SkipDir
		}
		children, err := readDir(path)
		if err != nil {
			return err
		}
		for _, c := range children {
			if strings.HasPrefix(c.Name(), "_") {
				name, err := filepath.Rel(top, path)
				if err != nil {
					return err
				}
				return each(filepath.ToSlash(name))
			}
		}
		return nil
	})
	return err
}

// readDir is os.ReadDir where nothing there is nothing.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// lastTouched is the latest modification of the files below a directory; where
// there are none yet, of the directory.
func lastTouched(dir string) time.Time {
	var last, made time.Time
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what is gone meanwhile does not count
		}
		info, err := e.Info()
		switch {
		case err != nil:
		case path == dir:
			made = info.ModTime()
		case !e.IsDir() && info.ModTime().After(last):
			last = info.ModTime()
		}
		return nil
	})
	if last.IsZero() {
		return made
	}
	return last
}
