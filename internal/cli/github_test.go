package cli

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
	run := func(args ...string) int {
		stdout.Reset()
		stderr.Reset()
		a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr}
		root := newRoot(a)
		root.SetArgs(args)
		return a.exit(root.ExecuteContext(t.Context()))
	}
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
