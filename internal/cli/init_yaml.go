package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
)

// mostMacGuests is how many macOS guests Apple's licence and its framework let
// run on a Mac.
const mostMacGuests = 2

// fit chooses what was not said, for a machine with so many processors and so
// much memory in bytes (0: not known).
func (f *initAnswers) fit(system string, processors int, memory int64) {
	const gib = 1 << 30
	if f.driver == "" {
		f.driver = "qemu"
		if system == "darwin" {
			f.driver = "tart"
		}
	}
	if f.pool == "" {
		f.pool = map[string]string{"tart": "macos"}[f.driver]
		if f.pool == "" {
			f.pool = "linux"
		}
	}
	// The system keeps 2 GiB and what else runs here.
	free := int(memory/gib) - 2
	f.cpus, f.memoryGiB = 2, 4
	if f.driver == "tart" {
		f.cpus, f.memoryGiB = max(2, processors/mostMacGuests), max(4, min(16, free/mostMacGuests))
	}
	if processors < 2*f.cpus {
		f.cpus = max(1, processors/2)
	}
	if memory > 0 && free < 2*f.memoryGiB {
		f.memoryGiB = max(1, free/2)
	}
	if f.slots > 0 {
		return
	}
	f.slots = max(1, processors/f.cpus)
	if memory > 0 {
		f.slots = max(1, min(f.slots, free/f.memoryGiB))
	}
	if f.driver == "tart" {
		f.slots = min(f.slots, mostMacGuests)
	}
}

// check says what is wrong with the configuration that would be written.
func (f *initAnswers) check(file string) error {
	_, err := config.Parse(file, f.yaml())
	if err != nil {
		return withHint(err, "nothing was written; the places are those of the file that would have been")
	}
	return nil
}

// yaml is the configuration.
func (f *initAnswers) yaml() []byte {
	var b bytes.Buffer
	if err := configTemplate.Execute(&b, f.fields()); err != nil {
		panic(err) // texts into a template of ours
	}
	return b.Bytes()
}

// fields are what the template shows.
func (f *initAnswers) fields() map[string]any {
	address := f.url
	if address == "" {
		address = "https://github.com"
	}
	image := f.image
	if f.driver == "fake" { // a folder
		image = absolute(image)
	}
	out := map[string]any{
		"URL": address, "Scope": f.scope, "Pool": f.pool, "Image": image, "Driver": f.driver, "Labels": f.labels,
		"Slots": f.slots, "Standby": f.standby, "CPUs": f.cpus, "MemoryGiB": f.memoryGiB,
		"App": f.appID, "Key": absolute(f.appKey), "RunsOn": strings.Join(append([]string{"self-hosted"}, f.labels...), ", "),
		"Needs": github.Needs(f.scope), "Token": "",
	}
	switch {
	case f.tokenEnv != "":
		out["Token"] = "env: " + quoted(f.tokenEnv)
	case f.tokenFile != "":
		out["Token"] = "file: " + quoted(absolute(f.tokenFile))
	case f.tokenCommand != "":
		var words []string
		for _, w := range strings.Fields(f.tokenCommand) {
			words = append(words, quoted(w))
		}
		out["Token"] = "command: [" + strings.Join(words, ", ") + "]"
	}
	return out
}

// absolute is a path that means the same from every folder.
func absolute(path string) string {
	if path == "" || strings.HasPrefix(path, "~/") {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// quoted writes a text so that YAML reads it as one, whatever is in it.
func quoted(s string) string { return strconv.Quote(s) }

var configTemplate = template.Must(template.New("config").Funcs(template.FuncMap{
	"quote": quoted,
	"list": func(words []string) string {
		out := make([]string, len(words))
		for i, w := range words {
			out[i] = quoted(w)
		}
		return fmt.Sprintf("[%s]", strings.Join(out, ", "))
	},
}).Parse(`# The runners of this machine. After a change: tasuki config check, then tasuki reload.
# What is left out has a default; tasuki config show prints them all. Each key is
# explained in https://github.com/mirego/tasuki/blob/main/docs/reference/config.md

host:
  # How many guests run at once, over all pools.
  slots: {{.Slots}}

github:
  url: {{quote .URL}}
{{- if .App}}
  # {{.Needs}}.
  # Its installation is found by the pool's scope.
  app:
    id: {{quote .App}}
    key: {file: {{quote .Key}}} # mode 0600
{{- else if .Token}}
  # The token itself never stands here. {{.Needs}}.
  token: { {{- .Token -}} }
{{- end}}

# Only a registry that asks for a login needs an entry.
# registries:
#   - host: registry.example.com
#     username: tasuki
#     password: {file: /etc/tasuki/registry-password}

pools:
  # Workflows name its runners so: runs-on: [{{.RunsOn}}]
  - name: {{quote .Pool}}
    scope: {{quote .Scope}}
    driver: {{.Driver}}
    image: {{quote .Image}}
{{- if .Labels}}
    labels: {{list .Labels}}
{{- else}}
    # labels: [of-your-own]   # beside self-hosted, the system and the architecture
{{- end}}
    cpus: {{.CPUs}}
    memory: {{.MemoryGiB}}GiB
    # So many wait for a job, beside those that execute one.
    standby: {{.Standby}}
`))
