package config

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
)

// RegistryServer is a registry that this machine serves.
type RegistryServer struct {
	Listen        string            `yaml:"listen,omitempty" doc:"Address and port to listen on. :5000 is every address of the machine." example:":5000"`
	Dir           string            `yaml:"dir,omitempty" doc:"The folder of the images. Relative: to the configuration's folder." example:"/srv/tasuki-registry"`
	TLS           TLS               `yaml:"tls,omitempty" doc:"How it proves itself. Without, it speaks plain HTTP."`
	PlainHTTP     bool              `yaml:"plain_http,omitempty" doc:"Speak plain HTTP on other addresses than loopback ones: behind a proxy that speaks TLS."`
	Open          bool              `yaml:"open,omitempty" doc:"Ask nobody who they are while there are no users, on other addresses than loopback ones."`
	AnonymousPull bool              `yaml:"anonymous_pull,omitempty" doc:"Anybody may pull; pushes take a writer."`
	Mirrors       []Mirror          `yaml:"mirrors,omitempty" doc:"Other registries that are pulled through this one, at HOST/mirror/NAME/REPOSITORY."`
	GC            GarbageCollection `yaml:"gc,omitempty" doc:"What is deleted, and when."`
	MetricsToken  Source            `yaml:"metrics_token,omitempty" doc:"Who presents it as a bearer token may read /metrics. Callers on this machine need none."`
	AccessLog     bool              `yaml:"access_log,omitempty" doc:"Log every request, with who asked."`
}

// TLS is a certificate: of the user's own, or generated.
type TLS struct {
	Cert     string   `yaml:"cert,omitempty" doc:"A certificate with its chain, in PEM. It is read again when it changes."`
	Key      string   `yaml:"key,omitempty" doc:"Its key, in PEM."`
	Generate bool     `yaml:"generate,omitempty" doc:"Make an authority and a certificate, kept in the folder tls of dir, and renew it before it ends."`
	Hosts    []string `yaml:"hosts,omitempty" doc:"Names and addresses that clients use, for generate, beside the machine's own." example:"registry.example.com"`
}

// Mirror is a registry that is pulled through another.
type Mirror struct {
	Upstream string   `yaml:"upstream" doc:"The registry's host, or its URL." example:"ghcr.io"`
	Name     string   `yaml:"name,omitempty" doc:"Its word in references. Empty: the upstream's host." example:"github"`
	Username string   `yaml:"username,omitempty" doc:"Who logs in there."`
	Password Source   `yaml:"password,omitempty" doc:"Password or token of that user. It never stands in this file."`
	CA       string   `yaml:"ca,omitempty" doc:"A file with certificates in PEM of authorities that its address may be signed by, beside the system's. Relative: to the configuration's folder." example:"upstream-ca.pem"`
	Keep     Duration `yaml:"keep,omitempty" doc:"How long an image stays that nobody pulls. 0s: 30 days."`
}

// GarbageCollection says what of a registry is deleted, and when.
type GarbageCollection struct {
	Every    Duration `yaml:"every,omitempty" doc:"How often. 0s: never by itself."`
	KeepLast int      `yaml:"keep_last,omitempty" doc:"How many images of each repository stay: those that were tagged last. 0: all."`
	KeepTags []string `yaml:"keep_tags,omitempty" doc:"Tags that stay whatever their age; * is any letters." example:"stable"`
	Untagged Duration `yaml:"untagged,omitempty" doc:"How long an image stays that lost its last tag: hosts may be pinned to its digest."`
	Grace    Duration `yaml:"grace,omitempty" doc:"What came less long ago stays in any case. Longer than the longest push."`
}

var mirrorForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

// registryServer checks what this machine serves.
func (k *checker) registryServer() {
	r := &k.c.Registry
	if _, _, err := net.SplitHostPort(r.Listen); err != nil {
		k.bad(at("registry.listen"), fmt.Sprintf("%q is not ADDRESS:PORT", clip(r.Listen)), "write 127.0.0.1:5000, or :5000 for every address")
	}
	r.Dir = k.path(r.Dir)
	r.TLS.Cert, r.TLS.Key = k.path(r.TLS.Cert), k.path(r.TLS.Key)
	switch {
	case (r.TLS.Cert == "") != (r.TLS.Key == ""):
		k.bad(at("registry.tls"), "only one of cert and key is given", "give both, or generate: true")
	case r.TLS.Cert != "" && r.TLS.Generate:
		k.bad(at("registry.tls.generate"), "there is a certificate, and one shall be generated", "keep cert and key, or generate")
	case len(r.TLS.Hosts) > 0 && !r.TLS.Generate:
		k.bad(at("registry.tls.hosts"), "hosts are for a generated certificate", "add generate: true, or remove them")
	}
	var seen []string
	for i := range r.Mirrors {
		seen = append(seen, k.mirror(fmt.Sprintf("registry.mirrors[%d]", i), &r.Mirrors[i], seen))
	}
	for i, pattern := range r.GC.KeepTags {
		if _, err := path.Match(pattern, ""); err != nil {
			k.bad(at(fmt.Sprintf("registry.gc.keep_tags[%d]", i)), fmt.Sprintf("%q is not a pattern", clip(pattern)), "write * for any letters")
		}
	}
	if r.GC.KeepLast < 0 {
		k.bad(at("registry.gc.keep_last"), fmt.Sprintf("cannot keep %d images", r.GC.KeepLast), "write 0 to keep all")
	}
	k.source("registry.metrics_token", &r.MetricsToken)
}

func (k *checker) mirror(where string, m *Mirror, seen []string) (name string) {
	k.source(where+".password", &m.Password)
	k.authorities(where+".ca", &m.CA)
	if m.Upstream == "" {
		k.bad(at(where), "a mirror names no upstream", "add upstream: HOST, such as ghcr.io")
	}
	if (m.Username == "") != m.Password.IsZero() {
		k.bad(at(where), fmt.Sprintf("mirror of %q has only one of username and password", clip(m.Upstream)), "give both or neither")
	}
	if m.Name != "" && !mirrorForm.MatchString(m.Name) {
		k.bad(at(where+".name"), fmt.Sprintf("%q cannot be a word of a repository's name", clip(m.Name)), "use lower-case letters, digits, dots and hyphens")
	}
	if name = m.Name; name == "" {
		name = m.Upstream
	}
	if slices.Contains(seen, name) {
		k.bad([]string{where + ".name", where}, fmt.Sprintf("a second mirror is called %q", clip(name)), "give one of them another name")
	}
	return name
}
