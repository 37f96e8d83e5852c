// Package monitoring makes the files of a Prometheus, an Alertmanager, a Grafana
// and a Loki that watch hosts: deploy/monitoring, and the same for hosts of
// one's own (tasuki monitoring export).
//
// A bundle is those files, as a folder that "docker compose up" takes. An alert
// is a rule of Prometheus with a runbook in docs/monitoring.md. The dashboards
// are built by the package boards, which is in no binary, and embedded here.
// Nothing here reads a secret: the bundle names a file that holds the token.
package monitoring

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// Guide is where the alerts' runbooks are.
const Guide = "https://github.com/mirego/tasuki/blob/main/docs/monitoring.md"

// DefaultPort is that of metrics.listen in the guides.
const DefaultPort = 9464

// TokenFile is where the bundle has the token for the hosts' metrics.
const TokenFile = "secrets/metrics-token"

// Host is one host to watch.
type Host struct {
	Name    string // the label host: host.name of its configuration
	Address string // host:port of its metrics
	TLS     bool   // a proxy with TLS stands before it
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func addressable(name string) bool { return nameForm.MatchString(name) || net.ParseIP(name) != nil }

// ParseHost reads [NAME=][https://]ADDRESS[:PORT]. The name is the address where
// none is given.
func ParseHost(text string) (Host, error) {
	name, at, named := strings.Cut(text, "=")
	if !named {
		name, at = "", text
	}
	h := Host{Name: name}
	if rest, ok := strings.CutPrefix(at, "https://"); ok {
		h.TLS, at = true, rest
	}
	u, err := url.Parse("http://" + at)
	if err != nil || u.Host != at || !addressable(u.Hostname()) {
		return Host{}, fmt.Errorf("cannot read host %q: write it as rack-1=10.0.0.5:%d", text, DefaultPort)
	}
	if n, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || n < 1 || n > 65535) {
		return Host{}, fmt.Errorf("cannot read host %q: there is no port %s", text, u.Port())
	}
	h.Name = cmp.Or(h.Name, u.Hostname())
	if !addressable(h.Name) {
		return Host{}, fmt.Errorf("cannot read host %q: %q is no host's name", text, h.Name)
	}
	h.Address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), strconv.Itoa(DefaultPort)))
	return h, nil
}

// Options say what a bundle is for. The zero value of each field but Hosts means
// its default.
type Options struct {
	Hosts    []Host
	Interval time.Duration // between two scrapes; 15 s
	QueueAge time.Duration // from which a waiting job is an alert; 15 min
	LokiURL  string        // where the hosts send their logs; a placeholder
	// Folder is the absolute path of the bundle where its programs run on one
	// machine without containers; empty: as compose.yaml runs them.
	Folder string
}

// File is one file of a bundle.
type File struct {
	Path string // below the bundle's folder, with slashes
	Data []byte
}

//go:embed files dashboards
var embedded embed.FS

// Bundle returns all files but the token's, by path.
func Bundle(o Options) ([]File, error) {
	if len(o.Hosts) == 0 {
		return nil, errors.New("cannot make files that watch no host")
	}
	names := map[string]bool{}
	for _, h := range o.Hosts {
		if names[h.Name] {
			return nil, fmt.Errorf("cannot watch two hosts named %q: the dashboards tell hosts by their names", h.Name)
		}
		names[h.Name] = true
	}
	o.Interval = cmp.Or(o.Interval, 15*time.Second)
	o.QueueAge = cmp.Or(o.QueueAge, 15*time.Minute)
	o.LokiURL = cmp.Or(o.LokiURL, "http://monitoring.example.com:3100")
	if u, err := url.Parse(o.LokiURL); err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("cannot send logs to %q: write it as http://monitoring.example.com:3100; a password does not belong into it", o.LokiURL)
	}
	var out []File
	err := fs.WalkDir(embedded, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := o.render(name)
		out = append(out, file)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// render makes one file of an embedded one; those that end in .tmpl are
// templates over what sheet has.
func (o Options) render(name string) (File, error) {
	data, err := embedded.ReadFile(name)
	if err != nil {
		return File{}, err
	}
	if dir, base := path.Split(name); dir == "dashboards/" {
		return File{"grafana/dashboards/" + base, data}, nil
	}
	to := strings.TrimPrefix(name, "files/")
	plain, ok := strings.CutSuffix(to, ".tmpl")
	if !ok {
		return File{to, data}, nil
	}
	// Prometheus's and Alloy's own templates have two braces.
	t, err := template.New(name).Delims("<<", ">>").Funcs(template.FuncMap{"quote": quote, "span": span}).Parse(string(data))
	if err != nil {
		return File{}, fmt.Errorf("cannot read the template %q: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, sheet{o, Alerts(o)}); err != nil {
		return File{}, fmt.Errorf("cannot write %q: %w", plain, err)
	}
	return File{plain, b.Bytes()}, nil
}

// sheet is what templates see.
type sheet struct {
	Options
	Alerts []Alert
}

// Timeout is how long a scrape may take.
func (s sheet) Timeout() time.Duration { return min(s.Interval, 10*time.Second) }

// At is where a program of the bundle listens, as the others reach it.
func (s sheet) At(program string, port int) string {
	if s.Folder != "" {
		program = "127.0.0.1"
	}
	return net.JoinHostPort(program, strconv.Itoa(port))
}

// Secrets is the folder of secrets, as the programs see it.
func (s sheet) Secrets() string {
	if s.Folder != "" {
		return s.Folder + "/secrets"
	}
	return "/etc/secrets"
}

// Token is the file with the token, as Prometheus sees it.
func (s sheet) Token() string { return s.Secrets() + "/" + path.Base(TokenFile) }

// Dashboards is their folder, as Grafana sees it.
func (s sheet) Dashboards() string {
	if s.Folder != "" {
		return s.Folder + "/grafana/dashboards"
	}
	return "/var/lib/grafana/dashboards"
}

// Push is where Loki takes log lines.
func (s sheet) Push() string { return strings.TrimSuffix(s.LokiURL, "/") + "/loki/api/v1/push" }

// quote writes a scalar of YAML: JSON's strings are some.
func quote(s string) string { return strconv.Quote(s) }

// span writes a duration as Prometheus reads it.
func span(d time.Duration) string {
	if d%time.Minute == 0 && d > 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// Dashboards returns the embedded dashboards, by their file's name.
func Dashboards() (map[string][]byte, error) {
	entries, err := embedded.ReadDir("dashboards")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, e := range entries {
		if out[e.Name()], err = embedded.ReadFile("dashboards/" + e.Name()); err != nil {
			return nil, err
		}
	}
	return out, nil
}
