package service

import (
	"fmt"
	"path/filepath"
	"strings"
)

const unitName = "tasuki.service"

func systemdUnit(o Options) Plan {
	p := Plan{Manager: "systemd --user", Path: filepath.Join(o.HomeDir, ".config", "systemd", "user", unitName), Mode: 0o644}
	ctl := []string{"systemctl", "--user"}
	target := "default.target"
	if o.System {
		p.Manager, p.Path, p.Root = "systemd", filepath.Join("/etc/systemd/system", unitName), true
		ctl, target = []string{"systemctl"}, "multi-user.target"
	} else {
		p.Notes = append(p.Notes, "it runs without a login only if its user lingers: sudo loginctl enable-linger "+o.User)
	}
	p.Log = strings.Join(append(append([]string{"journalctl"}, ctl[1:]...), "-u", "tasuki", "-f"), " ")
	p.Notes = append(p.Notes, "its log: "+p.Log)
	cmd := func(words ...string) []string { return append(append([]string{}, ctl...), words...) }
	p.File = []byte(unit(o, target))
	p.Install = [][]string{cmd("daemon-reload"), cmd("enable", "--now", unitName)}
	p.Uninstall = [][]string{cmd("disable", "--now", unitName)}
	p.Restart = [][]string{cmd("kill", "--kill-whom=main", "--signal=KILL", unitName)}
	p.Status = [][]string{cmd("status", "--no-pager", unitName)}
	return p
}

// unit writes the unit. Source of the keys: systemd.service(5), systemd.exec(5)
// and systemd.kill(5) of systemd 252.
func unit(o Options, target string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by tasuki service install; what is changed here is lost with the next one.")
	line("[Unit]")
	line("Description=Tasuki keeps GitHub Actions runners, each job in a fresh virtual machine")
	line("Documentation=https://github.com/mirego/tasuki")
	if o.System {
		line("Wants=network-online.target\nAfter=network-online.target time-sync.target")
	}
	line("# It is started again however often it ends.\nStartLimitIntervalSec=0\n\n[Service]")
	if o.System {
		line("User=%s", o.User)
		if len(o.Groups) > 0 {
			line("SupplementaryGroups=%s", strings.Join(o.Groups, " "))
		}
	}
	line("ExecStart=%s", command(append([]string{o.Program}, o.Args...)))
	if len(o.Reload) > 0 {
		line("ExecReload=%s", command(append([]string{o.Program}, o.Reload...)))
	}
	line("Restart=always\nRestartSec=2")
	line("# Guests and their jobs live in this service's control group. Only the agent is")
	line("# told to end: what is busy goes on, and the next agent adopts it.")
	line("KillMode=process")
	line("# One guest that runs out of memory must not end the others.\nOOMPolicy=continue")
	line("# Longer than host.drain_timeout.\nTimeoutStopSec=%ds", int(o.patience().Seconds()))
	line("UMask=0077\nLimitNOFILE=65536\nTasksMax=infinity")
	if o.System {
		// PrivateTmp would give each new agent another /tmp than the guests of the one
		// before have; a private device tree would hide /dev/kvm.
		line("# No more than it needs; nothing that would part an agent from the guests of the")
		line("# one before (no PrivateTmp), or keep guests from the processor (no PrivateDevices).")
		line("NoNewPrivileges=yes\nProtectSystem=full\nProtectKernelTunables=yes\nProtectKernelModules=yes\nProtectControlGroups=yes\nRestrictSUIDSGID=yes")
	}
	line("\n[Install]\nWantedBy=%s", target)
	return b.String()
}

// command writes an ExecStart line: each word in double quotes where it needs
// them, and what systemd would expand doubled.
func command(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		w = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(w)
		if i > 0 {
			w = strings.ReplaceAll(w, "$", "$$")
		}
		if w == "" || strings.ContainsAny(w, " \t'\"\\;") {
			w = `"` + w + `"`
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}
