package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is what a server proves itself with: files that are read again
// when they change. Its methods may be called from several goroutines.
type Certificate struct {
	certFile, keyFile string
	authority         *Authority // nil: the files are the user's own

	mu     sync.Mutex
	read   [2]os.FileInfo // of the files as they were read last
	loaded *tls.Certificate
}

// LoadCertificate reads a certificate with its chain, and its key, in PEM.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.current(); err != nil {
		return nil, err
	}
	return c, nil
}

// current returns the certificate, read anew if a file changed. With an error
// it still returns the last that could be read, if any.
func (c *Certificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var read [2]os.FileInfo
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return c.loaded, fmt.Errorf("cannot read the certificate: %w", err)
		}
		read[i] = info
	}
	if c.loaded != nil && sameFile(read[0], c.read[0]) && sameFile(read[1], c.read[1]) {
		return c.loaded, nil
	}
	fresh, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return c.loaded, fmt.Errorf("cannot use certificate %q with key %q: %w", c.certFile, c.keyFile, err)
	}
	if fresh.Leaf == nil {
		if fresh.Leaf, err = x509.ParseCertificate(fresh.Certificate[0]); err != nil {
			return c.loaded, fmt.Errorf("cannot use certificate %q: %w", c.certFile, err)
		}
	}
	c.loaded, c.read = &fresh, read
	return c.loaded, nil
}

// get is for tls.Config. While the files are broken the last good ones serve.
func (c *Certificate) get(log *slog.Logger) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := c.current()
		if cert == nil && err == nil {
			err = errors.New("there is no certificate")
		}
		if cert != nil && err != nil {
			log.Warn("registry keeps its last certificate", "err", err)
			return cert, nil
		}
		return cert, err
	}
}

// expiry is when the certificate ends; the zero time if there is none.
func (c *Certificate) expiry() time.Time {
	cert, _ := c.current()
	if cert == nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

// renew makes a new certificate if it is ours and about to end.
func (c *Certificate) renew(log *slog.Logger) {
	if c.authority == nil {
		if end := c.expiry(); time.Until(end) < renewBefore {
			log.Warn("the registry's certificate ends soon; put a new one in its place", "file", c.certFile, "end", end)
		}
		return
	}
	renewed, err := c.authority.ensure(time.Now())
	if err != nil {
		log.Warn("registry could not renew its certificate", "err", err)
	} else if renewed {
		log.Info("registry renewed its certificate", "end", c.expiry())
	}
}
