package debian

import (
	"bytes"
	"encoding/binary"
	"os/user"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// bzImage wraps a kernel as the kernel's build does, with one setup sector.
func bzImage(t *testing.T, kernel []byte) []byte {
	t.Helper()
	var payload bytes.Buffer
	w := lz4.NewWriter(&payload)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(kernel); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := binary.Write(&payload, binary.LittleEndian, uint32(len(kernel))); err != nil {
		t.Fatal(err)
	}
	const before = 64 // decompressor code ahead of the payload
	image := make([]byte, 2*bzSectorSize+before)
	image[bzSetupSectors] = 1
	copy(image[bzMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[bzProtocol:], 0x20f)
	binary.LittleEndian.PutUint32(image[bzPayloadOffset:], before)
	binary.LittleEndian.PutUint32(image[bzPayloadLength:], uint32(payload.Len()))
	return append(append(image, payload.Bytes()...), "trailer"...)
}

func TestVmlinux(t *testing.T) {
	kernel := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel "), 100_000)...)
	whole := bzImage(t, kernel)
	if got, err := vmlinux(whole); err != nil || !bytes.Equal(got, kernel) {
		t.Errorf("vmlinux of a bzImage: got %d bytes, %v; want the %d of the kernel", len(got), err, len(kernel))
	}
	for _, other := range [][]byte{nil, []byte("MZ"), bytes.Repeat([]byte("arm64 "), 1000)} {
		if got, err := vmlinux(other); err != nil || !bytes.Equal(got, other) {
			t.Errorf("vmlinux of another image: got %d bytes, %v; want it unchanged", len(got), err)
		}
	}
	_, err := vmlinux(whole[:len(whole)-200])
	if err == nil || !strings.Contains(err.Error(), "is not within") {
		t.Errorf("vmlinux of a truncated image: got %v", err)
	}
	if _, err := vmlinux(bzImage(t, []byte("no ELF file"))); err == nil {
		t.Error("vmlinux of a payload that is no kernel: got no error")
	}
}

func TestHasRange(t *testing.T) {
	who := &user.User{Username: "ada", Uid: "1000"}
	for file, want := range map[string]bool{
		"":                        false,
		"bob:100000:65536\n":      false,
		"adam:100000:65536\n":     false,
		"ada:100000:65536\n":      true,
		"#x\n1000:100000:65536":   true,
		"10000:100000:65536\n":    false,
		"bob:1:2\nada:100000:1\n": true,
	} {
		if got := hasRange(file, who); got != want {
			t.Errorf("hasRange(%q): got %v, want %v", file, got, want)
		}
	}
}
