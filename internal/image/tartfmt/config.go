package tartfmt

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/mirego/tasuki/internal/image"
)

// NoNVRAM is the nvram layer of images that have no firmware variables. The
// format wants the layer, and some registries refuse empty blobs.
var NoNVRAM = []byte("tasuki: this image has no firmware variables\n")

// EncodeOCIConfig writes the stub OCI configuration with these labels. The
// architecture and the system come from image.LabelArch and image.LabelOS, with
// tart's defaults arm64 and darwin.
func EncodeOCIConfig(labels map[string]string) []byte {
	all := map[string]string{}
	maps.Copy(all, labels)
	all[labelDiskFormat] = "raw"
	arch, os := platform(labels)
	b := append([]byte(nil), `{"architecture":`...)
	b = appendString(b, arch)
	b = append(b, `,"config":{"Labels":`...)
	b = appendMap(b, all)
	b = append(b, `},"os":`...)
	b = appendString(b, os)
	return append(b, '}')
}

// ParseOCIConfig returns the labels of an OCI configuration; never nil. Where
// our labels for the system and the architecture are missing, they are taken
// from the configuration itself. Errors wrap ErrFormat.
func ParseOCIConfig(b []byte) (map[string]string, error) {
	var raw struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, bad("OCI configuration is not JSON: %v", err)
	}
	labels := raw.Config.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	if format := labels[labelDiskFormat]; format != "" && format != "raw" {
		return nil, bad("its disk has the format %q; only raw disks are read", format)
	}
	if labels[image.LabelArch] == "" && raw.Architecture != "" {
		labels[image.LabelArch] = raw.Architecture
	}
	if labels[image.LabelOS] == "" && raw.OS != "" {
		labels[image.LabelOS] = raw.OS
	}
	return labels, nil
}

func platform(labels map[string]string) (arch, os string) {
	arch, os = labels[image.LabelArch], labels[image.LabelOS]
	if arch == "" {
		arch = image.ArchARM64
	}
	if os == "" {
		os = image.OSDarwin
	}
	return arch, os
}

// DefaultVMConfig writes a config.json for an image that was not built by tart,
// with tart's own defaults for a Linux guest. The MAC address is derived from
// the labels, so the same image always has the same configuration.
func DefaultVMConfig(labels map[string]string) []byte {
	arch, os := platform(labels)
	sum := sha256.Sum256(appendMap(nil, labels))
	mac := sum[:6]
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	b := appendString([]byte(`{"arch":`), arch)
	b = append(b, `,"cpuCount":4,"cpuCountMin":4,"display":{"height":768,"width":1024},`...)
	b = fmt.Appendf(b, `"macAddress":"%02x:%02x:%02x:%02x:%02x:%02x",`, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
	b = appendString(append(b, `"memorySize":4294967296,"memorySizeMin":4294967296,"os":`...), os)
	return append(b, `,"version":1}`...)
}
