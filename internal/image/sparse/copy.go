package sparse

import (
	"context"
	"errors"
	"io"
	"os"
)

// CopyFile copies a file of this host with its holes to dst, which must not
// exist and gets mode 0600. Where the file system can share space between
// files, it does. When ctx ends, or another error comes, nothing is left.
func CopyFile(ctx context.Context, dst, src string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if CloneFile(dst, src) == nil {
		return os.Chmod(dst, 0o600)
	}
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = copyData(ctx, to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, os.Remove(dst))
	}
	return nil
}

// copyData copies what is data in from to the same place of to.
func copyData(ctx context.Context, to, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := to.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, end, err := NextData(from, at)
		if err != nil {
			return err
		}
		if err := copyRange(ctx, to, from, start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyStep is how much is copied before the context is asked again.
const copyStep = 64 << 20

func copyRange(ctx context.Context, to, from *os.File, start, end int64) error {
	for _, f := range []*os.File{to, from} {
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	for at := start; at < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.Copy(to, io.LimitReader(from, min(copyStep, end-at))) // copy_file_range where there is one
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}
