package service

import (
	"fmt"
	"path/filepath"
	"strconv"

	"howett.net/plist"
)

// Label is the agent's name to launchd.
const Label = "com.mirego.tasuki"

// agentPlist is a LaunchAgent. Source of the keys: launchd.plist(5).
type agentPlist struct {
	Label            string
	ProgramArguments []string
	RunAtLoad        bool
	// KeepAlive starts the agent again whenever and however it ended.
	KeepAlive        bool
	ThrottleInterval int // seconds between starts
	// AbandonProcessGroup leaves guests alone when the agent ends: without it
	// launchd ends its whole process group.
	AbandonProcessGroup bool
	// ExitTimeOut is how many seconds launchd waits before it kills an agent that
	// was asked to end.
	ExitTimeOut int
	// Aqua is the session at the screen: the guests' keychain and, with it, their
	// right to start hang on it.
	LimitLoadToSessionType string
	// Interactive keeps macOS from slowing the agent and its guests down.
	ProcessType          string
	EnvironmentVariables map[string]string
	WorkingDirectory     string
	StandardOutPath      string
	StandardErrorPath    string
	SoftResourceLimits   map[string]int
	Umask                int
}

func launchAgent(o Options) (Plan, error) {
	logs := filepath.Join(o.HomeDir, "Library", "Logs", "tasuki")
	p := agentPlist{
		Label: Label, RunAtLoad: true, KeepAlive: true, ThrottleInterval: 5, AbandonProcessGroup: true,
		// The agent rotates its own log; what launchd keeps is only what a crash says.
		ProgramArguments: append([]string{o.Program}, append(o.Args, "--log-file", filepath.Join(logs, "agent.log"))...),
		ExitTimeOut:      int(o.patience().Seconds()), LimitLoadToSessionType: "Aqua", ProcessType: "Interactive",
		EnvironmentVariables: map[string]string{"PATH": "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
		WorkingDirectory:     o.HomeDir,
		StandardOutPath:      filepath.Join(logs, "launchd.log"), StandardErrorPath: filepath.Join(logs, "launchd.log"),
		SoftResourceLimits: map[string]int{"NumberOfFiles": 8192}, Umask: 0o077,
	}
	file, err := plist.MarshalIndent(p, plist.XMLFormat, "  ")
	if err != nil {
		return Plan{}, fmt.Errorf("cannot write the LaunchAgent: %w", err)
	}
	domain := "gui/" + strconv.Itoa(o.UID)
	path := filepath.Join(o.HomeDir, "Library", "LaunchAgents", Label+".plist")
	return Plan{
		Manager: "launchd", Log: filepath.Join(logs, "agent.log"), Path: path, File: append(file, '\n'), Mode: 0o644,
		Install: [][]string{
			{"mkdir", "-p", logs},
			{"launchctl", "enable", domain + "/" + Label},
			{"launchctl", "bootstrap", domain, path},
		},
		Restart:   [][]string{{"launchctl", "kill", "SIGKILL", domain + "/" + Label}},
		Status:    [][]string{{"launchctl", "print", domain + "/" + Label}},
		Uninstall: [][]string{{"launchctl", "bootout", domain + "/" + Label}},
		Notes: []string{
			"it runs while " + o.User + " is logged in at the screen: turn automatic login on (tasuki doctor looks)",
			"its log is " + filepath.Join(logs, "agent.log"),
		},
	}, nil
}
