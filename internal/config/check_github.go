package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Account returns the account of that name, nil if there is none; the empty
// name is that of github itself.
func (c *Config) Account(name string) *Account {
	if name == "" {
		return &c.GitHub.Account
	}
	for i := range c.GitHub.Accounts {
		if a := &c.GitHub.Accounts[i]; a.Name == name {
			return &a.Account
		}
	}
	return nil
}

// github checks every account and lets the named ones inherit.
func (k *checker) github() {
	g := &k.c.GitHub
	k.account("github", &g.Account)
	var seen []string
	for i := range g.Accounts {
		a, path := &g.Accounts[i], fmt.Sprintf("github.accounts[%d]", i)
		where := []string{path + ".name", path}
		switch {
		case a.Name == "":
			k.bad(where, "an account has no name", "add name: WORD, and name it in pools under github")
		case !wordForm.MatchString(a.Name):
			k.bad(where, fmt.Sprintf("%q is not a name for an account", clip(a.Name)), "use lower-case letters, digits and hyphens")
		case slices.Contains(seen, a.Name):
			k.bad(where, fmt.Sprintf("account %q stands here a second time", a.Name), "give each a name of its own")
		}
		seen = append(seen, a.Name)
		k.account(path, &a.Account)
		a.inherit(g.Account)
		k.credential(path, &a.Account)
	}
	if k.usesUnnamed() {
		k.credential("github", &g.Account)
	}
}

// inherit takes over how GitHub is reached where the account does not say it.
func (a *Account) inherit(from Account) {
	if a.URL == "" {
		a.URL = from.URL
	}
	if a.Proxy == "" {
		a.Proxy = from.Proxy
	}
	if a.CA == "" {
		a.CA = from.CA
	}
}

// usesUnnamed says whether a pool needs the credential of github itself.
func (k *checker) usesUnnamed() bool {
	return len(k.c.Pools) == 0 || slices.ContainsFunc(k.c.Pools, func(p Pool) bool { return p.GitHub == "" })
}

// account checks what one account says, at a path of the file.
func (k *checker) account(path string, a *Account) {
	if a.URL != "" || path == "github" {
		k.address(path+".url", a)
	}
	k.source(path+".token", &a.Token)
	k.app(path, a)
	if a.Proxy != "" {
		k.proxy(path+".proxy", a.Proxy)
	}
	k.authorities(path+".ca", &a.CA)
}

// authorities checks a file of certificates that shall be trusted.
func (k *checker) authorities(path string, file *string) {
	if *file == "" {
		return
	}
	*file = k.path(*file)
	data, err := readSmall(*file)
	switch {
	case err != nil:
		k.bad(at(path), fmt.Sprintf("cannot read %q: %v", *file, err), "")
	case !x509.NewCertPool().AppendCertsFromPEM(data):
		k.bad(at(path), fmt.Sprintf("%q holds no certificate in PEM", *file), "give the authority's certificate, not its key")
	}
}

func (k *checker) address(path string, a *Account) {
	u, err := url.Parse(a.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		k.bad(at(path), fmt.Sprintf("%q is not the address of a GitHub", clip(a.URL)), "write https://github.com, https://HOST or http://HOST:PORT")
	case u.User != nil:
		k.bad(at(path), "the address carries a user or a secret", "write the token under github.token")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		k.bad(at(path), fmt.Sprintf("%q has more than a host", clip(a.URL)), "write "+u.Scheme+"://"+u.Host+"; the scope of each pool says the rest")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		k.bad(at(path), "over plain HTTP the token could be read on its way", "write https://"+u.Host+"; http is for an emulator on this machine")
	}
	a.URL = strings.TrimRight(a.URL, "/")
}

func (k *checker) app(path string, a *Account) {
	if _, written := k.c.at[path+".app"]; !written {
		return
	}
	where := []string{path + ".app"}
	k.source(path+".app.key", &a.App.Key)
	switch {
	case k.hasProblemAt(path + ".app"):
	case a.App.ID == "":
		k.bad(where, "the App has no id", "write its client id, which its settings show, under id")
	case a.App.Key.IsZero() && k.c.at[path+".app.key"] == (place{}):
		k.bad(where, "the App has no key", "write key: {file: PATH}; its settings make one")
	case !a.Token.IsZero():
		k.bad(where, "there are a token and an App", "keep one of them; pools of another credential name an account")
	}
	if a.App.Installation < 0 {
		k.bad(at(path+".app.installation"), fmt.Sprintf("%d is not the id of an installation", a.App.Installation), "leave it out: it is found")
	}
}

func (k *checker) proxy(path, proxy string) {
	u, err := url.Parse(proxy)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		k.bad(at(path), fmt.Sprintf("%q is not the address of a proxy", clip(proxy)), "write http://HOST:PORT")
	case u.User != nil:
		k.bad(at(path), "the proxy's address carries a user or a secret", "leave proxy out and put it into HTTPS_PROXY, in the agent's environment")
	}
}

// credential reports an account that has none, unless it is an emulator's.
func (k *checker) credential(path string, a *Account) {
	_, token := k.c.at[path+".token"]
	_, app := k.c.at[path+".app"]
	if token || app || !strings.HasPrefix(a.URL, "https://") {
		return
	}
	k.bad([]string{path}, path+".token is missing", "write token: {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}, or app")
}
