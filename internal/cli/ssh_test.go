package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/api"
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

func TestSSHRefusesAGuestWithoutAHostKey(t *testing.T) {
	err := sshInto(t.Context(), api.Login{Address: "127.0.0.1:22", User: "u"}, "r", nil)
	if err == nil || !strings.Contains(err.Error(), "no host key") {
		t.Errorf("got %v", err)
	}
}
