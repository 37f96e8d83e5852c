package transfer_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// A registry over TLS: refused with a word while its certificate is unknown,
// even on this host, where plain HTTP would be allowed; used when it is known.
func TestTLS(t *testing.T) {
	h := newHub(t)
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host = "http", h.host
		r.RequestURI = ""
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		if to, ok := strings.CutPrefix(w.Header().Get("Location"), "http://"); ok {
			w.Header().Set("Location", "https://"+to)
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.StartTLS()
	defer ts.Close()
	ref, err := image.Parse(strings.TrimPrefix(ts.URL, "https://") + "/r:t")
	if err != nil {
		t.Fatal(err)
	}
	disk := makeDisk(t, 4*mib, mib)
	_, err = transfer.Push(t.Context(), image.Source{Disk: disk}, ref, quick())
	if err == nil || !strings.Contains(err.Error(), "certificate is not trusted") {
		t.Errorf("push to an unknown certificate: %v", err)
	}
	if got := h.requests("PUT"); len(got) != 0 {
		t.Errorf("it was sent all the same: %v", got)
	}
	opt := quick()
	opt.Transport = ts.Client().Transport
	digest, err := transfer.Push(t.Context(), image.Source{Disk: disk}, ref, opt)
	if err != nil {
		t.Fatal(err)
	}
	img, err := transfer.Pull(t.Context(), ref, openStore(t), opt)
	if err != nil || img.Digest != digest {
		t.Fatalf("pull = %s, %v", img.Digest, err)
	}
	sameFile(t, disk, img.Disk)
}
