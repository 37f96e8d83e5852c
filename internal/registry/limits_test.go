package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/secret"
)

func TestAFullDiskIsSaidInWords(t *testing.T) {
	s, ts, logs := open(t, Options{})
	blob := []byte("x")
	pushBlob(t, ts.URL, "x", blob, digestOf(blob))
	s.free = func(string) (uint64, error) { return 3 << 20, nil }
	resp, body := do(t, http.MethodPost, ts.URL+"/v2/x/blobs/uploads/", "", nil)
	if resp.StatusCode != http.StatusInsufficientStorage || !strings.Contains(string(body), "disk is full: 3 MB") {
		t.Errorf("a push: %d %s, want 507 with the space that is left", resp.StatusCode, body)
	}
	if !strings.Contains(logs.String(), "disk is full") {
		t.Errorf("the log says nothing of it: %q", logs)
	}
	if resp, _ := do(t, http.MethodGet, ts.URL+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != 200 {
		t.Errorf("a pull: %d, want 200", resp.StatusCode)
	}
	if resp, _ := do(t, http.MethodDelete, ts.URL+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != 202 {
		t.Errorf("a deletion: %d, want 202: it makes room", resp.StatusCode)
	}
	if resp, body := do(t, http.MethodGet, ts.URL+"/healthz", "", nil); resp.StatusCode != 200 || !strings.Contains(string(body), `"full"`) {
		t.Errorf("health: %d %s", resp.StatusCode, body)
	}
	s.free = func(string) (uint64, error) { return 0, os.ErrNotExist }
	if resp, _ := do(t, http.MethodGet, ts.URL+"/healthz", "", nil); resp.StatusCode != 503 {
		t.Errorf("health without a disk: %d, want 503", resp.StatusCode)
	}
}

func TestMetricsAreForThoseWhoMay(t *testing.T) {
	s, ts, _ := open(t, Options{MetricsToken: secret.New("the token")})
	pushImage(t, ts.URL, "r", "t")
	ask := func(remote, token, forwarded string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.RemoteAddr = remote
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
	for _, tt := range []struct {
		remote, token, forwarded string
		want                     int
	}{
		{"127.0.0.1:1", "", "", 200}, {"[::1]:1", "", "", 200},
		{"127.0.0.1:1", "", "192.0.2.1", 401}, // a proxy of ours brings others
		{"192.0.2.1:1", "", "", 401}, {"192.0.2.1:1", "wrong", "", 401}, {"192.0.2.1:1", "the token", "", 200},
	} {
		w := ask(tt.remote, tt.token, tt.forwarded)
		if w.Code != tt.want {
			t.Errorf("%+v: status %d", tt, w.Code)
		}
		if want := `tasuki_registry_requests_total{kind="manifests",method="PUT",mirror="no",status="201"} 1`; w.Code == 200 && !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// The access log names who asked for what, and never a password or a query.
func TestTheAccessLogTellsNoSecrets(t *testing.T) {
	s := guarded(t, Options{AccessLog: true})
	var logs syncBuffer
	s.log = slog.New(slog.NewTextHandler(&logs, nil))
	try(s, "GET", "/v2/team/x/manifests/t?_state=confidential", "mac", "right password")
	try(s, "GET", "/v2/team/x/manifests/t", "mac", "wrong password")
	got := logs.String()
	for _, want := range []string{"method=GET", "path=/v2/team/x/manifests/t", "user=mac", "status=404", "status=401"} {
		if !strings.Contains(got, want) {
			t.Errorf("the log lacks %q: %s", want, got)
		}
	}
	for _, bad := range []string{"right password", "wrong password", "confidential"} {
		if strings.Contains(got, bad) {
			t.Errorf("the log tells %q: %s", bad, got)
		}
	}
}

// An upload that is cut leaves no blob, and the next try is a new one.
func TestACutUploadIsNoBlob(t *testing.T) {
	_, ts, _ := open(t, Options{})
	blob := bytes.Repeat([]byte("x"), 1<<20)
	resp, _ := do(t, http.MethodPost, ts.URL+"/v2/x/blobs/uploads/", "", nil)
	cut := io.MultiReader(bytes.NewReader(blob[:1000]), &failing{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, resp.Header.Get("Location")+"&digest="+digestOf(blob), bufio.NewReader(cut))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(blob))
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusCreated {
			t.Error("half a blob was taken")
		}
	}
	if resp, _ := do(t, http.MethodHead, ts.URL+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != 404 {
		t.Errorf("status %d, want 404", resp.StatusCode)
	}
	if code := pushBlob(t, ts.URL, "x", blob, digestOf(blob)); code != http.StatusCreated {
		t.Errorf("the next try: status %d", code)
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, fmt.Errorf("the cable was pulled") }
