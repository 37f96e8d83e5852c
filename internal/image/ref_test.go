package image

import (
	"strings"
	"testing"
)

const someDigest = "sha256:9acca8e8c22201155389f65abbf6bc9723edc7384ead80503839f49dcc56d767"

func TestParse(t *testing.T) {
	tests := []struct{ in, registry, name, tag, digest, str string }{
		{"ghcr.io/mirego/runner", "ghcr.io", "mirego/runner", "latest", "", "ghcr.io/mirego/runner:latest"},
		{"127.0.0.1:5000/runner:v1.2", "127.0.0.1:5000", "runner", "v1.2", "", "127.0.0.1:5000/runner:v1.2"},
		{"[::1]:5000/a/b_c:T-1", "[::1]:5000", "a/b_c", "T-1", "", "[::1]:5000/a/b_c:T-1"},
		{"localhost/x", "localhost", "x", "latest", "", "localhost/x:latest"},
		{"GHCR.io/x", "ghcr.io", "x", "latest", "", "ghcr.io/x:latest"},
		{"mac-mini:5000/x@" + someDigest, "mac-mini:5000", "x", "", someDigest, "mac-mini:5000/x@" + someDigest},
		{"r.io/x:t@" + someDigest, "r.io", "x", "t", someDigest, "r.io/x:t@" + someDigest},
	}
	for _, tt := range tests {
		r, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		got := [5]string{r.Registry(), r.Name(), r.Tag(), r.Digest(), r.String()}
		want := [5]string{tt.registry, tt.name, tt.tag, tt.digest, tt.str}
		if got != want {
			t.Errorf("Parse(%q) = %q, want %q", tt.in, got, want)
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("Parse(%q) = %v, %v, want %v", r.String(), again, err, r)
		}
	}
}

func TestParseRefusesWithHint(t *testing.T) {
	tests := []struct{ in, hint string }{
		{"", "host/name:tag"},
		{"runner:latest", "ghcr.io/runner:latest"},
		{"mirego/runner", "names no registry"},
		{"https://ghcr.io/x", `without "https://"`},
		{"ghcr.io/Mirego/Runner", `did you mean "mirego/runner"`},
		{"ghcr.io/x:", "is not a tag"},
		{"ghcr.io/x:" + strings.Repeat("a", 129), "is not a tag"},
		{"ghcr.io/x@sha256:12", "64 lower-case"},
		{"ghcr.io/x@md5:12", "must begin with"},
		{"ghcr.io/../etc", "is not a repository name"},
		{"ghcr.io/", "is not a repository name"},
		{"gh cr.io/x", "is not a host"},
		{"-bad.io/x", "is not a host"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("Parse(%q) error = %v, want one with %q", tt.in, err, tt.hint)
		}
	}
}

func TestRefDerived(t *testing.T) {
	r, err := Parse("127.0.0.1:1/x:t")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.WithDigest(someDigest).String(), "127.0.0.1:1/x@"+someDigest; got != want {
		t.Errorf("WithDigest = %q, want %q", got, want)
	}
	if got := r.WithDigest("sha256:../../x"); !got.IsZero() {
		t.Errorf("WithDigest of nonsense = %v, want the zero Ref", got)
	}
	if got, want := r.WithTag("u").String(), "127.0.0.1:1/x:u"; got != want {
		t.Errorf("WithTag = %q, want %q", got, want)
	}
	var back Ref
	text, _ := r.MarshalText()
	if err := back.UnmarshalText(text); err != nil || back != r {
		t.Errorf("UnmarshalText(%q) = %v, %v", text, back, err)
	}
}

func TestLoopback(t *testing.T) {
	tests := map[string]bool{
		"127.0.0.1:5000/x": true, "localhost/x": true, "[::1]:5/x": true, "127.9.9.9/x": true,
		"10.0.2.2:5000/x": false, "ghcr.io/x": false, "localhost.example.org/x": false,
	}
	for in, want := range tests {
		r, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Loopback(); got != want {
			t.Errorf("%s: Loopback = %v, want %v", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ghcr.io/x:y")
	f.Add("[::1]:5000/a@" + someDigest)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("Parse(%q).String() = %q does not parse back: %v %v", s, r, again, err)
		}
	})
}
