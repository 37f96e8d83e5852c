package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/config"
)

func TestAccountsInheritHowGitHubIsReached(t *testing.T) {
	key := write(t, "key.pem", "x")
	c, err := config.Parse("c.yaml", []byte(`
github:
  url: https://github.example.com
  proxy: http://proxy.example.com:3128
  accounts:
    - {name: app, app: {id: 12345, key: {file: `+key+`}, installation: 7}}
    - {name: cloud, url: "https://github.com", token: {env: T}}
pools:
  - {name: a, image: r.example.com/x, scope: acme, github: app, standby: 1}
  - {name: b, image: r.example.com/x, scope: acme/b, github: cloud, standby: 1}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Account{URL: "https://github.example.com", Proxy: "http://proxy.example.com:3128",
		App: config.App{ID: "12345", Key: config.Source{File: key}, Installation: 7}}
	if diff := cmp.Diff(&want, c.Account("app")); diff != "" {
		t.Errorf("app (-want +got):\n%s", diff)
	}
	if a := c.Account("cloud"); a.URL != "https://github.com" || a.Proxy != want.Proxy {
		t.Errorf("cloud: %+v", a)
	}
	if c.Account("nobody") != nil || c.Account("") != &c.GitHub.Account {
		t.Error("accounts are found by their names, and github's own by none")
	}
	shown, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse("c.yaml", shown)
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	if diff := cmp.Diff(c.GitHub, again.GitHub); diff != "" {
		t.Errorf("shown and read again (-want +got):\n%s", diff)
	}
}

// Tokens of installations grew from 40 to some 520 characters, and carry a JWT
// now: what looks for secrets must not look for a length, or for letters alone.
func TestIncidentLongToken(t *testing.T) {
	long := "ghs_1234567_eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("aZ0-_", 80) + "." + strings.Repeat("x9_-B", 20)
	_, err := config.Parse("c.yaml", []byte("github:\n  token: "+long+"\npools: []\n"))
	if err == nil || strings.Contains(err.Error(), long[4:40]) || !strings.Contains(err.Error(), "c.yaml:2:10: a secret stands in the configuration") {
		t.Errorf("got %v", err)
	}
}
