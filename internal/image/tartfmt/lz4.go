package tartfmt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Apple's LZ4 framing (COMPRESSION_LZ4): a header per block, and an end mark.
// All integers are little endian.
const (
	magicCompressed = "bv41" // raw size, compressed size, an LZ4 block
	magicStored     = "bv4-" // raw size, raw bytes
	magicEnd        = "bv4$"

	blockSize  = 64 << 10 // what Apple's encoder writes, and we
	windowSize = 64 << 10 // how far back a match may reach
	maxBlock   = 4 << 20  // the largest block that we read
	flushSize  = 1 << 20  // how much is collected before it is written out
	readSize   = 256 << 10
)

// ErrCorrupt says that a compressed chunk does not decode to what it should.
var ErrCorrupt = errors.New("chunk is corrupt")

// Decoder decodes chunks. It keeps its buffers, about 1.5 MiB, from one chunk
// to the next; only a stream with blocks larger than usual makes it grow, to
// 10 MiB at most. It must not be used by several goroutines at once.
type Decoder struct {
	in  *bufio.Reader
	src []byte // a compressed block that does not fit into in's buffer
	out []byte // the window, then what is not written yet
}

// Decode reads one compressed chunk from src and writes its raw bytes to dst,
// in pieces of about 1 MiB. They must be exactly size bytes. It reads no more
// than it needs plus some read-ahead, so what follows the end mark may be left
// in src. Errors wrap ErrCorrupt if the stream is to blame; those of src and
// dst are returned as they are.
func (d *Decoder) Decode(dst io.Writer, src io.Reader, size int64) error {
	if d.in == nil {
		d.in = bufio.NewReaderSize(src, readSize)
		d.out = make([]byte, windowSize+flushSize)
	} else {
		d.in.Reset(src)
	}
	start, end := 0, 0 // out[start:end] is not written yet; out[:start] is history
	var done int64     // raw bytes decoded so far
	for {
		raw, stored, err := d.header()
		if err != nil {
			return err
		}
		if raw == 0 {
			if done != size {
				return fmt.Errorf("%w: it ends after %d of %d bytes", ErrCorrupt, done, size)
			}
			_, err := dst.Write(d.out[start:end])
			return err
		}
		if int64(raw) > size-done {
			return fmt.Errorf("%w: it is longer than %d bytes", ErrCorrupt, size)
		}
		if end+raw > len(d.out) {
			if _, err := dst.Write(d.out[start:end]); err != nil {
				return err
			}
			start = d.slide(end, raw)
			end = start
		}
		if err := d.block(d.out[:end], d.out[end:end+raw:end+raw], stored); err != nil {
			return err
		}
		end += raw
		done += int64(raw)
	}
}

// header reads a block's magic and raw size; 0 is the end of the stream.
func (d *Decoder) header() (raw int, stored bool, err error) {
	var h [8]byte
	if _, err := io.ReadFull(d.in, h[:4]); err != nil {
		return 0, false, cutShort(err)
	}
	switch string(h[:4]) {
	case magicEnd:
		return 0, false, nil
	case magicStored:
		stored = true
	case magicCompressed:
	default:
		return 0, false, fmt.Errorf("%w: unknown block %q", ErrCorrupt, h[:4])
	}
	if _, err := io.ReadFull(d.in, h[4:]); err != nil {
		return 0, false, cutShort(err)
	}
	n := binary.LittleEndian.Uint32(h[4:])
	if n == 0 || n > maxBlock {
		return 0, false, fmt.Errorf("%w: a block of %d bytes", ErrCorrupt, n)
	}
	return int(n), stored, nil
}

// slide keeps the last window of out[:end] as history, makes room for raw
// bytes behind it, and returns where they begin.
func (d *Decoder) slide(end, raw int) int {
	keep := min(end, windowSize)
	old := d.out
	if keep+raw > len(d.out) {
		d.out = make([]byte, windowSize+maxBlock)
	}
	copy(d.out, old[end-keep:end])
	return keep
}

// block fills dst from the input; before is what was decoded before it.
func (d *Decoder) block(before, dst []byte, stored bool) error {
	if stored {
		_, err := io.ReadFull(d.in, dst)
		return cutShort(err)
	}
	var h [4]byte
	if _, err := io.ReadFull(d.in, h[:]); err != nil {
		return cutShort(err)
	}
	n := int64(binary.LittleEndian.Uint32(h[:]))
	if n == 0 || n > int64(lz4.CompressBlockBound(len(dst))) {
		return fmt.Errorf("%w: %d bytes for a block of %d", ErrCorrupt, n, len(dst))
	}
	src, err := d.take(int(n))
	if err != nil {
		return err
	}
	dict := before[max(0, len(before)-windowSize):]
	got, err := lz4.UncompressBlockWithDict(src, dst, dict)
	if err != nil || got != len(dst) {
		return fmt.Errorf("%w: a block of %d bytes decodes to %d (%v)", ErrCorrupt, len(dst), got, err)
	}
	return d.skip(src)
}

// take returns the next n bytes of the input, without copying where they fit
// into the reader's buffer. They are consumed by skip.
func (d *Decoder) take(n int) ([]byte, error) {
	if n <= d.in.Size() {
		src, err := d.in.Peek(n)
		return src, cutShort(err)
	}
	if cap(d.src) < n {
		d.src = make([]byte, n)
	}
	src := d.src[:n]
	_, err := io.ReadFull(d.in, src)
	return src, cutShort(err)
}

func (d *Decoder) skip(src []byte) error {
	if len(src) > d.in.Size() {
		return nil
	}
	_, err := d.in.Discard(len(src))
	return err
}

// cutShort turns the end of the input, which may not come inside a stream,
// into corruption. Only the two values themselves mean that: a source may wrap
// them in errors of its own, about a connection for one.
func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // see above
		return fmt.Errorf("%w: it is cut short", ErrCorrupt)
	}
	return err
}

// Encoder compresses chunks. Blocks are independent of each other, which every
// reader of the format takes. It must not be used by several goroutines at once.
type Encoder struct {
	c   lz4.Compressor
	buf []byte
}

// Append compresses raw and appends it to dst as one whole stream. The same
// input always gives the same output.
func (e *Encoder) Append(dst, raw []byte) []byte {
	if e.buf == nil {
		e.buf = make([]byte, lz4.CompressBlockBound(blockSize))
	}
	le := binary.LittleEndian
	for len(raw) > 0 {
		block := raw[:min(len(raw), blockSize)]
		raw = raw[len(block):]
		// The buffer is as large as CompressBlock can need, so it cannot fail.
		n, err := e.c.CompressBlock(block, e.buf)
		if err != nil || n == 0 || n >= len(block) {
			dst = append(dst, magicStored...)
			dst = le.AppendUint32(dst, uint32(len(block)))
			dst = append(dst, block...)
			continue
		}
		dst = append(dst, magicCompressed...)
		dst = le.AppendUint32(dst, uint32(len(block)))
		dst = le.AppendUint32(dst, uint32(n))
		dst = append(dst, e.buf[:n]...)
	}
	return append(dst, magicEnd...)
}
