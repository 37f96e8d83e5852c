package image

import (
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strings"
)

// DefaultTag is the tag of a reference that names neither tag nor digest.
const DefaultTag = "latest"

// Limits of the OCI distribution specification 1.1 ("Pulling manifests") and of
// the reference grammar that Docker made common.
const (
	maxNameLen = 255
	maxTagLen  = 128
)

var (
	nameRE = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	hostRE = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)
)

// Ref names an image in a registry. Its zero value names nothing. Refs are
// comparable values.
type Ref struct {
	registry string
	name     string
	tag      string
	digest   string
}

// Parse reads a reference of the form host[:port]/name[:tag][@sha256:hex].
// Without tag and digest the tag is DefaultTag. Where both are given the digest
// decides and the tag is only kept for reading.
func Parse(s string) (Ref, error) {
	bad := func(why string, args ...any) (Ref, error) {
		return Ref{}, fmt.Errorf("cannot parse image reference %q: %s", s, fmt.Sprintf(why, args...))
	}
	if s == "" {
		return bad("it is empty; write host/name:tag, such as registry.local:5000/runner:latest")
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return bad("write it without %q", scheme+"://")
	}
	host, rest, ok := strings.Cut(s, "/")
	if !ok || !looksLikeHost(host) {
		return bad("it names no registry; write host/name:tag, such as ghcr.io/%s", strings.ToLower(s))
	}
	if !hostRE.MatchString(host) {
		return bad("%q is not a host or host:port", host)
	}
	ref := Ref{registry: strings.ToLower(host)}
	rest, digest, hasDigest := strings.Cut(rest, "@")
	if hasDigest {
		if err := CheckDigest(digest); err != nil {
			return bad("%v", err)
		}
		ref.digest = digest
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		ref.tag, rest = rest[i+1:], rest[:i]
		if len(ref.tag) > maxTagLen || !tagRE.MatchString(ref.tag) {
			return bad("%q is not a tag: up to %d letters, digits, '.', '_' and '-'", ref.tag, maxTagLen)
		}
	} else if !hasDigest {
		ref.tag = DefaultTag
	}
	if lower := strings.ToLower(rest); lower != rest && nameRE.MatchString(lower) {
		return bad("repository names are lower case; did you mean %q?", lower)
	}
	if len(rest) > maxNameLen || !nameRE.MatchString(rest) {
		return bad("%q is not a repository name: lower-case words joined by '/', '.', '_' or '-', up to %d characters", rest, maxNameLen)
	}
	ref.name = rest
	return ref, nil
}

// looksLikeHost tells a registry's host from the first word of a repository
// name, by the rule that Docker's references follow: it has a dot or a port, or
// it is localhost. Other one-word hosts need their port.
func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:[")
}

// String is the reference as Parse reads it, with its tag or digest written out.
func (r Ref) String() string {
	if r == (Ref{}) {
		return ""
	}
	s := r.registry + "/" + r.name
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// IsZero reports whether the reference names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Registry is the registry's host, with the port if one was given.
func (r Ref) Registry() string { return r.registry }

// Name is the repository within the registry, such as "team/runner".
func (r Ref) Name() string { return r.name }

// Tag is the tag, or "" for a reference by digest alone.
func (r Ref) Tag() string { return r.tag }

// Digest is the digest ("sha256:hex"), or "" for a reference by tag.
func (r Ref) Digest() string { return r.digest }

// WithDigest returns the reference to the same repository by this digest alone.
// An invalid digest gives the zero Ref.
func (r Ref) WithDigest(digest string) Ref {
	if CheckDigest(digest) != nil || r.IsZero() {
		return Ref{}
	}
	return Ref{registry: r.registry, name: r.name, digest: digest}
}

// WithTag returns the reference to the same repository by this tag alone. An
// invalid tag gives the zero Ref.
func (r Ref) WithTag(tag string) Ref {
	if len(tag) > maxTagLen || !tagRE.MatchString(tag) || r.IsZero() {
		return Ref{}
	}
	return Ref{registry: r.registry, name: r.name, tag: tag}
}

// Loopback reports whether the registry is this very host, which is the only
// one that is spoken to over plain HTTP without being asked.
func (r Ref) Loopback() bool {
	host := r.registry
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// MarshalText writes the reference as String does.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what Parse reads; empty text is the zero Ref.
func (r *Ref) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Ref{}
		return nil
	}
	ref, err := Parse(string(text))
	if err != nil {
		return err
	}
	*r = ref
	return nil
}

const digestPrefix = "sha256:"

// CheckDigest reports why a string is not a digest that we take: "sha256:" and
// 64 lower-case hexadecimal digits. It is safe to use a checked digest's hex
// part as a file name.
func CheckDigest(digest string) error {
	h, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok {
		return fmt.Errorf("%q is not a digest: it must begin with %q", digest, digestPrefix)
	}
	if _, err := hex.DecodeString(h); err != nil || len(h) != 64 || strings.ToLower(h) != h {
		return fmt.Errorf("%q is not a digest: %q must be followed by 64 lower-case hexadecimal digits", digest, digestPrefix)
	}
	return nil
}

// DigestHex is the part of a digest after "sha256:", or "" if it is none.
func DigestHex(digest string) string {
	if CheckDigest(digest) != nil {
		return ""
	}
	return strings.TrimPrefix(digest, digestPrefix)
}
