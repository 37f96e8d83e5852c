package tartfmttest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Read puts an image together as the strictest tart does: the first layer is
// the configuration, the last the nvram, everything between is disk.v2.
// fetch returns the blob with a digest.
func Read(manifest []byte, fetch func(digest string) ([]byte, error)) (Image, error) {
	type desc struct {
		MediaType, Digest string
		Size              int
		Annotations       map[string]string
	}
	var m struct {
		SchemaVersion int
		MediaType     string
		Config        desc
		Layers        []desc
		Annotations   map[string]string
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Image{}, err
	}
	blob := func(d desc, mediaType string) ([]byte, error) {
		if d.MediaType != mediaType {
			return nil, fmt.Errorf("media type %q, want %q", d.MediaType, mediaType)
		}
		b, err := fetch(d.Digest)
		if err == nil && (Digest(b) != d.Digest || len(b) != d.Size) {
			err = fmt.Errorf("blob %s has %d bytes and the digest %s", d.Digest, len(b), Digest(b))
		}
		return b, err
	}
	var img Image
	var errs [3]error
	img.OCIConfig, errs[0] = blob(m.Config, "application/vnd.oci.image.config.v1+json")
	img.Config, errs[1] = blob(m.Layers[0], "application/vnd.cirruslabs.tart.config.v1")
	img.NVRAM, errs[2] = blob(m.Layers[len(m.Layers)-1], "application/vnd.cirruslabs.tart.nvram.v1")
	if err := errors.Join(errs[:]...); err != nil {
		return Image{}, err
	}
	for _, d := range m.Layers[1 : len(m.Layers)-1] {
		b, err := blob(d, "application/vnd.cirruslabs.tart.disk.v2")
		if err != nil {
			return Image{}, err
		}
		raw, err := Decompress(b)
		if err != nil {
			return Image{}, err
		}
		if strconv.Itoa(len(raw)) != d.Annotations["org.cirruslabs.tart.uncompressed-size"] || Digest(raw) != d.Annotations["org.cirruslabs.tart.uncompressed-content-digest"] {
			return Image{}, fmt.Errorf("chunk of %d bytes, %s, is annotated as %v", len(raw), Digest(raw), d.Annotations)
		}
		img.Disk = append(img.Disk, raw...)
	}
	if strconv.Itoa(len(img.Disk)) != m.Annotations["org.cirruslabs.tart.uncompressed-disk-size"] {
		return Image{}, fmt.Errorf("disk of %d bytes is annotated as %v", len(img.Disk), m.Annotations)
	}
	return img, nil
}

// Decompress decodes an Apple LZ4 stream that is known to be sound; it panics
// where it is not.
func Decompress(s []byte) ([]byte, error) {
	var out []byte
	for {
		magic := string(s[:4])
		if magic == "bv4$" {
			if len(s) != 4 {
				return nil, fmt.Errorf("%d bytes follow the end", len(s)-4)
			}
			return out, nil
		}
		raw := int(binary.LittleEndian.Uint32(s[4:]))
		if raw > blockLen {
			return nil, fmt.Errorf("block of %d bytes", raw)
		}
		switch magic {
		case "bv4-":
			out = append(out, s[8:8+raw]...)
			s = s[8+raw:]
		case "bv41":
			n := int(binary.LittleEndian.Uint32(s[8:]))
			want := len(out) + raw
			out = decompressBlock(out, s[12:12+n])
			if len(out) != want {
				return nil, fmt.Errorf("block decodes to %d bytes, want %d", len(out)-want+raw, raw)
			}
			s = s[12+n:]
		default:
			return nil, fmt.Errorf("block %q", magic)
		}
	}
}

func decompressBlock(out, b []byte) []byte {
	length := func(n int) int {
		if n == 15 {
			for {
				more := b[0]
				b = b[1:]
				n += int(more)
				if more != 255 {
					break
				}
			}
		}
		return n
	}
	for {
		token := b[0]
		b = b[1:]
		n := length(int(token >> 4))
		out = append(out, b[:n]...)
		b = b[n:]
		if len(b) == 0 {
			return out
		}
		from := len(out) - int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		for n = length(int(token&15)) + 4; n > 0; n-- {
			out = append(out, out[from])
			from++
		}
	}
}
