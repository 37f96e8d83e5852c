// Package cloud takes the disks that distributions publish for clouds: fetched
// by URL, verified, made raw, and seeded through NoCloud.
//
// A cloud image is a disk with a partition table, a boot loader and cloud-init,
// as qcow2 or raw. It has no user and no key. On its first boot cloud-init
// looks for a data source; NoCloud is the one that needs no network: a small
// file system named "cidata" with the files user-data and meta-data
// (cloudinit.readthedocs.io, "NoCloud").
//
// A cache keeps what was fetched, by checksum; a file that is there is verified.
package cloud

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
)

// ErrChecksum says that a file is not the one that was asked for.
var ErrChecksum = errors.New("its checksum is another")

// tries is how often a download is begun; each goes on where the last ended.
const tries = 5

// idle is how long a server may send nothing.
const idle = time.Minute

// Cache keeps files by their checksums. Its methods may be called at the same
// time, by one process; the caller keeps processes apart.
type Cache struct {
	// Dir is made where missing.
	Dir string
	// Client makes the requests; nil means http.DefaultClient.
	Client *http.Client
	// Img is the path of qemu-img; "" means the one on PATH.
	Img string
}

// Fetch returns the path of the file that from names, a URL (http, https or
// file) or a path of this host, once its checksum was found to be the given
// one: "sha256:HEX" or "sha512:HEX". A path of this host is returned as it is;
// what is downloaded is kept. progress may be nil; its total is 0 while unknown.
func (c *Cache) Fetch(ctx context.Context, from, checksum string, progress func(done, total int64)) (string, error) {
	path, err := c.fetch(ctx, from, checksum, progress)
	if err != nil {
		return "", fmt.Errorf("cannot fetch %q: %w", from, err)
	}
	return path, nil
}

func (c *Cache) fetch(ctx context.Context, from, checksum string, progress func(done, total int64)) (string, error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if _, _, err := parseChecksum(checksum); err != nil {
		return "", err
	}
	if path, ok := localPath(from); ok {
		return path, verify(ctx, path, checksum)
	}
	_, digest, _ := strings.Cut(checksum, ":")
	path := filepath.Join(c.Dir, digest[:32])
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		if err := verify(ctx, path, checksum); err == nil || !errors.Is(err, ErrChecksum) {
			return path, err
		}
		if err := os.Remove(path); err != nil { // damaged here
			return "", err
		}
	}
	part := path + ".part"
	if err := c.download(ctx, from, part, progress); err != nil {
		return "", err
	}
	if err := verify(ctx, part, checksum); err != nil {
		if errors.Is(err, ErrChecksum) {
			err = errors.Join(err, os.Remove(part))
		}
		return "", err
	}
	return path, os.Rename(part, path)
}

// localPath says whether from is a file of this host.
func localPath(from string) (string, bool) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme == "" {
		return from, true
	}
	if u.Scheme == "file" {
		return u.Path, true
	}
	return "", false
}

// download fetches a file into part, which may hold its beginning.
func (c *Cache) download(ctx context.Context, from, part string, progress func(done, total int64)) error {
	var err error
	for try := range tries {
		if try > 0 {
			if backoff.Sleep(ctx, time.Second<<try) != nil {
				return context.Cause(ctx)
			}
		}
		var again bool
		if again, err = c.downloadOnce(ctx, from, part, progress); err == nil || !again || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%w (%d tries)", err, tries)
}

// downloadOnce says whether another try may help.
func (c *Cache) downloadOnce(ctx context.Context, from, part string, progress func(done, total int64)) (again bool, err error) {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(idle, func() { cancel(fmt.Errorf("the server sent nothing for %v", idle)) })
	defer silent.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return false, err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := cmp.Or(c.Client, http.DefaultClient).Do(req)
	if err != nil {
		return true, cmp.Or(context.Cause(ctx), err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		have = 0
		if err := errors.Join(f.Truncate(0), rewind(f)); err != nil {
			return false, err
		}
	case resp.StatusCode == http.StatusPartialContent:
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return true, errors.Join(errors.New("the beginning that is here is not of this file"), f.Truncate(0))
	default:
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the server answered %s", resp.Status)
	}
	total := max(0, resp.ContentLength) + have
	body := readFunc(func(p []byte) (int, error) {
		n, err := resp.Body.Read(p)
		silent.Reset(idle)
		have += int64(n)
		progress(have, total)
		return n, err
	})
	if _, err := io.Copy(f, body); err != nil {
		return true, cmp.Or(context.Cause(ctx), err)
	}
	return false, nil
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// parseChecksum returns the hash that a checksum is of.
func parseChecksum(checksum string) (hash.Hash, string, error) {
	name, digest, _ := strings.Cut(checksum, ":")
	h := map[string]hash.Hash{"sha256": sha256.New(), "sha512": sha512.New()}[name]
	if raw, err := hex.DecodeString(digest); h == nil || err != nil || len(raw) != h.Size() || strings.ToLower(digest) != digest {
		return nil, "", fmt.Errorf("%q is not a checksum; sha256: or sha512: and lower-case hexadecimal digits are", checksum)
	}
	return h, digest, nil
}

// verify reads a whole file and compares.
func verify(ctx context.Context, path, checksum string) error {
	h, want, err := parseChecksum(checksum)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(h, readFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return f.Read(p)
	}))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("it has %s, not %s: %w", got, want, ErrChecksum)
	}
	return nil
}

// convertTimeout bounds the conversion of one disk.
const convertTimeout = 30 * time.Minute

// Disk fetches a disk and returns the path of its raw form, kept in the cache.
// A qcow2 file that names others is refused.
func (c *Cache) Disk(ctx context.Context, from, checksum string, progress func(done, total int64)) (string, error) {
	path, err := c.Fetch(ctx, from, checksum, progress)
	if err != nil {
		return "", err
	}
	qcow2, err := isQcow2(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the disk %q: %w", from, err)
	}
	if !qcow2 {
		return filepath.Abs(path)
	}
	_, digest, _ := strings.Cut(checksum, ":")
	raw, err := filepath.Abs(filepath.Join(c.Dir, digest[:32]+".raw"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(raw); err == nil {
		return raw, nil
	}
	if err := c.convert(ctx, path, raw); err != nil {
		return "", fmt.Errorf("cannot convert the disk %q: %w", from, err)
	}
	return raw, nil
}

// qcow2Magic begins a qcow2 file (docs/interop/qcow2.txt of QEMU).
const qcow2Magic = "QFI\xfb"

func isQcow2(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var b [len(qcow2Magic)]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return false, fmt.Errorf("it is no disk: %w", err)
	}
	return string(b[:]) == qcow2Magic, nil
}

func (c *Cache) convert(ctx context.Context, from, raw string) error {
	img, err := proc.Look(cmp.Or(c.Img, "qemu-img"))
	if err != nil {
		return err
	}
	if err := refuseOthers(from); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, convertTimeout, fmt.Errorf("not done after %v", convertTimeout))
	defer cancel()
	part := raw + ".part"
	_, err = proc.Run(ctx, proc.Cmd{Path: img, Args: []string{"convert", "-q", "-f", "qcow2", "-O", "raw", "-S", "4k", from, part}})
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	return os.Rename(part, raw)
}

// refuseOthers refuses a qcow2 file that takes its content from another file:
// what is downloaded must not read files of this host. Offsets are those of the
// header: backing file at 8, incompatible features at 72, of which bit 2 is an
// external data file.
func refuseOthers(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var header [104]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return fmt.Errorf("its header is cut off: %w", err)
	}
	for _, b := range header[8:16] {
		if b != 0 {
			return errors.New("it names a backing file")
		}
	}
	if header[79]&(1<<2) != 0 {
		return errors.New("it names an external data file")
	}
	return nil
}
