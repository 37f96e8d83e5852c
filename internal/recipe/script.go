package recipe

import "embed"

// scripts run in guests: POSIX shell, for dash as for macOS's bash 3.2.
//
//go:embed script/*.sh
var scripts embed.FS

// script is a script of ours. They are embedded, so a missing one is a mistake
// of ours.
func script(name string) string {
	text, err := scripts.ReadFile("script/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}
