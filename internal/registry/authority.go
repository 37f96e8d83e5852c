package registry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// certificateLife is the most that Apple's systems take, in effect.
	// Source: support.apple.com/102028 (398 days).
	certificateLife = 397 * 24 * time.Hour
	renewBefore     = 30 * 24 * time.Hour
)

// Authority signs the certificate of one registry, with a root of its own that
// clients are told to trust. It lives in a directory:
//
//	ca.pem      the root: what clients get
//	ca.key      its key, mode 0600
//	server.pem  the server's certificate and key in one file, mode 0600
type Authority struct {
	dir   string
	names []string // DNS names and addresses, sorted
}

// OpenAuthority opens the authority in dir, and makes it and the server's
// certificate for these names (DNS names or addresses) where they are missing,
// about to end, or for other names.
func OpenAuthority(dir string, names []string) (*Authority, *Certificate, error) {
	a := &Authority{dir: dir}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String()
		} else if strings.ContainsAny(name, " /:@") || name == "" {
			return nil, nil, fmt.Errorf("cannot make a certificate for %q: it is neither a host's name nor an address", name)
		}
		a.names = append(a.names, name)
	}
	slices.Sort(a.names)
	a.names = slices.Compact(a.names)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the registry's certificate: %w", err)
	}
	if _, err := a.ensure(time.Now()); err != nil {
		return nil, nil, err
	}
	pemFile := filepath.Join(dir, "server.pem")
	cert, err := LoadCertificate(pemFile, pemFile)
	if err != nil {
		return nil, nil, err
	}
	cert.authority = a
	return a, cert, nil
}

// RootFile is the path of the root certificate that clients must trust.
func (a *Authority) RootFile() string { return filepath.Join(a.dir, "ca.pem") }

// Names are the names that the server's certificate is for.
func (a *Authority) Names() []string { return slices.Clone(a.names) }

// ensure makes what is missing or about to end, and says whether it made a
// certificate.
func (a *Authority) ensure(now time.Time) (made bool, err error) {
	root, key, err := a.root(now)
	if err != nil {
		return false, err
	}
	if a.good(root, now) {
		return false, nil
	}
	if err := a.issue(root, key, now); err != nil {
		return false, fmt.Errorf("cannot make the registry's certificate: %w", err)
	}
	return true, nil
}

// good says whether the server's certificate can stay.
func (a *Authority) good(root *x509.Certificate, now time.Time) bool {
	b, err := os.ReadFile(filepath.Join(a.dir, "server.pem"))
	if err != nil {
		return false
	}
	leaf, err := parseCertificate(b)
	if err != nil || leaf.CheckSignatureFrom(root) != nil || now.Before(leaf.NotBefore) || now.After(leaf.NotAfter.Add(-renewBefore)) {
		return false
	}
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	for _, want := range a.names {
		if !slices.Contains(names, want) {
			return false
		}
	}
	return true
}

// root reads the authority, or makes it.
func (a *Authority) root(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := os.ReadFile(a.RootFile())
	if errors.Is(err, fs.ErrNotExist) {
		return a.makeRoot(now)
	}
	fail := func(err error) (*x509.Certificate, crypto.Signer, error) {
		return nil, nil, fmt.Errorf("cannot use the registry's authority in %q: %w", a.dir, err)
	}
	if err != nil {
		return fail(err)
	}
	root, err := parseCertificate(certPEM)
	if err != nil {
		return fail(err)
	}
	if now.After(root.NotAfter) {
		return fail(fmt.Errorf("it ended on %s; remove the directory, and have every client trust the new root", root.NotAfter.Format(time.DateOnly)))
	}
	keyPEM, err := os.ReadFile(filepath.Join(a.dir, "ca.key"))
	if err != nil {
		return fail(err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return fail(err)
	}
	if pub, ok := root.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return fail(errors.New("ca.key does not belong to ca.pem"))
	}
	return root, key, nil
}

func (a *Authority) makeRoot(now time.Time) (*x509.Certificate, crypto.Signer, error) {
	fail := func(err error) (*x509.Certificate, crypto.Signer, error) {
		return nil, nil, fmt.Errorf("cannot make the registry's authority: %w", err)
	}
	host, _ := os.Hostname()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Tasuki registry " + host, Organization: []string{"Tasuki"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	key, keyPEM, err := makeKey()
	if err != nil {
		return fail(err)
	}
	der, err := sign(template, template, key, key)
	if err != nil {
		return fail(err)
	}
	// The certificate comes last: with it the authority is there.
	if err := atomicfile.Write(filepath.Join(a.dir, "ca.key"), keyPEM, 0o600); err != nil {
		return fail(err)
	}
	if err := atomicfile.Write(a.RootFile(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return fail(err)
	}
	root, err := x509.ParseCertificate(der)
	return root, key, err
}

func (a *Authority) issue(root *x509.Certificate, by crypto.Signer, now time.Time) error {
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: a.names[0]},
		NotBefore: now.Add(-time.Hour), NotAfter: minTime(now.Add(certificateLife), root.NotAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key, keyPEM, err := makeKey()
	if err != nil {
		return err
	}
	der, err := sign(template, root, key, by)
	if err != nil {
		return err
	}
	var b bytes.Buffer // one file, so that nobody ever sees half of a pair
	b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	b.Write(keyPEM)
	return atomicfile.Write(filepath.Join(a.dir, "server.pem"), b.Bytes(), 0o600)
}

func sign(template, parent *x509.Certificate, key, by crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
}

func makeKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

func parseCertificate(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it does not begin with a certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("its key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	return signer, nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// MachineNames are the names and addresses that this machine is reached by, as
// far as it knows: for a certificate.
func MachineNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
		if short, _, dotted := strings.Cut(host, "."); !dotted {
			names = append(names, short+".local") // Bonjour
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			names = append(names, n.IP.String())
		}
	}
	return names
}
