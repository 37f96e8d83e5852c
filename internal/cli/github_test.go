package cli

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator"
)

// A GitHub App, from the file with its key to a runner that is registered.
func TestCheckWithAGitHubApp(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key.pem")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	e := emulator.New(emulator.Options{App: &emulator.App{ClientID: "Iv23liX", PublicKey: &key.PublicKey, Elsewhere: []string{"acme"}}})
	srv := httptest.NewServer(e.Handler())
	defer srv.Close()
	file := filepath.Join(dir, "c.yaml")
	content := fmt.Sprintf(`
host: {name: h, home: home, slots: 1}
github: {url: %q, app: {id: Iv23liX, key: {file: key.pem}}}
pools: [{name: p, driver: fake, image: ., scope: octo/demo, standby: 1}]
`, srv.URL)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	run := func(args ...string) int { return runTasuki(t, &stdout, &stderr, args...) }
	if code := run("github", "check", "--config", file, "--json"); code != exitWell {
		t.Fatalf("exit status %d\n%s%s", code, &stdout, &stderr)
	}
	var got struct {
		Checks []checked `json:"checks"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || len(got.Checks) != 1 {
		t.Fatalf("%v\n%s", err, &stdout)
	}
	if f := got.Checks[0].Findings[1]; f.Text != "app Iv23liX, installation 9002 for octo" {
		t.Errorf("authentication: %+v", f)
	}
	if f := got.Checks[0].Findings; f[len(f)-2].Text != "a runner was registered, and removed again" {
		t.Errorf("findings: %+v", f)
	}
	if left := e.State().Runners; len(left) != 0 {
		t.Errorf("the check left runners: %+v", left)
	}
	if err := os.Chmod(keyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if code := run("github", "check", "--config", file); code != exitTrouble || !strings.Contains(stderr.String(), "others can read it (mode 0640)") {
		t.Errorf("a key that others can read: exit status %d\n%s%s", code, &stdout, &stderr)
	}
}

func runTasuki(t *testing.T, stdout, stderr *bytes.Buffer, args ...string) int {
	t.Helper()
	stdout.Reset()
	stderr.Reset()
	a := &app{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr}
	root := newRoot(a)
	root.SetArgs(args)
	return a.exit(root.ExecuteContext(t.Context()))
}

// Runners that are busy stay, also those that look offline (incident
// offline-but-busy), and those that took a job since they were listed.
func TestPruneLeavesBusyRunners(t *testing.T) {
	var deleted []string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v3/orgs/octo/actions/runners", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"total_count":4,"runners":[
			{"id":1,"name":"tasuki-h-abc234-p-aaaaaa","status":"offline","busy":true},
			{"id":2,"name":"tasuki-h-abc234-p-bbbbbb","status":"online"},
			{"id":3,"name":"tasuki-h-abc234-p-cccccc","status":"offline"},
			{"id":4,"name":"tasuki-h-zzz777-p-dddddd","status":"offline"}]}`)
	})
	mux.HandleFunc("DELETE /api/v3/orgs/octo/actions/runners/{id}", func(w http.ResponseWriter, r *http.Request) {
		deleted = append(deleted, r.PathValue("id"))
		if r.PathValue("id") == "2" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"home/installation": "abc234\n",
		"c.yaml": fmt.Sprintf("host: {name: h, home: home, slots: 1}\ngithub: {url: %q}\n"+
			"pools: [{name: p, driver: fake, image: ., scope: octo, standby: 1}]\n", srv.URL),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	code := runTasuki(t, &stdout, &stderr, "github", "runners", "prune", "--config", filepath.Join(dir, "c.yaml"))
	want := "stays, since it is busy: tasuki-h-abc234-p-aaaaaa (octo)\n" +
		"stays, since it is busy: tasuki-h-abc234-p-bbbbbb (octo)\n" +
		"removed: tasuki-h-abc234-p-cccccc (octo)\n"
	if code != exitWell || stdout.String() != want {
		t.Errorf("exit status %d\n%s%swant\n%s", code, &stdout, &stderr, want)
	}
	if diff := cmp.Diff([]string{"2", "3"}, deleted); diff != "" {
		t.Errorf("asked GitHub to delete (-want +got):\n%s", diff)
	}
}
