package tart

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
)

// Login is how tart logs in to one registry. The zero value is nobody.
type Login struct {
	Username string
	Password secret.String
	HTTP     bool // plain HTTP
}

// pullTries is how often a pull is tried. tart tries again by itself only where
// the network fails, not where a registry answers 429 or 5xx.
const pullTries = 5

// errStalled: a pull said nothing for long.
var errStalled = errors.New("tart pull stalls")

// Pull brings an image into tart's cache, by its digest: so no moved tag, and
// no pruning by tart, takes it away again. One that is there is not asked for.
// progress counts percents. The first retry comes at once, since tart throws
// half a pull away with its next command.
func (d *Driver) Pull(ctx context.Context, ref image.Ref, login Login, progress func(done, total int64)) error {
	if ref.Digest() == "" {
		return fmt.Errorf("cannot pull %s: it names no digest", ref)
	}
	if err := d.here(); err != nil {
		return fmt.Errorf("cannot pull %s: %w", ref, err)
	}
	pace := backoff.Policy{First: 2 * time.Second, Most: time.Minute}
	for n := 1; !d.Cached(ref); n++ {
		err := d.pullOnce(ctx, ref, login, progress)
		if err == nil && !d.Cached(ref) {
			err = errors.New("tart pull ended well and the image is not there")
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("cannot pull %s: %w", ref, context.Cause(ctx))
		case n == pullTries:
			return fmt.Errorf("cannot pull %s: %w", ref, err)
		}
		d.log.Warn("tart pull failed, trying again", "image", ref.String(), "try", n, "err", err)
		if n > 1 {
			if err := backoff.Sleep(ctx, pace.Delay(n-1, nil)); err != nil {
				return fmt.Errorf("cannot pull %s: %w", ref, err)
			}
		}
	}
	return nil
}

func (d *Driver) pullOnce(ctx context.Context, ref image.Ref, login Login, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(d.times.stall, func() {
		cancel(fmt.Errorf("it said nothing for %v: %w", d.times.stall, errStalled))
	})
	defer quiet.Stop()
	c := call{
		args: []string{"pull", ref.WithDigest(ref.Digest()).String()}, env: []string{"TART_NO_AUTO_PRUNE="}, limit: 24 * time.Hour,
		stdout: &percents{tell: func(n int64) {
			quiet.Reset(d.times.stall)
			if progress != nil && n >= 0 {
				progress(n, 100)
			}
		}},
	}
	if login.HTTP {
		c.args = append(c.args, "--insecure")
	}
	if login.Username != "" {
		// The host bounds it: without, tart tells every registry.
		c.env = append(c.env, "TART_REGISTRY_HOSTNAME="+ref.Registry(),
			"TART_REGISTRY_USERNAME="+login.Username, "TART_REGISTRY_PASSWORD="+login.Password.Reveal())
	}
	_, err := d.call(ctx, c)
	return err
}

// Forget removes an image from tart's cache. One that is not there is no error.
func (d *Driver) Forget(ctx context.Context, ref image.Ref) error {
	_, err := d.inTurn(ctx, call{args: []string{"delete", ref.WithDigest(ref.Digest()).String()}, limit: d.times.delete})
	if err != nil && !noSuchMachine(err) {
		return fmt.Errorf("cannot remove %s: %w", ref, err)
	}
	return nil
}

// percents reads what tart pull prints: lines such as "42%". Other lines are -1.
type percents struct {
	mu   sync.Mutex
	part string
	tell func(n int64)
}

func (p *percents) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := strings.Split(p.part+string(b), "\n")
	last := len(lines) - 1
	p.part = lines[last][max(0, len(lines[last])-256):]
	for _, line := range lines[:last] {
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(line), "%"), 10, 64)
		if err != nil || n < 0 || n > 100 {
			n = -1
		}
		p.tell(n)
	}
	return len(b), nil
}
