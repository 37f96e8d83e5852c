package qemu

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

// machine is one QEMU to be started: all that its command line depends on.
type machine struct {
	Rec     record
	Arch    string
	Accel   string
	Sandbox bool // QEMU's seccomp filter; Linux alone has one
	SSHPort int
	Relay   []string
	// NetFD is the number of the inherited socket that leads to passt; 0 where
	// QEMU's own user network is used.
	NetFD int
}

// arguments returns QEMU's arguments. File names of the guest are relative to
// its folder, where QEMU is started: so a deep home does not exceed the 108
// bytes of a socket's path. There is no secret among them.
func (m machine) arguments() []string {
	rec := m.Rec
	args := []string{
		"-name", rec.Name,
		"-nodefaults", "-no-user-config", "-display", "none",
		// A runner that reboots is lost to its job: end, so that List shows it.
		"-no-reboot",
		"-machine", m.board(), "-accel", accelArg(m.Accel), "-cpu", cpuArg(m.Arch, m.Accel),
		"-smp", strconv.Itoa(rec.CPUs), "-m", strconv.Itoa(rec.MemoryMiB) + "M",
		"-uuid", rec.UUID,
		"-pidfile", pidFile,
		"-chardev", "socket,id=qmp,path=" + qmpFile + ",server=on,wait=off",
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=console,path=" + consoleFile + ",append=on",
		"-serial", "chardev:console",
		// The disk is thrown away with the guest: its flushes need not reach ours.
		"-drive", "if=none,id=disk,file=" + diskFile + ",format=qcow2,cache=unsafe,discard=unmap",
		"-device", "virtio-blk-pci,drive=disk",
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", "virtio-rng-pci,rng=rng",
		"-netdev", m.netdev(),
		"-device", "virtio-net-pci,netdev=net,romfile=,mac=" + macOf(rec.UUID),
	}
	for i, path := range rec.Media {
		id := "medium" + strconv.Itoa(i)
		args = append(args,
			"-drive", "if=none,id="+id+",file="+commas(path)+",format=raw,readonly=on",
			"-device", "virtio-blk-pci,drive="+id)
	}
	args = append(args, m.sandbox()...)
	args = append(args, m.credentials()...)
	return append(args, m.boot()...)
}

func (m machine) board() string {
	switch {
	case m.Arch == image.ArchAMD64:
		// What no guest of ours uses costs time while it starts.
		return "q35,hpet=off,usb=off,smbus=off,sata=off,i8042=off,vmport=off"
	case m.Accel == "hvf":
		return "virt"
	default:
		return "virt,gic-version=max"
	}
}

func accelArg(accel string) string {
	if accel == "tcg" {
		return "tcg,thread=multi"
	}
	return accel
}

func cpuArg(arch, accel string) string {
	switch {
	case accel != "tcg":
		return "host"
	case arch == image.ArchARM64:
		// Emulating the architected pointer authentication is slow.
		return "max,pauth-impdef=on"
	default:
		return "max"
	}
}

// sandbox is QEMU's seccomp filter: it forbids QEMU what it never needs. A
// guest with forwards runs without: QEMU 7.2 starts their relays itself, and its
// filter kills each of them between fork and exec even where "spawn=allow" and
// "elevateprivileges=children" are given.
func (m machine) sandbox() []string {
	if !m.Sandbox || m.NetFD == 0 && len(m.Rec.Network.Forwards) > 0 {
		return nil
	}
	return []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
}

// netdev is the guest's network; network.go says why.
func (m machine) netdev() string {
	if m.NetFD != 0 {
		return fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", m.NetFD)
	}
	s := fmt.Sprintf("user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:%d-:22", m.SSHPort)
	for _, f := range m.Rec.Network.Forwards {
		relay := append(slices.Clone(m.Relay), f.Host)
		for i, word := range relay {
			relay[i] = shellQuote(word)
		}
		s += ",guestfwd=tcp:" + f.Guest + "-cmd:" + commas(strings.Join(relay, " "))
	}
	return s
}

// commas writes a value of a QEMU option, where a comma would end it.
func commas(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// shellQuote quotes a word as g_shell_parse_argv of GLib reads it, which is
// what QEMU's user network splits a command with.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// macOf derives the address of a guest's network card from its identity, in
// the range that QEMU uses for its own. Two guests with one address disturb
// each other wherever they share a network.
func macOf(uuid string) string {
	hex := strings.ReplaceAll(uuid, "-", "")
	return fmt.Sprintf("52:54:00:%s:%s:%s", hex[0:2], hex[2:4], hex[4:6])
}

// credentials hand the guest its login key and name, for systemd to take up
// (systemd.system-credentials(7)). They are readable on this machine and hold
// nothing secret.
func (m machine) credentials() []string {
	creds := m.credentialList()
	if m.Arch == image.ArchARM64 && m.Rec.Boot.Kernel != "" {
		// Without UEFI there is no SMBIOS on arm64.
		var args []string
		for _, c := range creds {
			args = append(args, "-fw_cfg", "name=opt/io.systemd.credentials/"+c.name+",string="+commas(c.value))
		}
		return args
	}
	s := "type=11"
	for _, c := range creds {
		s += ",value=io.systemd.credential.binary:" + c.name + "=" + base64.StdEncoding.EncodeToString([]byte(c.value))
	}
	return []string{"-smbios", s}
}

type credential struct{ name, value string }

func (m machine) credentialList() []credential {
	// system.hostname is for systemd from 256 on; for older ones the name is on
	// the kernel's command line too, where the hypervisor brings the kernel.
	creds := []credential{{"system.hostname", m.Rec.Hostname}}
	if m.Rec.LoginKey == "" {
		return creds
	}
	creds = append(creds, credential{"ssh.authorized_keys.root", m.Rec.LoginKey + "\n"})
	if m.Rec.User != "root" {
		creds = append(creds, credential{"ssh.authorized_keys." + m.Rec.User, m.Rec.LoginKey + "\n"})
	}
	return creds
}

func (m machine) boot() []string {
	b := m.Rec.Boot
	if b.Kernel == "" {
		if b.Firmware == "" {
			return nil
		}
		return []string{
			"-drive", "if=pflash,format=raw,readonly=on,file=" + commas(b.Firmware),
			"-drive", "if=pflash,format=raw,file=" + varsFile,
		}
	}
	args := []string{"-kernel", b.Kernel}
	if b.Initrd != "" {
		args = append(args, "-initrd", b.Initrd)
	}
	cmdline := strings.TrimSpace(b.Cmdline + " systemd.hostname=" + m.Rec.Hostname)
	return append(args, "-append", cmdline)
}
