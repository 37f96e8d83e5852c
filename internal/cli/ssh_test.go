package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
)

func TestSSHTrustsOneHostKeyAndOneLoginKey(t *testing.T) {
	login := api.Login{Address: "127.0.0.1:2222", User: "runner", KeyFile: "/h/keys/r", HostKey: "ssh-ed25519 AAAA"}
	args, err := sshArgs(login, "r", "/tmp/kh")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(args, " ")
	for _, want := range []string{
		"-F none", "-i /h/keys/r", "-p 2222", "IdentitiesOnly=yes", "HostKeyAlias=r", "StrictHostKeyChecking=yes",
		"UserKnownHostsFile=/tmp/kh", "GlobalKnownHostsFile=none", "-l runner",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q lacks %q", all, want)
		}
	}
	if i := slices.Index(args, "--"); i < 0 || args[i+1] != "127.0.0.1" {
		t.Errorf("the host does not follow --: %q", all)
	}
}

func TestSSHTakesNoOptionForAnAddress(t *testing.T) {
	for _, login := range []api.Login{
		{Address: "-oProxyCommand=x:22", User: "u"}, {Address: "127.0.0.1:22", User: "-oProxyCommand=x"}, {Address: "/not/tcp", User: "u"},
	} {
		if args, err := sshArgs(login, "r", "/tmp/kh"); err == nil {
			t.Errorf("%+v: got %q", login, args)
		}
	}
}

// An image that names no host key: the first one that the guest shows is
// believed, and kept beside the guest's login key for as long as it lives.
func TestSSHTrustsOnFirstUse(t *testing.T) {
	login := api.Login{Address: "192.168.64.7:22", User: "admin", KeyFile: "/h/keys/r"}
	hosts, done, err := hostsFile(login, "r")
	if err != nil {
		t.Fatal(err)
	}
	done()
	args, err := sshArgs(login, "r", hosts)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(args, " ")
	for _, want := range []string{"StrictHostKeyChecking=accept-new", "UserKnownHostsFile=/h/keys/r.hosts", "HostKeyAlias=r", "IdentitiesOnly=yes"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q lacks %q", all, want)
		}
	}
}

// The known key is in a file of its own, which goes with the command.
func TestSSHKeepsNoFileOfAKnownKey(t *testing.T) {
	login := api.Login{Address: "192.168.64.7:22", User: "admin", KeyFile: "/h/keys/r", HostKey: "ssh-ed25519 AAAA"}
	hosts, done, err := hostsFile(login, "r")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(hosts); err != nil || string(text) != "r ssh-ed25519 AAAA\n" {
		t.Errorf("%q, %v", text, err)
	}
	done()
	if _, err := os.Stat(hosts); err == nil {
		t.Error("it was left")
	}
}

// Without an address ssh goes through the agent's tunnel, which it gives to a
// shell after it replaced %.
func TestSSHThroughATunnel(t *testing.T) {
	login := api.Login{Tunnel: []string{"printf", "%s:%s", "it's 100%"}, User: "admin", KeyFile: "/h/keys/r", HostKey: "ssh-ed25519 AAAA"}
	args, err := sshArgs(login, "r", "/tmp/kh")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "ProxyCommand=") })
	if i < 0 || args[len(args)-1] != "r" {
		t.Fatalf("%q", args)
	}
	command := strings.ReplaceAll(strings.TrimPrefix(args[i], "ProxyCommand="), "%%", "%")
	res, err := proc.Run(t.Context(), proc.Cmd{Path: "/bin/sh", Args: []string{"-c", command}})
	if err != nil || string(res.Stdout) != "it's 100%:22" {
		t.Errorf("%q ran as %q, %v", command, res.Stdout, err)
	}
	if args, err := sshArgs(api.Login{User: "admin"}, "r", "/tmp/kh"); err == nil {
		t.Errorf("with no way at all: %q", args)
	}
}
