package doctor

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// linuxChecks concern a Linux host with QEMU guests.
var linuxChecks = []check{
	{
		name: "qemu",
		why:  "Linux guests run in QEMU 7.2 or newer",
		when: func(h Host) bool { return h.uses("qemu") },
		look: lookAtQEMU,
	},
	{
		name: "acceleration",
		why:  "without KVM guests are emulated, which is many times slower",
		when: func(h Host) bool { return h.uses("qemu") },
		look: lookAtKVM,
	},
	program("qemu-img", "qemu-utils", "it makes the disks of guests", func(h Host) bool { return h.uses("qemu") }),
	{
		name: "firmware",
		why:  "images with a partition table, as tasuki image build makes them, boot by UEFI",
		when: func(h Host) bool { return h.uses("qemu") },
		look: lookAtFirmware,
	},
	program("passt", "passt", "it gives guests the internet and keeps this host's loopback from them", func(h Host) bool { return h.Internet }),
	{
		name: "memory",
		why:  "guests are killed when the host runs out of memory",
		look: func(_ context.Context, m Machine, h Host) verdict {
			text, err := m.ReadFile("/proc/meminfo")
			if err != nil {
				return unasked("/proc/meminfo", err)
			}
			kib, err := strconv.ParseInt(strings.TrimSuffix(field(text, "MemTotal"), " kB"), 10, 64)
			if err != nil {
				return odd("/proc/meminfo", text)
			}
			return memory(kib<<10, h)
		},
	},
	{
		name: "reflink",
		why:  "image updates are cheaper where files share blocks",
		look: func(_ context.Context, m Machine, h Host) verdict {
			if err := m.Clones(h.Home); err != nil {
				return well("files below %s do not share blocks (on XFS and Btrfs they would): image updates copy what has not changed", h.Home)
			}
			return well("files below %s share blocks: image updates copy nothing that is here", h.Home)
		},
	},
	{
		name: "linger",
		why:  "a service of a user ends when the user logs out, unless the user lingers",
		when: func(h Host) bool { return h.UID >= 1000 },
		look: func(ctx context.Context, m Machine, h Host) verdict {
			out, err := m.Run(ctx, "loginctl", "show-user", h.User, "--property=Linger", "--value")
			switch {
			case err != nil:
				return unasked("loginctl", err)
			case strings.TrimSpace(out.Text) == "yes":
				return well("%s lingers", h.User)
			case strings.TrimSpace(out.Text) == "no", strings.Contains(out.Text, "not logged in or lingering"):
				return bad(Warning, h.User+" does not linger", sudo("loginctl", "enable-linger", h.User))
			}
			return odd("loginctl", out.Text)
		},
	},
	{
		name: "clock",
		why:  "GitHub refuses runners and Apps whose clock is minutes off",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			out, err := m.Run(ctx, "timedatectl", "show", "--property=NTPSynchronized", "--value")
			switch {
			case err != nil:
				return unasked("timedatectl", err)
			case strings.TrimSpace(out.Text) == "yes":
				return well("the clock is kept by NTP")
			case strings.TrimSpace(out.Text) == "no":
				return bad(Warning, "the clock is not kept by NTP", sudo("timedatectl", "set-ntp", "true"))
			case strings.Contains(out.Text, "not been booted with systemd"):
				return byHand(Unknown, "systemd does not run here, so that nobody says what keeps the clock",
					"tasuki github check compares it with GitHub's")
			}
			return odd("timedatectl", out.Text)
		},
	},
}

// program is the check of a program that a Debian package brings.
func program(name, pkg, why string, when func(Host) bool) check {
	return check{name: name, why: why, when: when, look: func(ctx context.Context, m Machine, _ Host) verdict {
		out, err := m.Run(ctx, name, "--version")
		if err != nil {
			return missing(name, pkg, err)
		}
		return well("%s", clip(out.Text))
	}}
}

func missing(name, pkg string, err error) verdict {
	v := unasked(name, err)
	v.level, v.commands = Problem, [][]string{sudo("apt-get", "install", "-y", pkg)}
	return v
}

// firmwares are where the driver looks for UEFI, and Debian's package.
var firmwares = map[string]struct {
	pkg   string
	paths []string
}{
	"x86_64":  {"ovmf", []string{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/local/share/qemu/edk2-x86_64-code.fd"}},
	"aarch64": {"qemu-efi-aarch64", []string{"/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/local/share/qemu/edk2-aarch64-code.fd"}},
}

func lookAtFirmware(ctx context.Context, m Machine, _ Host) verdict {
	arch, err := m.Run(ctx, "uname", "-m")
	if err != nil {
		return unasked("uname", err)
	}
	known, ok := firmwares[strings.TrimSpace(arch.Text)]
	if !ok {
		return odd("uname", arch.Text)
	}
	for _, path := range known.paths {
		if _, err := m.Stat(path); err == nil {
			return well("UEFI is %s", path)
		}
	}
	return bad(Warning, "there is no UEFI for guests", sudo("apt-get", "install", "-y", known.pkg))
}

var qemuVersion = regexp.MustCompile(`version (\d+)\.(\d+)`)

func lookAtQEMU(ctx context.Context, m Machine, _ Host) verdict {
	name, pkg := "qemu-system-x86_64", "qemu-system-x86"
	if arch, err := m.Run(ctx, "uname", "-m"); err == nil && strings.TrimSpace(arch.Text) == "aarch64" {
		name, pkg = "qemu-system-aarch64", "qemu-system-arm"
	}
	out, err := m.Run(ctx, name, "--version")
	if err != nil {
		return missing(name, pkg, err)
	}
	part := qemuVersion.FindStringSubmatch(out.Text)
	if part == nil {
		return odd(name, out.Text)
	}
	major, _ := strconv.Atoi(part[1])
	minor, _ := strconv.Atoi(part[2])
	if major < 7 || major == 7 && minor < 2 {
		return byHand(Problem, clip(out.Text), "install QEMU 7.2 or newer (Debian 12, Ubuntu 23.04)")
	}
	return well("%s", clip(out.Text))
}

func lookAtKVM(_ context.Context, m Machine, h Host) verdict {
	switch {
	case h.Accel == "kvm", h.Accel == "hvf":
		return well("a trial guest booted with %s", h.Accel)
	case h.Accel != "":
		return byHand(Warning, fmt.Sprintf("guests are emulated (%s): %s", h.Accel, h.AccelReason),
			"turn virtualisation on in the firmware, or use a machine that has it; a cloud machine must offer nested virtualisation")
	}
	f, err := m.Stat("/dev/kvm")
	switch {
	case err != nil:
		return byHand(Warning, "there is no /dev/kvm: guests are emulated", "turn virtualisation on in the firmware, or use a machine that has it")
	case f.Mode.Perm()&0o006 != 0o006 && h.UID != 0:
		return bad(Warning, fmt.Sprintf("%s may not be allowed to use /dev/kvm (mode %04o)", h.User, f.Mode.Perm()), sudo("usermod", "-aG", "kvm", h.User))
	}
	return verdict{level: Unknown, seen: "/dev/kvm is there; no guest was tried"}
}
