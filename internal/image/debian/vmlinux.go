package debian

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Offsets in the setup header of an x86 kernel image, from the kernel's
// Documentation/arch/x86/boot.rst.
const (
	bzSetupSectors   = 0x1f1
	bzMagic          = 0x202
	bzProtocol       = 0x206
	bzPayloadOffset  = 0x248
	bzPayloadLength  = 0x24c
	bzHeaderEnd      = 0x250
	bzPayloadVersion = 0x208 // the protocol that has the payload fields
	bzSectorSize     = 512
)

// vmlinux returns the uncompressed ELF kernel within a bzImage that is compressed
// with LZ4, as Debian's is: QEMU enters it directly, where it would spend seconds
// of emulation on decompressing. Any other image is returned as it is.
func vmlinux(image []byte) ([]byte, error) {
	if len(image) < bzHeaderEnd || string(image[bzMagic:bzMagic+4]) != "HdrS" ||
		binary.LittleEndian.Uint16(image[bzProtocol:]) < bzPayloadVersion {
		return image, nil
	}
	setup := int64(image[bzSetupSectors])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*bzSectorSize + int64(binary.LittleEndian.Uint32(image[bzPayloadOffset:]))
	end := start + int64(binary.LittleEndian.Uint32(image[bzPayloadLength:]))
	if start+8 > end || end > int64(len(image)) {
		return nil, fmt.Errorf("cannot unpack the kernel: its payload [%d:%d] is not within its %d bytes", start, end, len(image))
	}
	payload := image[start:end]
	if binary.LittleEndian.Uint32(payload) != 0x184c2102 { // LZ4's legacy frame
		return image, nil
	}
	// The build appends the uncompressed size to the frame.
	size := binary.LittleEndian.Uint32(payload[len(payload)-4:])
	kernel, err := io.ReadAll(lz4.NewReader(bytes.NewReader(payload[:len(payload)-4])))
	if err != nil {
		return nil, fmt.Errorf("cannot unpack the kernel: %w", err)
	}
	if uint32(len(kernel)) != size || !bytes.HasPrefix(kernel, []byte("\x7fELF")) {
		return nil, fmt.Errorf("cannot unpack the kernel: got %d bytes that are no ELF file of %d", len(kernel), size)
	}
	return kernel, nil
}
