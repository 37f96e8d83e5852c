package transfer

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Access that a client asks the registry's token service for.
const (
	scopePull = transport.PullScope
	scopePush = transport.PushScope
)

// client talks to one repository.
type client struct {
	ref  image.Ref
	opt  Options
	http *http.Client
	done func()
}

// newClient connects to ref's registry, finds out whom it wants to see, and
// logs in; also are repositories that it will read as well. Close it.
func newClient(ctx context.Context, ref image.Ref, opt Options, scope string, also ...string) (*client, error) {
	c := &client{ref: ref, opt: opt, done: func() {}}
	base := opt.Transport
	if base == nil {
		own := newTransport(opt)
		base, c.done = own, own.CloseIdleConnections
	}
	nameOpts := []name.Option{name.StrictValidation}
	if opt.plainAllowed(ref) {
		nameOpts = append(nameOpts, name.Insecure)
	}
	reg, err := name.NewRegistry(ref.Registry(), nameOpts...)
	if err != nil {
		return nil, fmt.Errorf("cannot use registry %q: %w", ref.Registry(), err)
	}
	auth := authn.Anonymous
	if opt.Username != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: opt.Username, Password: opt.Password.Reveal()})
	}
	scopes := []string{"repository:" + ref.Name() + ":" + scope}
	for _, name := range also {
		scopes = append(scopes, "repository:"+name+":"+scopePull)
	}
	guard := &plainGuard{next: base, host: ref.Registry(), allowed: opt.plainAllowed(ref)}
	err = c.retry(ctx, "connect", func(ctx context.Context) error {
		rt, err := transport.NewWithContext(ctx, reg, auth, guard, scopes)
		if err != nil {
			return fmt.Errorf("cannot connect to registry %s: %w", ref.Registry(), classify(err))
		}
		c.http = &http.Client{Transport: rt}
		return nil
	})
	if err != nil {
		c.done()
		return nil, err
	}
	return c, nil
}

func (c *client) close() { c.done() }

func newTransport(opt Options) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = opt.Parallel + 1
	t.DisableCompression = true // blobs are compressed, and must arrive as they are
	t.ReadBufferSize = 128 << 10
	t.WriteBufferSize = 128 << 10
	t.ResponseHeaderTimeout = 2 * opt.Stall
	if opt.Roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: opt.Roots, MinVersion: tls.VersionTLS12}
	}
	return t
}

// plainGuard refuses plain HTTP to the registry unless it is allowed. The
// library would use it for private addresses on its own.
type plainGuard struct {
	next    http.RoundTripper
	host    string
	allowed bool
}

var errPlain = errors.New("the registry speaks plain HTTP, which is not encrypted; give it a certificate, or allow it: http: true under registries in the configuration")

func (g *plainGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if !g.allowed && r.URL.Scheme == "http" && r.URL.Host == g.host {
		return nil, errPlain
	}
	return g.next.RoundTrip(r)
}

// retry makes tries of op until one succeeds or fails for good.
func (c *client) retry(ctx context.Context, what string, op func(context.Context) error) error {
	for n := 1; ; n++ {
		err := op(ctx)
		if err == nil {
			return nil
		}
		if err := c.pause(ctx, what, n, err); err != nil {
			return err
		}
	}
}

// pause waits after the nth failure in a row; it returns err if that was the
// last try or if trying again cannot help.
func (c *client) pause(ctx context.Context, what string, n int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	tries := c.opt.Tries
	if retryAfter(err) > 0 { // a registry that says when to come back is busy, not broken
		tries *= busyFactor
	}
	if n >= tries || !transient(err) {
		return err
	}
	wait := c.opt.Backoff.Delay(n, nil)
	if asked := retryAfter(err); asked > wait {
		// Not before, and not all at once: others were told the same.
		wait = asked + time.Duration(rand.Float64()*float64(min(asked, mostSpread)))
	}
	c.opt.Log.Warn("image transfer tries again", "ref", c.ref.String(), "step", what, "try", n, "wait", wait.Round(time.Millisecond), "err", err)
	return backoff.Sleep(ctx, wait)
}

// busyFactor is how many more tries a registry gets that says when to come back.
const busyFactor = 5

// mostSpread is how far hosts that were told to come back together are spread.
const mostSpread = 30 * time.Second

// brief bounds a request that moves no more than a manifest.
func (c *client) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, 2*c.opt.Stall, errStalled)
}

func (c *client) url(parts ...string) string {
	return "https://" + c.ref.Registry() + "/v2/" + c.ref.Name() + "/" + strings.Join(parts, "/")
}

// do sends a request and returns the response if its status is one of want;
// else an error. The caller closes the body.
func (c *client) do(req *http.Request, want ...int) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, classify(err)
	}
	for _, code := range want {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	return nil, newStatusError(req, resp)
}

// manifestAccept names what we can read, and indexes, to say that we cannot.
const manifestAccept = tartfmt.MediaManifest + ", application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json"

// resolve asks what the reference means.
func (c *client) resolve(ctx context.Context) (digest string, err error) {
	if c.ref.Digest() != "" {
		return c.ref.Digest(), nil
	}
	err = c.retry(ctx, "resolve", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.url("manifests", c.ref.Tag()), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", manifestAccept)
		resp, err := c.do(req, http.StatusOK)
		if err != nil {
			return missing(err, c.ref)
		}
		_ = resp.Body.Close()
		digest = resp.Header.Get("Docker-Content-Digest")
		return nil
	})
	if err == nil && image.CheckDigest(digest) != nil {
		// Not every registry sends the header with HEAD.
		_, digest, err = c.manifest(ctx, c.ref.Tag())
	}
	return digest, err
}

// manifest fetches a manifest by tag or digest and returns its bytes and their
// digest, which is the one asked for, if it was one.
func (c *client) manifest(ctx context.Context, tagOrDigest string) (b []byte, digest string, err error) {
	err = c.retry(ctx, "manifest", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("manifests", tagOrDigest), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", manifestAccept)
		resp, err := c.do(req, http.StatusOK)
		if err != nil {
			return missing(err, c.ref)
		}
		defer resp.Body.Close()
		b, err = io.ReadAll(io.LimitReader(resp.Body, tartfmt.MaxManifestSize+1))
		if err != nil {
			return &wireError{err}
		}
		digest = fmt.Sprintf("sha256:%x", sha256.Sum256(b))
		if image.CheckDigest(tagOrDigest) == nil && digest != tagOrDigest {
			return &corruptError{fmt.Errorf("manifest %s arrived with the digest %s", tagOrDigest, digest)}
		}
		return nil
	})
	return b, digest, err
}

// putManifest stores a manifest under a tag and checks that the registry
// computed the same digest.
func (c *client) putManifest(ctx context.Context, tag, digest string, b []byte) error {
	return c.retry(ctx, "manifest", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.url("manifests", tag), strings.NewReader(string(b)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", tartfmt.MediaManifest)
		resp, err := c.do(req, http.StatusCreated)
		if err != nil {
			return err
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != digest {
			return fmt.Errorf("registry stored the manifest as %s, not %s", got, digest)
		}
		return resp.Body.Close()
	})
}
