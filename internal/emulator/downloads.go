package emulator

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// RunnerRelease is a release of the runner program, as GitHub offers it for download.
type RunnerRelease struct {
	// Version is such as "2.336.0", which it is when empty.
	Version string
	// Archive is what is served for every system; when it is empty the release is only named, with a checksum
	// that nothing has.
	Archive []byte
}

func (r RunnerRelease) version() string {
	if r.Version != "" {
		return r.Version
	}
	return "2.336.0"
}

// file is the name of the release's archive for a system.
func (r RunnerRelease) file(os, arch string) string {
	return fmt.Sprintf("actions-runner-%s-%s-%s.tar.gz", os, arch, r.version())
}

func (e *Emulator) listDownloads(w http.ResponseWriter, r *http.Request, _ scope) {
	release, out := e.opts.RunnerRelease, []map[string]string{}
	sum := strings.Repeat("0", 64)
	if len(release.Archive) > 0 {
		sum = fmt.Sprintf("%x", sha256.Sum256(release.Archive))
	}
	for _, os := range []string{"linux", "osx", "win"} {
		for _, arch := range []string{"x64", "arm64"} {
			file := release.file(os, arch)
			out = append(out, map[string]string{
				"os": os, "architecture": arch, "filename": file, "sha256_checksum": sum,
				"download_url": e.baseFor(r) + "/downloads/" + file,
			})
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// getDownload serves the release's archive, also in ranges.
func (e *Emulator) getDownload(w http.ResponseWriter, r *http.Request) {
	release, name := e.opts.RunnerRelease, r.PathValue("file")
	if len(release.Archive) == 0 || !strings.HasSuffix(name, "-"+release.version()+".tar.gz") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("ETag", fmt.Sprintf("%q", release.version()))
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(release.Archive))
}
