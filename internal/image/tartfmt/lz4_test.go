package tartfmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pierrec/lz4/v4"

	"github.com/mirego/tasuki/internal/image/tartfmt/tartfmttest"
)

// samples are contents that stress the codec in different ways.
func samples() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	text := []byte(strings.Repeat("the relay runner hands on the sash; ", 9000))
	repeated := bytes.Repeat(random(60_000), 8) // matches only across blocks
	mixed := slices.Concat(text[:200_000], random(300_000), make([]byte, 2_000_000), text, random(17))
	return map[string][]byte{
		"empty": nil, "one byte": {7}, "text": text, "random": random(200_001),
		"zeros": make([]byte, 3<<20), "repeated": repeated, "mixed": mixed,
	}
}

func TestDecodeAppleStreams(t *testing.T) {
	var d Decoder // one for all: its window must not leak from stream to stream
	for name, raw := range samples() {
		var got bytes.Buffer
		err := d.Decode(&got, iotest.OneByteReader(bytes.NewReader(tartfmttest.Stream(raw))), int64(len(raw)))
		if err != nil || !bytes.Equal(got.Bytes(), raw) {
			t.Errorf("%s: error %v, %d bytes, equal %v", name, err, got.Len(), bytes.Equal(got.Bytes(), raw))
		}
	}
}

// The stream's headers say how long its content is; nothing else is known of it.
func TestDecodeWhatAppleWrote(t *testing.T) {
	stream, err := os.ReadFile("testdata/apple.lz4")
	if err != nil {
		t.Fatal(err)
	}
	const size = 158_592
	var got bytes.Buffer
	if err := new(Decoder).Decode(&got, bytes.NewReader(stream), size); err != nil || got.Len() != size {
		t.Fatalf("%d bytes, %v, want %d", got.Len(), err, size)
	}
	if theirs, err := tartfmttest.Decompress(stream); err != nil || !bytes.Equal(theirs, got.Bytes()) {
		t.Errorf("another decoder reads something else: %v", err)
	}
	again := new(Encoder).Append(nil, got.Bytes())
	var twice bytes.Buffer
	if err := new(Decoder).Decode(&twice, bytes.NewReader(again), size); err != nil || !bytes.Equal(twice.Bytes(), got.Bytes()) {
		t.Errorf("encoded again it decodes to something else: %v", err)
	}
}

// A decoder of independent blocks cannot read what Apple writes; this proves
// that the fixture has such streams at all.
func TestTheFixtureReachesAcrossBlocks(t *testing.T) {
	raw := samples()["repeated"]
	stream := tartfmttest.Stream(raw)
	if len(stream) > len(raw)/4 {
		t.Errorf("stream has %d bytes for %d: no block refers to the one before", len(stream), len(raw))
	}
}

func TestEncodeRoundTrip(t *testing.T) {
	var d Decoder
	var e Encoder
	for name, raw := range samples() {
		stream := e.Append(nil, raw)
		var got bytes.Buffer
		if err := d.Decode(&got, bytes.NewReader(stream), int64(len(raw))); err != nil || !bytes.Equal(got.Bytes(), raw) {
			t.Errorf("%s: error %v, %d bytes of %d", name, err, got.Len(), len(raw))
		}
		if theirs, err := tartfmttest.Decompress(stream); err != nil || !bytes.Equal(theirs, raw) {
			t.Errorf("%s: another decoder: %v, %d bytes of %d", name, err, len(theirs), len(raw))
		}
		if again := new(Encoder).Append(nil, raw); !bytes.Equal(again, stream) {
			t.Errorf("%s: a fresh encoder gives another stream", name)
		}
		if most := len(raw) + (len(raw)/blockSize+1)*8 + 4; len(stream) > most {
			t.Errorf("%s: stream has %d bytes, more than %d", name, len(stream), most)
		}
	}
}

// What every decoder of the format may rely on: blocks of up to 64 KiB, each
// shorter than its content or stored, each decodable by itself, each with the
// end that LZ4 asks for (lz4_Block_format.md, "End of block restrictions"),
// one end mark and nothing behind it.
func TestEncodedBlocksKeepToTheRules(t *testing.T) {
	for name, raw := range samples() {
		s := new(Encoder).Append(nil, raw)
		var got []byte
		for string(s[:4]) != magicEnd {
			n := int(binary.LittleEndian.Uint32(s[4:]))
			if n == 0 || n > 65536 || n != min(65536, len(raw)-len(got)) {
				t.Fatalf("%s: a block of %d bytes at %d of %d", name, n, len(got), len(raw))
			}
			if string(s[:4]) == magicStored {
				got, s = append(got, s[8:8+n]...), s[8+n:]
				continue
			}
			size := int(binary.LittleEndian.Uint32(s[8:]))
			block := make([]byte, n)
			if k, err := lz4.UncompressBlock(s[12:12+size], block); err != nil || k != n || size >= n {
				t.Fatalf("%s: a block by itself: %d bytes of %d from %d, %v", name, k, n, size, err)
			}
			if literals, lastMatch := blockEnd(s[12 : 12+size]); literals < 5 || lastMatch > n-12 {
				t.Errorf("%s: a block of %d ends in %d literals, its last match begins at %d", name, n, literals, lastMatch)
			}
			got, s = append(got, block...), s[12+size:]
		}
		if len(s) != 4 || !bytes.Equal(got, raw) {
			t.Errorf("%s: %d bytes follow the end; content equal: %v", name, len(s)-4, bytes.Equal(got, raw))
		}
	}
}

// blockEnd walks an LZ4 block: how many literals it ends in, and where in its
// content the last match begins; 0 without one.
func blockEnd(b []byte) (literals, lastMatch int) {
	at := 0
	length := func(n int) int {
		for more := n == 15; more; {
			n, more, b = n+int(b[0]), b[0] == 255, b[1:]
		}
		return n
	}
	for {
		token := b[0]
		b = b[1:]
		literals = length(int(token >> 4))
		at, b = at+literals, b[literals:]
		if len(b) == 0 {
			return literals, lastMatch
		}
		b = b[2:]
		lastMatch = at
		at += length(int(token&15)) + 4
	}
}

// Blocks larger than Apple's are read too, with a match over their borders.
func TestDecodeLargeBlocks(t *testing.T) {
	raw := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	stream := fmt.Appendf(nil, "bv4-")
	stream = binary.LittleEndian.AppendUint32(stream, uint32(len(raw)))
	stream = append(stream, raw...)
	stream = append(stream, tartfmttest.Stream(raw[:10])...)
	var got bytes.Buffer
	if err := new(Decoder).Decode(&got, bytes.NewReader(stream), int64(len(raw)+10)); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Clone(raw), raw[:10]...); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes decoded, want %d", got.Len(), len(want))
	}
}

func TestDecodeRefuses(t *testing.T) {
	u32 := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	good := string(tartfmttest.Stream([]byte("hello")))
	tests := map[string]struct {
		stream string
		size   int64
	}{
		"empty":               {"", 5},
		"unknown magic":       {"bvx-" + u32(5) + "hello", 5},
		"frame format":        {"\x04\x22\x4d\x18" + good, 5},
		"too long":            {good, 4},
		"too short":           {good, 6},
		"no end":              {good[:len(good)-4], 5},
		"cut":                 {good[:len(good)-6], 5},
		"block without bytes": {"bv41" + u32(5) + u32(0) + "bv4$", 5},
		"empty block":         {"bv4-" + u32(0) + "bv4$", 0},
		"huge block":          {"bv4-" + u32(1<<31) + "x", 1 << 40},
		"huge compressed":     {"bv41" + u32(65536) + u32(1<<31) + "x", 1 << 40},
		"before the start":    {"bv41" + u32(20) + u32(5) + "\x1fA\x09\x00\x01" + "bv4$", 20},
	}
	for name, tt := range tests {
		err := new(Decoder).Decode(io.Discard, strings.NewReader(tt.stream), tt.size)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v, want ErrCorrupt", name, err)
		}
	}
}

func TestDecodePassesErrorsOfItsEndsOn(t *testing.T) {
	boom := errors.New("boom")
	stream := tartfmttest.Stream(make([]byte, 3<<20))
	if err := new(Decoder).Decode(io.Discard, iotest.ErrReader(boom), 1); !errors.Is(err, boom) || errors.Is(err, ErrCorrupt) {
		t.Errorf("source fails: %v", err)
	}
	if err := new(Decoder).Decode(failingWriter{boom}, bytes.NewReader(stream), 3<<20); !errors.Is(err, boom) {
		t.Errorf("destination fails: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func FuzzDecode(f *testing.F) {
	for name, raw := range samples() {
		if name != "zeros" && name != "mixed" {
			f.Add(tartfmttest.Stream(raw[:min(len(raw), 140_000)]), int64(min(len(raw), 140_000)))
		}
	}
	f.Add([]byte("bv41\x14\x00\x00\x00\x05\x00\x00\x00\x1fA\x09\x00\x01bv4$"), int64(20))
	f.Fuzz(func(t *testing.T, stream []byte, size int64) {
		size = min(max(size, 0), 64<<20)
		w := &countingWriter{}
		var d Decoder
		err := d.Decode(w, bytes.NewReader(stream), size)
		if w.n > size || (err == nil && w.n != size) {
			t.Errorf("%d bytes written for a size of %d, error %v", w.n, size, err)
		}
		if len(d.out) > windowSize+maxBlock || cap(d.src) > maxBlock+maxBlock/200+64 {
			t.Errorf("buffers grew to %d and %d bytes", len(d.out), cap(d.src))
		}
	})
}

type countingWriter struct{ n int64 }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return len(p), nil
}

func BenchmarkDecode(b *testing.B) {
	raw := bytes.Repeat(samples()["mixed"], 8)
	stream := tartfmttest.Stream(raw)
	var d Decoder
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := d.Decode(io.Discard, bytes.NewReader(stream), int64(len(raw))); err != nil {
			b.Fatal(err)
		}
	}
}
