package runner

import (
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// Download is a release of the runner program as GitHub offers it now for one
// system.
type Download struct {
	OS      string // "linux", "darwin" or "windows"
	Arch    string // "amd64", "arm64" or "arm"
	Version string // "2.336.0"
	File    string // name of the archive
	URL     string
	SHA256  string // hex, in lower case; empty: GitHub gives none
	// Token goes with the request for URL where GitHub asks for one.
	Token secret.String
}

// Release is a release of the runner program that is kept on this host.
type Release struct {
	Version string
	Path    string // of the archive, as GitHub gave it (.tar.gz); do not write to it
	SHA256  string // hex, of the archive
	// Published is when GitHub's archive was last changed, or where it did not
	// say so, when this host met the release first.
	Published time.Time
}

// Source is where the runner program of a guest comes from.
type Source string

// The sources. The empty one is FromHost.
const (
	FromHost  Source = "host"  // the release that the host keeps, where the image's is older
	FromImage Source = "image" // the image's; it is said when that is older than what GitHub serves
	FromOff   Source = "off"   // the image's, whatever its age
)
