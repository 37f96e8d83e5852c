// Package dockerlogin reads the credentials that "docker login" keeps, as do
// podman, crane, oras and others: in the file config.json itself, or with a
// credential helper, which is a program docker-credential-NAME.
//
// It reads and never writes. Nothing is cached: a login that was renewed is
// seen with the next question.
package dockerlogin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
)

// helperTimeout bounds a credential helper: one may ask the user.
const helperTimeout = 30 * time.Second

// Login is a user name and a password, or a token in its place.
type Login struct {
	Username string
	Password secret.String
}

// IsZero says whether nobody logs in.
func (l Login) IsZero() bool { return l.Username == "" && l.Password.Empty() }

// File is a config.json of Docker's.
type File struct {
	// Path is the file. Empty: config.json in $DOCKER_CONFIG, else in ~/.docker.
	Path string
}

// entry is one of "auths".
// Source: docker/cli, cli/config/types/authconfig.go.
type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

type content struct {
	Auths       map[string]entry  `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

func (f File) path() (string, error) {
	if f.Path != "" {
		return f.Path, nil
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".docker", "config.json"), err
}

// Login returns what is kept for a registry (host or host:port); the zero
// Login if nothing is. An error is about the file or its helper.
func (f File) Login(ctx context.Context, host string) (Login, error) {
	path, err := f.path()
	if err != nil {
		return Login{}, nil //nolint:nilerr // no home, no login
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, nil
	}
	if err != nil {
		return Login{}, fmt.Errorf("cannot read the logins of docker: %w", err)
	}
	var c content
	if err := json.Unmarshal(b, &c); err != nil {
		return Login{}, fmt.Errorf("cannot read the logins of docker in %q: %w", path, err)
	}
	for _, name := range names(host) {
		if helper := c.CredHelpers[name]; helper != "" {
			return ask(ctx, helper, name)
		}
	}
	if helper := byPattern(c.CredHelpers, host); helper != "" {
		return ask(ctx, helper, host)
	}
	for _, name := range names(host) {
		if e, ok := c.Auths[name]; ok {
			l, err := e.login()
			if err != nil {
				return Login{}, fmt.Errorf("cannot read the login for %s in %q: %w", host, path, err)
			}
			if !l.IsZero() {
				return l, nil
			}
		}
	}
	if c.CredsStore == "" {
		return Login{}, nil
	}
	for _, name := range names(host) {
		if l, err := ask(ctx, c.CredsStore, name); err != nil || !l.IsZero() {
			return l, err
		}
	}
	return Login{}, nil
}

// byPattern finds a helper whose key is a regular expression for all of the
// host, as tart reads them; the first in the order of the alphabet.
// Source: openai/tart, Sources/tart/Credentials.
func byPattern(helpers map[string]string, host string) string {
	for _, key := range slices.Sorted(maps.Keys(helpers)) {
		if !strings.ContainsAny(key, `*+?[(|\\`) {
			continue // the name of one host
		}
		if re, err := regexp.Compile(`^(?:` + key + `)$`); err == nil && re.MatchString(host) {
			return helpers[key]
		}
	}
	return ""
}

// names are the keys that a registry goes by, the likeliest first.
func names(host string) []string {
	if host == "docker.io" || host == "registry-1.docker.io" || host == "index.docker.io" {
		return []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io"}
	}
	return []string{host, "https://" + host, "https://" + host + "/", "https://" + host + "/v1/", "https://" + host + "/v2/", "http://" + host}
}

func (e entry) login() (Login, error) {
	if e.IdentityToken != "" {
		return Login{}, errors.New("it is an identity token, which this program does not use; log in with a user name and a token as password")
	}
	if e.Auth == "" {
		return Login{e.Username, secret.New(e.Password)}, nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimRight(e.Auth, "\x00"))
	if err != nil {
		return Login{}, errors.New("its auth is not base64")
	}
	name, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return Login{}, errors.New("its auth is not user:password in base64")
	}
	return Login{name, secret.New(strings.TrimRight(password, "\x00"))}, nil
}

// ask runs a credential helper: the registry on stdin, JSON on stdout.
// Source: docker/docker-credential-helpers, README, "Development".
func ask(ctx context.Context, helper, name string) (Login, error) {
	if strings.ContainsAny(helper, `/\`) {
		return Login{}, fmt.Errorf("cannot use credential helper %q: it is a path, not a name", helper)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, helperTimeout, errors.New("it takes too long"))
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: "docker-credential-" + helper, Args: []string{"get"}, Stdin: strings.NewReader(name + "\n")})
	if err != nil {
		said := string(res.Stdout) + string(res.Stderr)
		if strings.Contains(said, "credentials not found") {
			return Login{}, nil
		}
		return Login{}, fmt.Errorf("cannot ask credential helper %q for %s: %w", helper, name, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(bytes.TrimSpace(res.Stdout), &answer); err != nil {
		return Login{}, fmt.Errorf("cannot read what credential helper %q says of %s", helper, name)
	}
	if answer.Username == "<token>" {
		return Login{}, fmt.Errorf("credential helper %q has an identity token for %s, which this program does not use; log in with a user name and a token as password", helper, name)
	}
	return Login{answer.Username, secret.New(answer.Secret)}, nil
}
