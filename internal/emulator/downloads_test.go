package emulator_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/mirego/tasuki/internal/emulator"
)

func TestTheRunnersReleaseIsServedInRanges(t *testing.T) {
	archive := []byte("the runner program")
	w := bubble(t, emulator.Options{RunnerRelease: emulator.RunnerRelease{Version: "2.400.0", Archive: archive}})
	list, _, err := w.rest.Actions.ListRunnerApplicationDownloads(t.Context(), owner, repo)
	if err != nil || len(list) != 6 {
		t.Fatalf("listed %v, %v", list, err)
	}
	one := list[0]
	if one.GetFilename() != "actions-runner-linux-x64-2.400.0.tar.gz" || one.GetSHA256Checksum() != fmt.Sprintf("%x", sha256.Sum256(archive)) {
		t.Errorf("the first is %v", one)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", one.GetDownloadURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=4-")
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusPartialContent || string(body) != "runner program" {
		t.Errorf("the range is answered %d %q", resp.StatusCode, body)
	}
	if resp, _ := bubble(t, emulator.Options{}).Client().Get(one.GetDownloadURL()); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a release that is only named is answered %d, want 404", resp.StatusCode)
	}
}
