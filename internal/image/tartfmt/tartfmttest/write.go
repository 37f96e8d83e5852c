// Package tartfmttest writes and reads images as tart does, for tests of our
// own codec. It was written from the description of the format alone, shares
// no code with package tartfmt, and is slow, small and strict.
package tartfmttest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	blockLen = 65536
	tail     = 128 // every block ends in at least so many literals
)

// Stream compresses as Apple does: blocks of 64 KiB whose matches may reach
// 64 KiB back, over the borders of blocks.
func Stream(raw []byte) []byte {
	var out []byte
	last := map[[4]byte]int{} // where four bytes were seen last
	for base := 0; base < len(raw); base += blockLen {
		end := min(base+blockLen, len(raw))
		block := compress(raw, base, end, last)
		if len(block) >= end-base {
			out = append(out, "bv4-"...)
			out = binary.LittleEndian.AppendUint32(out, uint32(end-base))
			out = append(out, raw[base:end]...)
			continue
		}
		out = append(out, "bv41"...)
		out = binary.LittleEndian.AppendUint32(out, uint32(end-base))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(block)))
		out = append(out, block...)
	}
	return append(out, "bv4$"...)
}

func compress(raw []byte, base, end int, last map[[4]byte]int) []byte {
	w := blockWriter{raw: raw, literals: base}
	for i := base; i+tail <= end; {
		key := [4]byte(raw[i : i+4])
		at, seen := last[key]
		last[key] = i
		if !seen || i-at >= blockLen {
			i++
			continue
		}
		n := 4
		for i+n < end-tail && raw[at+n] == raw[i+n] {
			n++
		}
		w.sequence(i, i-at, n)
		for j := i; j < i+n; j++ {
			last[[4]byte(raw[j:j+4])] = j
		}
		i += n
	}
	w.sequence(end, 0, 0)
	return w.out
}

// blockWriter writes one LZ4 block.
type blockWriter struct {
	raw      []byte
	out      []byte
	literals int // where the literals not yet written begin
}

// sequence writes the literals up to a place, then a match unless it is empty.
func (w *blockWriter) sequence(upTo, offset, match int) {
	lit := upTo - w.literals
	token := byte(min(lit, 15)) << 4
	if match > 0 {
		token |= byte(min(match-4, 15))
	}
	w.out = append(w.out, token)
	w.length(lit)
	w.out = append(w.out, w.raw[w.literals:upTo]...)
	if match > 0 {
		w.out = binary.LittleEndian.AppendUint16(w.out, uint16(offset))
		w.length(match - 4)
	}
	w.literals = upTo + match
}

// length writes what of a length does not fit into the token.
func (w *blockWriter) length(n int) {
	if n < 15 {
		return
	}
	for n -= 15; n >= 255; n -= 255 {
		w.out = append(w.out, 255)
	}
	w.out = append(w.out, byte(n))
}

// Image is what tart pushes.
type Image struct {
	Disk      []byte
	ChunkSize int // raw bytes per chunk; tart's own is 512 MiB
	Config    []byte
	NVRAM     []byte
	OCIConfig []byte
}

// Digest is the digest of b as OCI writes it.
func Digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// Write returns the manifest and the blobs that it names, by their digests.
func Write(img Image) (manifest []byte, blobs map[string][]byte) {
	blobs = map[string][]byte{}
	layer := func(kind string, b []byte, annotations string) string {
		blobs[Digest(b)] = b
		return fmt.Sprintf(`{"annotations":{%s},"digest":"%s","mediaType":"application/vnd.cirruslabs.tart.%s","size":%d}`, annotations, Digest(b), kind, len(b))
	}
	layers := []string{layer("config.v1", img.Config, "")}
	for off := 0; off < len(img.Disk); off += img.ChunkSize {
		raw := img.Disk[off:min(off+img.ChunkSize, len(img.Disk))]
		layers = append(layers, layer("disk.v2", Stream(raw), fmt.Sprintf(
			`"org.cirruslabs.tart.uncompressed-content-digest":"%s","org.cirruslabs.tart.uncompressed-size":"%d"`, Digest(raw), len(raw))))
	}
	layers = append(layers, layer("nvram.v1", img.NVRAM, ""))
	blobs[Digest(img.OCIConfig)] = img.OCIConfig
	s := fmt.Sprintf(`{"annotations":{"org.cirruslabs.tart.uncompressed-disk-size":"%d","org.cirruslabs.tart.upload-time":"2026-11-23T08:11:45Z"},`, len(img.Disk))
	s += fmt.Sprintf(`"config":{"digest":"%s","mediaType":"application/vnd.oci.image.config.v1+json","size":%d},"layers":[%s],`, Digest(img.OCIConfig), len(img.OCIConfig), strings.Join(layers, ","))
	s += `"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}`
	return []byte(strings.ReplaceAll(s, "/", `\/`)), blobs
}
