package cli

import (
	"testing"

	"github.com/mirego/tasuki/internal/api"
)

func TestAddressOfAScreen(t *testing.T) {
	for _, c := range []struct {
		login api.Login
		want  string // "" means an error
	}{
		{api.Login{Address: "192.168.64.7:22", User: "admin"}, "vnc://admin@192.168.64.7:5900"},
		{api.Login{Address: "192.168.64.7:22"}, "vnc://192.168.64.7:5900"},
		{api.Login{Address: "127.0.0.1:40022", User: "runner"}, ""},
		{api.Login{Address: "/a/folder"}, ""},
	} {
		got, err := vncAddress(c.login)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("vncAddress(%+v) = %q, %v; want %q", c.login, got, err, c.want)
		}
	}
}
