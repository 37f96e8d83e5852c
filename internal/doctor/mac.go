package doctor

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// macChecks concern the Mac itself: what runs on it and how it keeps running.
var macChecks = []check{
	{
		name: "macos",
		why:  "tart runs on Apple Silicon with macOS 13 or newer; its guest agent needs 14 on the host",
		look: lookAtMacOS,
	},
	{
		name: "tart",
		why:  "macOS guests run through the tart command; before 2.33 its licence limits a company to 100 processor cores, from 2.33 on internal use is free (FSL-1.1)",
		when: func(h Host) bool { return h.uses("tart") },
		look: lookAtTart,
	},
	{
		name: "slots",
		why:  "Apple's licence and the hypervisor allow two macOS guests per Mac, those of other programs counted",
		when: func(h Host) bool { return h.uses("tart") },
		look: lookAtOtherGuests,
	},
	{
		name: "memory",
		why:  "a Mac that swaps makes every job slow, and guests are killed when it runs out",
		look: func(ctx context.Context, m Machine, h Host) verdict {
			out, err := m.Run(ctx, "sysctl", "-n", "hw.memsize")
			if err != nil {
				return unasked("sysctl", err)
			}
			total, err := strconv.ParseInt(strings.TrimSpace(out.Text), 10, 64)
			if err != nil {
				return odd("sysctl", out.Text)
			}
			return memory(total, h)
		},
	},
	{
		name: "sleep",
		why:  "a Mac that sleeps takes no jobs, and those it has fail",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			return powerSetting(ctx, m, "sleep", "0", "the Mac goes to sleep after %s min", []string{"sleep", "0", "disksleep", "0", "displaysleep", "0"})
		},
	},
	{
		name: "power-failure",
		why:  "after a power failure the Mac stays off until somebody presses its button",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			return powerSetting(ctx, m, "autorestart", "1", "autorestart is %s: it stays off after a power failure", []string{"autorestart", "1"})
		},
	},
	{
		name: "macos-updates",
		why:  "macOS that updates itself restarts the Mac in the middle of jobs",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			const domain, key = "/Library/Preferences/com.apple.SoftwareUpdate", "AutomaticallyInstallMacOSUpdates"
			out, err := m.Run(ctx, "defaults", "read", domain, key)
			switch {
			case err != nil:
				return unasked("defaults", err)
			case out.Status == 0 && strings.TrimSpace(out.Text) == "0":
				return well("macOS does not install its updates by itself")
			}
			return bad(Warning, "macOS installs its updates by itself", sudo("defaults", "write", domain, key, "-bool", "false"))
		},
	},
	{
		name: "spotlight",
		why:  "Spotlight reads every image and clone that changes, and takes the processors and the disk from jobs",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			out, err := m.Run(ctx, "mdutil", "-s", "/System/Volumes/Data")
			switch {
			case err != nil:
				return unasked("mdutil", err)
			case strings.Contains(out.Text, "Indexing disabled"), strings.Contains(out.Text, "Spotlight server is disabled"):
				return well("Spotlight does not index")
			case strings.Contains(out.Text, "Indexing enabled"):
				return bad(Warning, "Spotlight indexes the disk", sudo("mdutil", "-a", "-i", "off"))
			}
			return odd("mdutil", out.Text)
		},
	},
	{
		name: "sharing",
		why:  "a Mac without a person in front of it is reached by Remote Login, and its screen by Screen Sharing",
		look: lookAtSharing,
	},
	{
		name: "apfs",
		why:  "only APFS clones an image in no time and no space: elsewhere each guest costs a whole copy",
		look: func(ctx context.Context, m Machine, h Host) verdict {
			out, err := m.Run(ctx, "diskutil", "info", "/System/Volumes/Data")
			if err != nil {
				return unasked("diskutil", err)
			}
			kind := field(out.Text, "File System Personality")
			switch {
			case kind == "":
				return odd("diskutil", out.Text)
			case strings.Contains(kind, "APFS"):
				return well("the disk is %s", kind)
			}
			return byHand(Problem, "the disk is "+kind, "put tart's folder (TART_HOME) and the agent's home onto an APFS volume")
		},
	},
}

func lookAtMacOS(ctx context.Context, m Machine, _ Host) verdict {
	arch, err := m.Run(ctx, "uname", "-m")
	if err != nil {
		return unasked("uname", err)
	}
	if a := strings.TrimSpace(arch.Text); a != "arm64" {
		return byHand(Problem, "this Mac is "+a, "use a Mac with Apple Silicon for macOS guests")
	}
	out, err := m.Run(ctx, "sw_vers", "-productVersion")
	if err != nil {
		return unasked("sw_vers", err)
	}
	version := strings.TrimSpace(out.Text)
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	switch {
	case err != nil:
		return odd("sw_vers", out.Text)
	case n < 13:
		return byHand(Problem, "macOS "+version, "update macOS")
	case n < 14:
		return byHand(Warning, "macOS "+version+": no channel through tart's guest agent", "update macOS, or use channel: ssh")
	}
	return well("macOS %s on Apple Silicon", version)
}

// sharing are macOS's services for Remote Login and Screen Sharing, and their
// files below /System/Library/LaunchDaemons.
var sharing = []struct{ name, label, file string }{
	{"Remote Login", "system/com.openssh.sshd", "ssh.plist"},
	{"Screen Sharing", "system/com.apple.screensharing", "com.apple.screensharing.plist"},
}

func lookAtSharing(ctx context.Context, m Machine, _ Host) verdict {
	var off []string
	var mend [][]string
	for _, s := range sharing {
		out, err := m.Run(ctx, "launchctl", "print", s.label)
		if err != nil {
			return unasked("launchctl", err)
		}
		if out.Status != 0 {
			off = append(off, s.name)
			mend = append(mend, sudo("launchctl", "enable", s.label), sudo("launchctl", "bootstrap", "system", "/System/Library/LaunchDaemons/"+s.file))
		}
	}
	if len(off) > 0 {
		return bad(Warning, strings.Join(off, " and ")+" off", mend...)
	}
	return well("Remote Login and Screen Sharing are on")
}

var tartVersion = regexp.MustCompile(`^(\d+)\.(\d+)(\.\d+)?$`)

func lookAtTart(ctx context.Context, m Machine, _ Host) verdict {
	install := []string{"brew", "install", "openai/tools/tart"}
	out, err := m.Run(ctx, "tart", "--version")
	if err != nil {
		v := unasked("tart", err)
		v.level, v.commands = Problem, [][]string{install}
		return v
	}
	version := strings.TrimSpace(out.Text)
	part := tartVersion.FindStringSubmatch(version)
	if part == nil {
		return byHand(Warning, "tart "+clip(version)+" is no release", "install a release: "+Line(install))
	}
	major, _ := strconv.Atoi(part[1])
	minor, _ := strconv.Atoi(part[2])
	if major < 2 || major == 2 && minor < 33 {
		return byHand(Warning, "tart "+version+" has the licence with the limit",
			"install 2.33 or newer; the tap has moved: "+Line(install))
	}
	return well("tart %s", version)
}

// lookAtOtherGuests counts the guests of all programs: macOS runs each in a
// process of this name.
func lookAtOtherGuests(ctx context.Context, m Machine, h Host) verdict {
	out, err := m.Run(ctx, "ps", "-axo", "user=,comm=")
	if err != nil {
		return unasked("ps", err)
	}
	others := map[string]int{}
	n := 0
	for line := range strings.Lines(out.Text) {
		user, program, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(program, "com.apple.Virtualization.VirtualMachine") {
			n++
			if user != h.User {
				others[user]++
			}
		}
	}
	for user, k := range others {
		return byHand(Warning, fmt.Sprintf("user %s runs virtual machines (%d), which take slots of ours", user, k),
			"end them, or lower host.slots")
	}
	if h.Slots > 2 {
		return byHand(Problem, fmt.Sprintf("host.slots is %d", h.Slots), "set host.slots to 2, or fewer")
	}
	return well("%d virtual machines run now, none of another user", n)
}

// memory judges what the guests take of the machine's memory.
func memory(total int64, h Host) verdict {
	const ours = 2 << 30 // the system's and the agent's
	gib := func(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
	if h.GuestMemory > total-ours {
		return byHand(Problem, fmt.Sprintf("%s of memory, and %d guests may take %s", gib(total), h.Slots, gib(h.GuestMemory)),
			"lower host.slots, or memory in the pools")
	}
	if h.GuestMemory == 0 {
		return well("%s of memory; no pool says yet what guests take", gib(total))
	}
	return well("%s of memory; guests take %s at most", gib(total), gib(h.GuestMemory))
}

// powerSetting compares one line of pmset.
func powerSetting(ctx context.Context, m Machine, key, want, words string, mend []string) verdict {
	out, err := m.Run(ctx, "pmset", "-g")
	if err != nil {
		return unasked("pmset", err)
	}
	for line := range strings.Lines(out.Text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != key {
			continue
		}
		if f[1] == want {
			return well("pmset: %s %s", key, want)
		}
		return bad(Problem, fmt.Sprintf(words, f[1]), sudo(append([]string{"pmset", "-a"}, mend...)...))
	}
	return odd("pmset", out.Text)
}

// field returns the value of "Name:   value" among lines.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
