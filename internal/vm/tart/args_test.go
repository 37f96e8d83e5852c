package tart

import (
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/vm"
)

func TestArgumentsOfRun(t *testing.T) {
	const always = "run --no-graphics --no-audio --no-clipboard --root-disk-opts "
	for _, c := range []struct {
		rec  record
		want string
	}{
		{record{Name: "a", Network: vm.Network{Mode: vm.Internet}}, always + "sync=none --net-softnet a"},
		{record{Name: "a", Network: vm.Network{Mode: vm.Internet, Allow: []string{"10.1.0.0/16", "192.168.3.4/32"}, Block: []string{"1.1.1.1/32"}}},
			always + "sync=none --net-softnet --net-softnet-allow 10.1.0.0/16,192.168.3.4/32 --net-softnet-block 1.1.1.1/32 a"},
		{record{Name: "a", Network: vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{{Guest: "10.0.2.100:80", Host: "10.0.2.100:80"}}}},
			always + "sync=none --net-softnet --net-softnet-allow 10.0.2.100/32 --net-softnet-block 0.0.0.0/0 a"},
		{record{Name: "a", Machine: vm.Machine{OpenNetwork: true, Nested: true, DiskSync: "full", DiskCache: "cached", Shares: []vm.Share{
			{Name: "cache", Path: "/srv/cache"}, {Name: "out", Path: "/srv/out", Writable: true}}}},
			always + "sync=full,caching=cached --nested --dir cache:/srv/cache:ro --dir out:/srv/out a"},
	} {
		if got := strings.Join(runArguments(c.rec), " "); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestOwnWords(t *testing.T) {
	for stderr, want := range map[string]string{
		"": "",
		"Failed to perform garbage collection: x\nVM \"a\" is running\n": `VM "a" is running`,
		"Error: no\nUsage: tart <subcommand>\n":                          "no",
	} {
		if got := ownWords(stderr); got != want {
			t.Errorf("ownWords(%q) = %q, want %q", stderr, got, want)
		}
	}
}
