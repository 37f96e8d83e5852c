package tartfmt

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/image"
)

func dig(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// swiftManifest is the example of the format's description, with two chunks.
var swiftManifest = strings.NewReplacer("\n", "", "CONF", dig("a"), "VM", dig("b"), "D0", dig("c"), "R0", dig("d"), "D1", dig("e"), "R1", dig("f"), "NV", dig("0")).Replace(
	`{"annotations":{"org.cirruslabs.tart.uncompressed-disk-size":"536871936","org.cirruslabs.tart.upload-time":"2026-11-23T08:11:45Z"},
"config":{"digest":"CONF","mediaType":"application\/vnd.oci.image.config.v1+json","size":100},
"layers":[{"annotations":{},"digest":"VM","mediaType":"application\/vnd.cirruslabs.tart.config.v1","size":42},
{"annotations":{"org.cirruslabs.tart.uncompressed-content-digest":"R0","org.cirruslabs.tart.uncompressed-size":"536870912"},
"digest":"D0","mediaType":"application\/vnd.cirruslabs.tart.disk.v2","size":214581681},
{"annotations":{"org.cirruslabs.tart.uncompressed-content-digest":"R1","org.cirruslabs.tart.uncompressed-size":"1024"},
"digest":"D1","mediaType":"application\/vnd.cirruslabs.tart.disk.v2","size":9},
{"annotations":{},"digest":"NV","mediaType":"application\/vnd.cirruslabs.tart.nvram.v1","size":65536}],
"mediaType":"application\/vnd.oci.image.manifest.v1+json","schemaVersion":2}`)

func TestManifestIsByteExact(t *testing.T) {
	m, err := Parse([]byte(swiftManifest))
	if err != nil {
		t.Fatal(err)
	}
	want := []Chunk{
		{Offset: 0, RawSize: 536870912, RawDigest: dig("d")},
		{Offset: 536870912, RawSize: 1024, RawDigest: dig("f")},
	}
	got := append([]Chunk(nil), m.Chunks...)
	for i := range got {
		got[i].Descriptor = Descriptor{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
	if m.DiskSize() != 536871936 {
		t.Errorf("disk size %d", m.DiskSize())
	}
	if diff := cmp.Diff(swiftManifest, string(m.Encode())); diff != "" {
		t.Errorf("encoded again (-want +got):\n%s", diff)
	}
}

func TestParseIsLenientAboutWhatItDoesNotKnow(t *testing.T) {
	s := strings.Replace(swiftManifest, `"schemaVersion":2`, `"schemaVersion":2,"subject":{"x":1},"later":[]`, 1)
	s = strings.Replace(s, `"org.cirruslabs.tart.uncompressed-size":"1024"`, `"org.cirruslabs.tart.uncompressed-size":"1024","org.cirruslabs.tart.disk-file-content-digest":"x"`, 1)
	m, err := Parse([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	if again := string(m.Encode()); again != swiftManifest {
		t.Errorf("what is said of the whole disk went into the manifest of another: %s", again)
	}
}

// The list of what the format asks names tests that are there.
func TestTheListOfRulesNamesTests(t *testing.T) {
	list, err := os.ReadFile("testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources strings.Builder
	for _, pattern := range []string{"*_test.go", "../transfer/*_test.go", "../../registry/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources.Write(text)
		}
	}
	names := regexp.MustCompile(`(?:Test|Fuzz)[A-Z][A-Za-z0-9]+`).FindAllString(string(list), -1)
	for _, name := range names {
		if !strings.Contains(sources.String(), "func "+name+"(") {
			t.Errorf("there is no %s", name)
		}
	}
	if len(names) < 20 {
		t.Errorf("%d tests are named: the check checks too little", len(names))
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, old, new, word string }{
		{"not JSON", `{"annotations"`, `{`, "not JSON"},
		{"index", `"layers":`, `"manifests":[{}],"layers":`, "index"},
		{"schema", `"schemaVersion":2`, `"schemaVersion":1`, "schema version 1"},
		{"no config", "tart.config.v1", "tart.x", "first layer"},
		{"no nvram", "tart.nvram.v1", "tart.x", "last layer"},
		{"disk.v1", "tart.disk.v2", "tart.disk.v1", "disk.v1"},
		{"overlay", "tart.disk.v2", "tart.disk.asif.overlay.v1", "macOS 27"},
		{"other layer", "tart.disk.v2", "tart.delta", "tart.delta"},
		{"no size", `uncompressed-size":"1024"`, `x":"1024"`, "raw size"},
		{"negative size", `uncompressed-size":"1024"`, `uncompressed-size":"-1"`, "raw size"},
		{"zero size", `uncompressed-size":"1024"`, `uncompressed-size":"0"`, "raw size"},
		{"overflow", `uncompressed-size":"1024"`, `uncompressed-size":"9223372036854775807"`, "raw size"},
		{"path for a digest", dig("c"), "sha256:../../../etc/passwd", "digest"},
		{"path for a raw digest", dig("d"), "../x", "digest"},
		{"negative blob", `"size":214581681`, `"size":-1`, "size -1"},
	}
	for _, tt := range tests {
		s := strings.Replace(swiftManifest, tt.old, tt.new, 1)
		if s == swiftManifest {
			t.Fatalf("%s: nothing replaced", tt.name)
		}
		_, err := Parse([]byte(s))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%s: error %v, want ErrFormat with %q", tt.name, err, tt.word)
		}
	}
	if _, err := Parse(make([]byte, MaxManifestSize+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("huge: %v", err)
	}
}

func TestChunkSizeKeepsManifestsSmall(t *testing.T) {
	for _, disk := range []int64{0, 1, 1 << 30, 120 << 30, 1 << 40, MaxDiskSize} {
		size := ChunkSize(disk, 0)
		n := (disk + size - 1) / size
		if n > MaxLayers-2 || size%DefaultChunkSize != 0 {
			t.Errorf("disk of %d: %d chunks of %d", disk, n, size)
		}
	}
	if got := ChunkSize(1<<30, 512<<20); got != 512<<20 {
		t.Errorf("wanted size is %d", got)
	}
	// A manifest with all the layers that are allowed must fit.
	m := Manifest{UploadTime: time.Unix(0, 0)}
	for range MaxLayers - 2 {
		m.Chunks = append(m.Chunks, Chunk{Descriptor: Descriptor{MediaDisk, dig("a"), 1 << 30, nil}, RawSize: 1 << 32, RawDigest: dig("b")})
	}
	if n := len(m.Encode()); n > MaxManifestSize {
		t.Errorf("a manifest of %d layers has %d bytes", MaxLayers, n)
	}
}

func TestOCIConfig(t *testing.T) {
	// The stub that tart writes has exactly 100 bytes.
	b := EncodeOCIConfig(nil)
	if want := `{"architecture":"arm64","config":{"Labels":{"org.cirruslabs.tart.disk.format":"raw"}},"os":"darwin"}`; string(b) != want || len(b) != 100 {
		t.Errorf("stub is %s, want %s", b, want)
	}
	labels := map[string]string{image.LabelOS: "linux", image.LabelArch: "amd64", image.LabelHostKey: "ssh-ed25519 AAAA/+ \"x\"\n", "ünïcode": "<&>\u2028"}
	b = EncodeOCIConfig(labels)
	if !json.Valid(b) {
		t.Fatalf("not JSON: %s", b)
	}
	got, err := ParseOCIConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	delete(got, labelDiskFormat)
	if diff := cmp.Diff(labels, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	got, err = ParseOCIConfig([]byte(`{"architecture":"arm64","os":"darwin","config":{}}`))
	if err != nil || got[image.LabelOS] != "darwin" || got[image.LabelArch] != "arm64" {
		t.Errorf("labels of a foreign image: %v, %v", got, err)
	}
	if _, err := ParseOCIConfig([]byte(`{"config":{"Labels":{"org.cirruslabs.tart.disk.format":"asif"}}}`)); !errors.Is(err, ErrFormat) {
		t.Errorf("an asif disk: %v", err)
	}
}

func TestDefaultVMConfig(t *testing.T) {
	labels := map[string]string{image.LabelOS: "linux", image.LabelArch: "amd64"}
	a := DefaultVMConfig(labels)
	var got struct {
		Version               int
		OS, Arch, MACAddress  string
		CPUCount, CPUCountMin int
		MemorySize, MemoryMin int64
		Display               struct{ Width, Height int }
	}
	if err := json.Unmarshal(a, &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != 1 || got.OS != "linux" || got.Arch != "amd64" || got.CPUCount != 4 || len(got.MACAddress) != 17 {
		t.Errorf("config %+v", got)
	}
	if odd := DefaultVMConfig(map[string]string{image.LabelOS: "\x00\u2028\xff", image.LabelArch: "\a'\""}); !json.Valid(odd) {
		t.Errorf("odd labels give no JSON: %q", odd)
	}
	if string(a) != string(DefaultVMConfig(labels)) {
		t.Error("the same labels give another configuration")
	}
}

func TestZeros(t *testing.T) {
	var z Zeros
	for _, n := range []int64{1, 4096, 1 << 20} {
		if want := fmt.Sprintf("sha256:%x", sha256.Sum256(make([]byte, n))); z.Digest(n) != want {
			t.Errorf("%d zeros: %s, want %s", n, z.Digest(n), want)
		}
	}
	known := z.Digest(DefaultChunkSize)
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(make([]byte, DefaultChunkSize))); known != want {
		t.Errorf("the known digest of a default chunk is %s, want %s", known, want)
	}
	blob := new(Encoder).Append(nil, make([]byte, DefaultChunkSize))
	c := Chunk{Descriptor: Descriptor{Size: int64(len(blob))}, RawSize: DefaultChunkSize, RawDigest: known}
	if !z.Chunk(c) {
		t.Errorf("a chunk of zeros, compressed to %d bytes, is not known as one", len(blob))
	}
	if c.RawDigest = dig("a"); z.Chunk(c) {
		t.Error("a chunk of something else counts as zeros")
	}
	// A manifest cannot make us hash for ever.
	if d := z.Digest(1 << 50); d != "" {
		t.Errorf("a petabyte was hashed: %s", d)
	}
	for n := range int64(100) {
		z.Digest(n + 5000)
	}
	if len(z.known) > maxHashedLengths {
		t.Errorf("%d lengths hashed", len(z.known))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(swiftManifest))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		var sum int64
		for _, c := range m.Chunks {
			if c.Offset != sum || c.RawSize <= 0 {
				t.Fatalf("chunk at %d of %d, want %d", c.Offset, c.RawSize, sum)
			}
			sum += c.RawSize
		}
		if again, err := Parse(m.Encode()); err != nil || again.DiskSize() != m.DiskSize() {
			t.Errorf("encoded again: %v", err)
		}
	})
}

func FuzzParseOCIConfig(f *testing.F) {
	f.Add(EncodeOCIConfig(map[string]string{image.LabelOS: "linux", "a/b": "c\n\"d"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		labels, err := ParseOCIConfig(b)
		if err != nil {
			return
		}
		again := EncodeOCIConfig(labels)
		if !json.Valid(again) {
			t.Fatalf("encoded again it is not JSON: %s", again)
		}
		if _, err := ParseOCIConfig(again); err != nil {
			t.Errorf("encoded again: %v", err)
		}
	})
}
