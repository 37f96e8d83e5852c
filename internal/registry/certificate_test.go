package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveTLS runs a server with this certificate until the test ends.
func serveTLS(t *testing.T, cert *Certificate) (address string) {
	t.Helper()
	s, err := New(Options{Dir: t.TempDir(), Certificate: cert, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// serial asks the server for its certificate, under a name.
func serial(t *testing.T, address, name, rootFile string) string {
	t.Helper()
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Get("https://" + address + "/v2/")
	if err != nil {
		t.Fatalf("as %q: %v", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.String()
}

func TestAGeneratedCertificateIsTrustedAndRenewed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	a, cert, err := OpenAuthority(dir, []string{"Registry.Example.com.", "192.0.2.7", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, cert)
	first := serial(t, address, "registry.example.com", a.RootFile())
	if again := serial(t, address, "192.0.2.7", a.RootFile()); again != first {
		t.Error("another certificate for the address")
	}
	for name, want := range map[string]os.FileMode{"ca.key": 0o600, "server.pem": 0o600, "ca.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
	root, _ := os.ReadFile(a.RootFile())
	if _, same, err := OpenAuthority(dir, []string{"localhost", "192.0.2.7"}); err != nil || serial(t, address, "localhost", a.RootFile()) != first || same == nil {
		t.Errorf("opened again, it made another certificate: %v", err)
	}
	ca, key, err := a.root(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.issue(ca, key, time.Now().Add(renewBefore-certificateLife-time.Hour)); err != nil {
		t.Fatal(err)
	}
	old := serial(t, address, "localhost", a.RootFile())
	cert.renew(slog.New(slog.DiscardHandler))
	renewed := serial(t, address, "localhost", a.RootFile())
	if renewed == old {
		t.Error("less than 30 days before its end it was not renewed")
	}
	if old == first {
		t.Error("the running server does not use the renewed certificate")
	}
	if _, _, err := OpenAuthority(dir, []string{"localhost", "new.example.com"}); err != nil {
		t.Fatal(err)
	}
	if serial(t, address, "new.example.com", a.RootFile()) == renewed {
		t.Error("a new name brought no new certificate")
	}
	if now, _ := os.ReadFile(a.RootFile()); string(now) != string(root) {
		t.Error("the root changed: every client would have to trust it anew")
	}
}

func TestABrokenCertificateKeepsTheLast(t *testing.T) {
	dir := t.TempDir()
	a, _, err := OpenAuthority(filepath.Join(dir, "a"), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "own.pem")
	copyFile := func() {
		b, err := os.ReadFile(filepath.Join(dir, "a", "server.pem"))
		if err == nil {
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyFile()
	cert, err := LoadCertificate(file, file)
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(t, cert)
	first := serial(t, address, "localhost", a.RootFile())
	if err := os.WriteFile(file, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial(t, address, "localhost", a.RootFile()) != first {
		t.Error("a broken file changed what is served")
	}
	if err := os.Remove(filepath.Join(dir, "a", "server.pem")); err != nil {
		t.Fatal(err)
	}
	if made, err := a.ensure(time.Now()); err != nil || !made {
		t.Fatal(made, err)
	}
	copyFile()
	if serial(t, address, "localhost", a.RootFile()) == first {
		t.Error("the new file is not served")
	}
	if _, err := LoadCertificate(file, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a missing key: %v", err)
	}
}
