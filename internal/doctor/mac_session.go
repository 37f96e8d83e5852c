package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// macSessionChecks concern the user's session: macOS guests need one that is
// logged in at the screen, and its keychain.
var macSessionChecks = []check{
	{
		name: "root",
		why:  "tart cannot start macOS guests as root",
		look: func(_ context.Context, _ Machine, h Host) verdict {
			if h.UID == 0 {
				return byHand(Problem, "the agent would run as root", "run it as the user who is logged in at the screen, by tasuki service install")
			}
			return well("the agent runs as %s", h.User)
		},
	},
	{
		name: "gui-session",
		why:  "from macOS 15.2 on no macOS guest starts without a user who is logged in at the screen",
		look: func(ctx context.Context, m Machine, h Host) verdict {
			out, err := m.Run(ctx, "stat", "-f", "%Su", "/dev/console")
			if err != nil {
				return unasked("stat", err)
			}
			switch at := strings.TrimSpace(out.Text); at {
			case h.User:
				return well("%s is logged in at the screen", h.User)
			case "root", "":
				return byHand(Problem, "nobody is logged in at the screen", "log in as "+h.User+" at the screen or by Screen Sharing, and turn automatic login on")
			default:
				return byHand(Problem, at+" is logged in at the screen, and the agent runs as "+h.User, "run the agent as "+at+", or log in as "+h.User)
			}
		},
	},
	{
		name: "auto-login",
		why:  "after a restart nobody is logged in at the screen, and no guest starts",
		look: func(ctx context.Context, m Machine, h Host) verdict {
			const where = "turn it on in System Settings, Users & Groups, Automatically log in as"
			out, err := m.Run(ctx, "defaults", "read", "/Library/Preferences/com.apple.loginwindow", "autoLoginUser")
			switch user := strings.TrimSpace(out.Text); {
			case err != nil:
				return unasked("defaults", err)
			case out.Status != 0:
				return byHand(Problem, "automatic login is off", where)
			case user != h.User:
				return byHand(Problem, user+" is logged in automatically, and the agent runs as "+h.User, where)
			}
			return well("%s is logged in automatically", h.User)
		},
	},
	{
		name: "filevault",
		why:  "with FileVault on a Mac waits for a password after each restart, and automatic login is not to be had",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			out, err := m.Run(ctx, "fdesetup", "status")
			switch {
			case err != nil:
				return unasked("fdesetup", err)
			case strings.Contains(out.Text, "FileVault is Off"):
				return well("FileVault is off")
			case strings.Contains(out.Text, "FileVault is On"):
				return byHand(Problem, "FileVault is on", "sudo fdesetup disable\n(it asks for a user's password), or accept that somebody unlocks the Mac after each restart")
			}
			return odd("fdesetup", out.Text)
		},
	},
	{
		name: "login-keychain",
		why:  "tart needs the login keychain unlocked to start macOS guests",
		look: lookAtKeychain,
	},
	{
		name: "screen-lock",
		why:  "a locked screen locks the keychain of the session with it after a while, and hides the guests' screens",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			out, err := m.Run(ctx, "sysadminctl", "-screenLock", "status")
			switch {
			case err != nil:
				return unasked("sysadminctl", err)
			case strings.Contains(out.Text, "screenLock is off"):
				return well("the screen does not lock")
			case strings.Contains(out.Text, "screenLock delay is"):
				return byHand(Warning, "the screen locks itself", "sysadminctl -screenLock off -password -\n(it asks for the user's password)")
			}
			return odd("sysadminctl", out.Text)
		},
	},
}

func lookAtKeychain(ctx context.Context, m Machine, _ Host) verdict {
	const mend = "security unlock-keychain login.keychain-db\n(it asks for the password); automatic login unlocks it at each restart"
	// Each session has keychains of its own: that of SSH says nothing of the screen's.
	if kind, err := m.Run(ctx, "launchctl", "managername"); err == nil && kind.Status == 0 && strings.TrimSpace(kind.Text) != "Aqua" {
		return byHand(Unknown, "this is not the session at the screen ("+clip(kind.Text)+"): its keychain cannot be seen from here",
			"run tasuki doctor in Terminal at the screen, or by Screen Sharing")
	}
	out, err := m.Run(ctx, "security", "show-keychain-info", "login.keychain-db")
	switch {
	case err != nil && ctx.Err() != nil:
		return byHand(Problem, "it waits for a password: the login keychain is locked", mend)
	case err != nil:
		return unasked("security", err)
	case out.Status == 36 || strings.Contains(out.Text, "User interaction is not allowed"):
		return byHand(Problem, "the login keychain is locked", mend)
	case out.Status != 0:
		return odd("security", out.Text)
	case !strings.Contains(out.Text, "no-timeout"):
		return bad(Warning, "the login keychain locks itself: "+clip(out.Text), []string{"security", "set-keychain-settings", "login.keychain-db"})
	}
	return well("the login keychain is unlocked and stays so")
}

// macNetworkChecks concern the way from the host into its guests.
var macNetworkChecks = []check{
	{
		name: "dhcp-lease",
		why:  "macOS gives an address of its guests' network away for a day: at 250 guests a day there is none left, and new guests get no address",
		when: func(h Host) bool { return h.uses("tart") },
		look: lookAtLeases,
	},
	{
		name: "local-network",
		why:  "from macOS 15 on a program may not talk to guests over the network until a person allows it at the screen, and the permission can get lost",
		when: func(h Host) bool { return h.uses("tart") },
		look: lookAtLocalNetwork,
	},
	{
		name: "softnet",
		why:  "softnet keeps guests from the local network and from each other; without its right to act as root no isolated guest starts, and guests with the public password could reach each other",
		when: func(h Host) bool { return h.Softnet },
		look: lookAtSoftnet,
	},
	{
		name: "guest-network",
		why:  "a guest of a public image, whose password everybody knows, can be entered from the other guest and from this host's network",
		when: func(h Host) bool { return h.Open },
		look: func(context.Context, Machine, Host) verdict {
			return byHand(Warning, "a pool has filter: none: nothing keeps its guests from each other and from this network",
				"write filter: softnet, or use an image with a login of its own")
		},
	},
	{
		name: "clock",
		why:  "GitHub refuses runners and Apps whose clock is minutes off",
		look: func(ctx context.Context, m Machine, _ Host) verdict {
			out, err := m.Run(ctx, "sntp", "time.apple.com")
			if err != nil {
				return unasked("sntp", err)
			}
			off, ok := offset(out.Text)
			switch {
			case !ok:
				return odd("sntp", out.Text)
			case off > 30 || off < -30:
				return bad(Problem, fmt.Sprintf("the clock is %.0f s off", off), sudo("sntp", "-sS", "time.apple.com"))
			}
			return well("the clock is %.1f s off", off)
		},
	},
}

// leases is where macOS keeps the settings of its address server for guests.
const leases = "/Library/Preferences/SystemConfiguration/com.apple.InternetSharing.default.plist"

func lookAtLeases(ctx context.Context, m Machine, _ Host) verdict {
	mend := sudo("defaults", "write", leases, "bootpd", "-dict", "DHCPLeaseTimeSecs", "-int", "600")
	out, err := m.Run(ctx, "defaults", "read", leases, "bootpd")
	if err != nil {
		return unasked("defaults", err)
	}
	if out.Status != 0 {
		return bad(Problem, "addresses of guests are given away for a day each", mend)
	}
	for line := range strings.Lines(out.Text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ";"), "=")
		if !ok || strings.Trim(strings.TrimSpace(key), `"`) != "DHCPLeaseTimeSecs" {
			continue
		}
		s, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
		switch {
		case err != nil:
			return odd("defaults", out.Text)
		case s > 600:
			return bad(Problem, fmt.Sprintf("addresses of guests are given away for %d s each", s), mend)
		}
		return well("addresses of guests are given away for %d s", s)
	}
	return bad(Problem, "addresses of guests are given away for a day each", mend)
}

// guestNetwork is where vmnet puts guests unless it is told otherwise.
const guestNetwork = "192.168.64.0/18"

// lookAtLocalNetwork looks for Apple's exception for managed machines (TN3179);
// what a person allowed at the screen no program can read.
func lookAtLocalNetwork(ctx context.Context, m Machine, h Host) verdict {
	out, err := m.Run(ctx, "sw_vers", "-productVersion")
	if err != nil {
		return unasked("sw_vers", err)
	}
	major, _, _ := strings.Cut(strings.TrimSpace(out.Text), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 15 {
		return well("macOS %s does not ask", strings.TrimSpace(out.Text))
	}
	for _, key := range []string{"AllowedEthernetLocalNetworkAddresses", "AllowedWiFiLocalNetworkAddresses"} {
		out, err := m.Run(ctx, "sudo", "-n", "defaults", "read", "com.apple.network.local-network", key)
		if err == nil && out.Status == 0 && strings.Contains(out.Text, "192.168.") {
			return well("an exception covers the guests' network")
		}
	}
	v := bad(Warning, "no exception covers the guests' network; what was allowed at the screen cannot be read",
		sudo("defaults", "write", "com.apple.network.local-network", "AllowedEthernetLocalNetworkAddresses", "-array", guestNetwork))
	v.mend = "use images with tart's guest agent (channel: exec needs no network), or allow tasuki in System Settings, Privacy & Security, Local Network;\n" +
		"or for every program, after a restart: " + lines(v.commands)
	v.commands = nil // it opens the network to every program: a person decides
	return v
}

func lookAtSoftnet(ctx context.Context, m Machine, _ Host) verdict {
	out, err := m.Run(ctx, "which", "softnet")
	if err != nil {
		return unasked("which", err)
	}
	path := strings.TrimSpace(out.Text)
	if out.Status != 0 || path == "" {
		return bad(Problem, "softnet is not on this machine", []string{"brew", "install", "openai/tools/softnet"})
	}
	f, err := m.Stat(path)
	if err != nil {
		return unasked(path, err)
	}
	if f.UID != 0 || f.Mode&fs.ModeSetuid == 0 {
		return bad(Problem, path+" may not act as root (again after each upgrade)", sudo("chown", "root", path), sudo("chmod", "u+s", path))
	}
	return well("%s acts as root", path)
}

// offset reads sntp's "+0.003118 +/- 0.002 time.apple.com 17.253.14.125".
func offset(text string) (seconds float64, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[1] == "+/-" {
			s, err := strconv.ParseFloat(f[0], 64)
			return s, err == nil
		}
	}
	return 0, false
}
