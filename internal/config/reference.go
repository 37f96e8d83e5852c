package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// Reference returns the reference of the file as Markdown, made from the
// structs, their tags and Default. docs/reference/config.md is a copy.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	d := Default()
	d.Host.Name, d.Host.Home = "the machine's own name", "~/.tasuki"
	section(&b, "host", "Host", reflect.ValueOf(d.Host))
	section(&b, "github", "GitHub", reflect.ValueOf(d.GitHub))
	section(&b, "github.app, github.accounts[].app", "App", reflect.ValueOf(App{}))
	b.WriteString("## Accounts\n\nIn `github.accounts[]`: a `name`, and every key of `github` but `accounts`. `url`, `proxy` and `ca`\nare those of `github` where an account does not say otherwise.\n\n")
	section(&b, "registries[]", "Registries", reflect.ValueOf(Registry{}))
	d.Registry.Dir = "registry in host.home"
	section(&b, "registry", "Registry", reflect.ValueOf(d.Registry))
	section(&b, "registry.tls", "TLS", reflect.ValueOf(d.Registry.TLS))
	section(&b, "registry.mirrors[]", "Mirrors", reflect.ValueOf(Mirror{}))
	section(&b, "registry.gc", "GC", reflect.ValueOf(d.Registry.GC))
	section(&b, "images", "Images", reflect.ValueOf(d.Images))
	section(&b, "metrics", "Metrics", reflect.ValueOf(d.Metrics))
	section(&b, "runner_releases", "Runner_releases", reflect.ValueOf(d.Releases))
	section(&b, "history", "History", reflect.ValueOf(d.History))
	section(&b, "logs", "Logs", reflect.ValueOf(d.Logs))
	section(&b, "console", "Console", reflect.ValueOf(d.Console))
	b.WriteString("## Defaults\n\n`defaults` has every key of a pool but `name`. A pool's value takes the place of\nthe default; a list replaces the list, a map adds to the map.\n\n")
	section(&b, "pools[]", "Pools", reflect.ValueOf(Pool{Settings: d.Defaults}))
	section(&b, "pools[].scaleset", "Scaleset", reflect.ValueOf(ScaleSet{}))
	section(&b, "pools[].network", "Network", reflect.ValueOf(d.Defaults.Network))
	section(&b, "pools[].network.forwards[]", "Forwards", reflect.ValueOf(Forward{}))
	section(&b, "pools[].tart", "Tart", reflect.ValueOf(Tart{}.WithDefaults()))
	section(&b, "pools[].tart.shares[]", "Shares", reflect.ValueOf(Share{}))
	section(&b, "pools[].files[]", "Files", reflect.ValueOf(File{Mode: fileMode}))
	section(&b, "pools[].hooks", "Hooks", reflect.ValueOf(Hooks{}))
	section(&b, "…hooks.before_job, …hooks.after_job", "Texts", reflect.ValueOf(Text{}))
	section(&b, "…token, …key, …password, …metrics_token", "Secrets", reflect.ValueOf(Source{}))
	deadlines(&b)
	return b.String()
}

const referenceHead = `# The configuration file

<!-- Generated from internal/config by "go test ./internal/config -update". Do not edit. -->

` + "`tasuki host run --config FILE` reads it; `tasuki config check FILE` names every\nmistake with its line and its mend; `tasuki config show FILE` prints it with all\ndefaults filled in. A changed file is taken over by `tasuki reload` or SIGHUP.\nThe whole of it in an example: [host.yaml](../../examples/host.yaml).\n" + `
The file is strict: an unknown key is a mistake. Durations are written ` + "`90s`, `30m`,\n`6h` or `2d`; sizes `4GiB` or `80GB`. Paths that are not absolute start from the\nfile's folder, and `~/` is your home." + `

`

// section writes one struct as a table.
func section(b *strings.Builder, path, title string, v reflect.Value) {
	fmt.Fprintf(b, "## %s\n\nIn `%s`:\n\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n", title, path)
	for _, f := range fieldsOf(v.Type()) {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.name, typeWord(f), defaultWord(v.FieldByIndex(f.index)), meaning(f))
	}
	b.WriteByte('\n')
}

func meaning(f field) string {
	s := f.tag.Get("doc")
	if e := f.tag.Get("example"); e != "" {
		s += " Example: `" + e + "`."
	}
	return strings.ReplaceAll(s, "|", `\|`)
}

func typeWord(f field) string {
	if enum := f.tag.Get("enum"); enum != "" {
		return "`" + strings.ReplaceAll(enum, ",", "`, `") + "`"
	}
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Mode]():
		return "octal"
	case reflect.TypeFor[Source]():
		return "[secret](#secrets)"
	case reflect.TypeFor[Text]():
		return "[text](#texts)"
	}
	switch t.Kind() {
	case reflect.Int:
		return "whole number"
	case reflect.Bool:
		return "true, false"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "[list](#" + f.name + ")"
		}
		return "list of text"
	case reflect.Map:
		if t.Elem() == reflect.TypeFor[Duration]() {
			return "[state: duration](#deadlines)"
		}
		return "name: text"
	case reflect.Struct:
		return "[keys](#" + f.name + ")"
	}
	return "text"
}

func defaultWord(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Struct, v.Kind() == reflect.Slice, v.Kind() == reflect.Map, v.Kind() == reflect.Pointer:
		return ""
	case v.IsZero() && v.Kind() != reflect.Int:
		return ""
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, _ := m.MarshalText()
		return "`" + string(text) + "`"
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

func deadlines(b *strings.Builder) {
	b.WriteString("## Deadlines\n\nIn `pools[].deadlines`: how long a runner may stay in a state.\n\n| State | Step | Default |\n|---|---|---|\n")
	for _, row := range runner.Table() {
		if row.Deadline > 0 && row.State != runner.Busy {
			fmt.Fprintf(b, "| `%s` | %d %s | `%s` |\n", row.State, row.Step, runner.StepNames[row.Step-1], Duration(row.Deadline))
		}
	}
	fmt.Fprintf(b, "\n`busy` is bound by `max_job_time` (%s), `held` by `hold_after_failure`.\n", Duration(6*time.Hour))
}
