package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBthXeIsQnbrwZOI3yW4rBsxvbKHQ8vXjdlzQyXgVm1Y"

// TestArguments compares command lines with testdata/args-NAME.txt, one
// argument a line.
func TestArguments(t *testing.T) {
	rec := record{
		Name: "tk-one", CPUs: 2, MemoryMiB: 1024, User: "runner", Hostname: "one", LoginKey: testKey,
		UUID: "01234567-89ab-4cde-8f01-23456789abcd", Network: vm.Network{Mode: vm.Isolated},
	}
	byKernel := boot{Kernel: "/images/x,y/kernel", Initrd: "/images/x,y/initrd", Cmdline: "root=/dev/vda console=ttyS0"}
	forwards := vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{
		{Guest: "10.0.2.100:80", Host: "127.0.0.1:8080"},
		{Guest: "10.0.2.101:443", Host: "registry.local:5000"},
	}}
	for name, m := range map[string]machine{
		"amd64-tcg-kernel":   {Rec: with(rec, byKernel, forwards), Arch: image.ArchAMD64, Accel: "tcg", Sandbox: true, SSHPort: 40001, Relay: []string{"/opt/it's, here/tasuki", "relay"}},
		"amd64-kvm-firmware": {Rec: rec, Arch: image.ArchAMD64, Accel: "kvm", Sandbox: true, SSHPort: 40002},
		"amd64-kvm-internet": {Rec: with(rec, byKernel, vm.Network{Mode: vm.Internet}), Arch: image.ArchAMD64, Accel: "kvm", Sandbox: true, SSHPort: 40003, NetFD: 4},
		"arm64-hvf-firmware": {Rec: with(rec, boot{Firmware: "/opt/a,b/code.fd"}, rec.Network), Arch: image.ArchARM64, Accel: "hvf", SSHPort: 40004},
		"arm64-tcg-kernel":   {Rec: with(rec, byKernel, rec.Network), Arch: image.ArchARM64, Accel: "tcg", Sandbox: true, SSHPort: 40005},
		"amd64-tcg-uefi":     {Rec: seeded(with(rec, boot{Firmware: "/usr/share/OVMF/OVMF_CODE_4M.fd"}, rec.Network)), Arch: image.ArchAMD64, Accel: "tcg", Sandbox: true, SSHPort: 40007},
		"amd64-tcg-no-key":   {Rec: withoutKey(rec), Arch: image.ArchAMD64, Accel: "tcg", SSHPort: 40006},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(m.arguments(), "\n") + "\n"
			golden := filepath.Join("testdata", "args-"+name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("arguments (-want +got); rewrite with -update:\n%s", diff)
			}
		})
	}
}

func with(rec record, b boot, n vm.Network) record {
	rec.Boot, rec.Network = b, n
	return rec
}

func seeded(rec record) record {
	rec.Media = []string{"/build/x,y/seed.iso"}
	return rec
}

func withoutKey(rec record) record {
	rec.LoginKey = ""
	return rec
}

func TestForwardsAreChecked(t *testing.T) {
	d := &Driver{opt: Options{Relay: []string{"/relay"}}}
	good := vm.Forward{Guest: "10.0.2.100:80", Host: "127.0.0.1:8080"}
	for _, f := range []vm.Forward{
		{Guest: "", Host: good.Host},
		{Guest: "10.0.2.100", Host: good.Host},
		{Guest: "10.0.2.100:0", Host: good.Host},
		{Guest: "10.0.3.100:80", Host: good.Host},
		{Guest: "10.0.2.2:80", Host: good.Host},  // the gateway
		{Guest: "10.0.2.15:80", Host: good.Host}, // the guest
		{Guest: "10.0.2.100:80-cmd:sh", Host: good.Host},
		{Guest: good.Guest, Host: ""},
		{Guest: good.Guest, Host: "127.0.0.1"},
		{Guest: good.Guest, Host: "127.0.0.1:99999"},
		{Guest: good.Guest, Host: ":80"},
		{Guest: good.Guest, Host: "-c:80"},
		{Guest: good.Guest, Host: "a b:80"},
		{Guest: good.Guest, Host: "a',guestfwd=x:80"},
	} {
		if err := d.checkNetwork(vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{f}}); err == nil {
			t.Errorf("the forward %+v is taken", f)
		}
	}
	for _, f := range []vm.Forward{good, {Guest: "10.0.2.4:1", Host: "[::1]:65535"}, {Guest: "10.0.2.254:1", Host: "host.example:1"}} {
		if err := d.checkNetwork(vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{f}}); err != nil {
			t.Errorf("the forward %+v is refused: %v", f, err)
		}
	}
	if err := d.checkNetwork(vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{good, good}}); err == nil {
		t.Error("one address is forwarded twice")
	}
}
