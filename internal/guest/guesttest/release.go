package guesttest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"

	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
)

// release returns an archive with an official runner program, and a large file.
func (s *suite) release(text string) []byte {
	s.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	files := tar.NewWriter(zip)
	for path, content := range map[string]string{"./bin/Runner.Listener": "#!/bin/sh\n" + text, "./externals/node": strings.Repeat("0123456789", 100<<10)} {
		if err := files.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
			s.Fatal(err)
		}
		if _, err := io.WriteString(files, content); err != nil {
			s.Fatal(err)
		}
	}
	for _, c := range []io.Closer{files, zip} {
		if err := c.Close(); err != nil {
			s.Fatal(err)
		}
	}
	return out.Bytes()
}

func testRelease(s *suite) {
	for path, text := range map[string]string{"bin/Runner.Listener": "#!/bin/sh\necho 2.300.0", ".env": "A=b\n"} {
		if err := guest.Put(s.ctx(), s.ch, "~/old/"+path, 0o755, strings.NewReader(text)); err != nil {
			s.Fatal(err)
		}
	}
	p := guest.Program{Dir: "~/old", Kind: image.RunnerOfficial}
	if v, err := guest.RunnerVersion(s.ctx(), s.ch, p); v != "2.300.0" || err != nil {
		s.Errorf("RunnerVersion: %q, %v", v, err)
	}
	if v, err := guest.RunnerVersion(s.ctx(), s.ch, guest.Program{Dir: "~/none"}); v != "" || err != nil {
		s.Errorf("RunnerVersion of nothing: %q, %v", v, err)
	}
	good := s.release("echo new; cat .env")
	if _, err := guest.Unpack(s.ctx(), s.ch, p, "2.336.0", bytes.NewReader(good[:len(good)/2])); err == nil {
		s.Error("half a release was taken")
	}
	if left := s.sh("ls -d ~/.tasuki/actions-runner* 2>/dev/null || true"); left != "" {
		s.Errorf("half a release is left: %s", left)
	}
	dir, err := guest.Unpack(s.ctx(), s.ch, p, "2.336.0", bytes.NewReader(good))
	if err != nil {
		s.Fatal(err)
	}
	unread := strings.NewReader("it is there already")
	if again, err := guest.Unpack(s.ctx(), s.ch, p, "2.336.0", unread); again != dir || err != nil || unread.Len() != int(unread.Size()) {
		s.Errorf("the second time: %q, %v, %d bytes unread", again, err, unread.Len())
	}
	p.Dir = dir
	s.launch(p)
	if log, code := s.follow(s.ch, 0); log != "new\nA=b\n" || code != 0 {
		s.Errorf("log %q, status %d of the new release", log, code)
	}
}
