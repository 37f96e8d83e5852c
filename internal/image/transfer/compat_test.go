package transfer_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/tartfmt/tartfmttest"
	"github.com/mirego/tasuki/internal/image/transfer"
)

func (h *hub) send(t testing.TB, method, url, contentType string, body []byte) (*http.Response, []byte) {
	t.Helper()
	if url[0] == '/' {
		url = "http://" + h.host + url
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// pushAsTart uploads an image with plain requests.
func (h *hub) pushAsTart(t testing.TB, repo, tag string, img tartfmttest.Image) (manifest []byte) {
	t.Helper()
	manifest, blobs := tartfmttest.Write(img)
	for digest, b := range blobs {
		resp, _ := h.send(t, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", "", nil)
		resp, body := h.send(t, http.MethodPut, resp.Header.Get("Location")+"&digest="+digest, "application/octet-stream", b)
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("blob: status %d: %s", resp.StatusCode, body)
		}
	}
	resp, body := h.send(t, http.MethodPut, "/v2/"+repo+"/manifests/"+tag, "application/vnd.oci.image.manifest.v1+json", manifest)
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("manifest: status %d: %s", resp.StatusCode, body)
	}
	h.requests("")
	return manifest
}

// tartImage is a small image as tart makes them.
func tartImage() tartfmttest.Image {
	disk := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(disk[100_000:500_000])
	copy(disk[1<<20:], bytes.Repeat([]byte("/System/Library/Frameworks "), 20_000))
	return tartfmttest.Image{
		Disk: disk, ChunkSize: 700_001,
		Config:    []byte(`{"version":1,"os":"darwin","arch":"arm64","ecid":"AA==","unknown":{"kept":true}}`),
		NVRAM:     bytes.Repeat([]byte{0xaa, 0}, 5000),
		OCIConfig: []byte(`{"architecture":"arm64","config":{"Labels":{"org.cirruslabs.tart.disk.format":"raw","team":"mobile"}},"os":"darwin"}`),
	}
}

func TestPullWhatTartPushes(t *testing.T) {
	h := newHub(t)
	want := tartImage()
	manifest := h.pushAsTart(t, "macos", "t", want)
	img, err := transfer.Pull(t.Context(), h.ref("macos:t"), openStore(t), quick())
	if err != nil {
		t.Fatal(err)
	}
	if img.Digest != tartfmttest.Digest(manifest) {
		t.Errorf("digest %s", img.Digest)
	}
	for path, want := range map[string][]byte{img.Disk: want.Disk, img.NVRAM: want.NVRAM, img.ConfigFile: want.Config, img.Dir + "/manifest.json": manifest} {
		if got := readFile(t, path); got != string(want) {
			t.Errorf("%s: %d bytes differ from the %d that were pushed", path, len(got), len(want))
		}
	}
	if img.Labels["team"] != "mobile" || img.Labels[image.LabelOS] != "darwin" || img.Labels[image.LabelArch] != "arm64" {
		t.Errorf("labels %v", img.Labels)
	}
}

func TestTartReadsWhatWePush(t *testing.T) {
	h := newHub(t)
	want := tartImage()
	src := image.Source{
		Disk: writeFile(t, "disk", string(want.Disk)), NVRAM: writeFile(t, "nvram", string(want.NVRAM)), ConfigJSON: want.Config,
		Kernel: writeFile(t, "kernel", "k"), // must not show in the manifest
	}
	opt := quick()
	opt.ChunkSize = 1_000_000
	digest := mustPush(t, h, src, "r:t", opt)
	_, manifest := h.send(t, http.MethodGet, "/v2/r/manifests/t", "", nil)
	if tartfmttest.Digest(manifest) != digest {
		t.Errorf("the registry has the manifest %s", tartfmttest.Digest(manifest))
	}
	got, err := tartfmttest.Read(manifest, func(d string) ([]byte, error) {
		resp, b := h.send(t, http.MethodGet, "/v2/r/blobs/"+d, "", nil)
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("blob %s: status %d", d, resp.StatusCode)
		}
		return b, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Disk, want.Disk) || !bytes.Equal(got.NVRAM, want.NVRAM) || !bytes.Equal(got.Config, want.Config) {
		t.Error("disk, nvram or configuration differ")
	}
}
