package github

import (
	"cmp"
	"context"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/runner"
)

// GitHub's words for systems and architectures, and ours.
var (
	systems       = map[string]string{"osx": "darwin", "win": "windows"}
	architectures = map[string]string{"x64": "amd64"}
)

// versionForm finds the version in an archive's name, such as
// actions-runner-osx-arm64-2.336.0.tar.gz.
var versionForm = regexp.MustCompile(`-(\d+\.\d+\.\d+)\.(?:tar\.gz|zip)$`)

// Downloads returns the releases of the runner program that GitHub offers to
// runners of the scope, one for each system. Those without an address or a
// version are left out.
func (c *Client) Downloads(ctx context.Context) ([]runner.Download, error) {
	var list []*github.RunnerApplicationDownload
	if _, err := c.call(ctx, http.MethodGet, "/actions/runners/downloads", nil, &list); err != nil {
		return nil, c.explain("list the releases of the runner program for runners", err)
	}
	var out []runner.Download
	for _, d := range list {
		version := versionForm.FindStringSubmatch(d.GetFilename())
		if version == nil || d.GetDownloadURL() == "" {
			continue
		}
		out = append(out, runner.Download{
			OS:      cmp.Or(systems[d.GetOS()], d.GetOS()),
			Arch:    cmp.Or(architectures[d.GetArchitecture()], d.GetArchitecture()),
			Version: version[1], File: d.GetFilename(), URL: d.GetDownloadURL(),
			SHA256: strings.ToLower(d.GetSHA256Checksum()), Token: secret.New(d.GetTempDownloadToken()),
		})
	}
	return out, nil
}
