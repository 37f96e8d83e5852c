package github

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Network says how GitHub is reached.
type Network struct {
	// Proxy is the address of an HTTP proxy for everything but this very
	// machine; empty: what HTTPS_PROXY and its like say.
	Proxy string
	// CA holds certificates in PEM of authorities to trust beside the system's.
	CA []byte
}

// NewHTTP returns what carries requests over a network. It is meant to be
// shared by all accounts of the same network.
func NewHTTP(n Network) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        20,
		MaxIdleConnsPerHost: 10,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		// No ResponseHeaderTimeout: a scale set's queue answers after 50 s. Each
		// call is bounded by its context.
	}
	if n.Proxy != "" {
		proxy, err := url.Parse(n.Proxy)
		if err != nil || proxy.Host == "" {
			return nil, fmt.Errorf("cannot use %q as a proxy: write it as http://HOST:PORT", n.Proxy)
		}
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			if loopback(r.URL.Hostname()) {
				return nil, nil
			}
			return proxy, nil
		}
	}
	if len(n.CA) == 0 {
		return t, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(n.CA) {
		return nil, errors.New("cannot trust an authority: the file holds no certificate in PEM")
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// networkHint says what to do about an error below HTTP; "" if it is not known.
func networkHint(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is of an authority that this host does not trust: name the authority's certificate under github.ca"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("this host does not find the name %s: check github.url and the name server", e.Name)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "proxyconnect" {
		return "the proxy does not answer: check github.proxy or HTTPS_PROXY"
	}
	return ""
}
