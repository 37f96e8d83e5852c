package monitoring_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/metrics"
	"github.com/mirego/tasuki/internal/monitoring"
	"github.com/mirego/tasuki/internal/monitoring/boards"
)

var update = flag.Bool("update", false, "write dashboards/ and deploy/monitoring")

// example is what deploy/monitoring is made for.
var example = monitoring.Options{Hosts: []monitoring.Host{
	{Name: "rack-1", Address: "rack-1.example.com:9464"},
	{Name: "rack-2", Address: "rack-2.example.com:9464"},
}}

// compare compares a file of the tree with what it should be, or writes it.
func compare(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(got), string(want)); diff != "" {
		t.Errorf("%s differs (-file +made); run the test with -update, twice:\n%s", path, diff)
	}
}

func TestTheDashboardsAreThoseThatAreBuilt(t *testing.T) {
	if diff := cmp.Diff(metrics.SlotNumbers(), boards.SlotStates); diff != "" {
		t.Errorf("states of slots (-metric +dashboard):\n%s", diff)
	}
	built, err := boards.Build()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range built {
		compare(t, filepath.Join("dashboards", name), data)
	}
	entries, err := os.ReadDir("dashboards")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := built[e.Name()]; !ok {
			t.Errorf("dashboards/%s is built by nobody", e.Name())
		}
	}
}

// What we ship as files is what export makes for two hosts.
func TestTheBundleIsShipped(t *testing.T) {
	files, err := monitoring.Bundle(example)
	if err != nil {
		t.Fatal(err)
	}
	const deploy = "../../deploy/monitoring"
	want := map[string]bool{}
	for _, f := range files {
		compare(t, filepath.Join(deploy, filepath.FromSlash(f.Path)), f.Data)
		want[f.Path] = true
	}
	err = filepath.WalkDir(deploy, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(deploy, path)
		if rel = filepath.ToSlash(rel); err == nil && !want[rel] && rel != "README.md" && !strings.HasPrefix(rel, "prometheus/tests/") {
			t.Errorf("%s is no part of the bundle", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// panelList is what docs/monitoring.md has of the panels.
func panelList(t *testing.T) string {
	t.Helper()
	all, err := monitoring.Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var d struct {
			Title, Description string
			Panels             []struct{ Type, Title, Description string }
		}
		if err := json.Unmarshal(all[name], &d); err != nil {
			t.Fatal(err)
		}
		_, title, _ := strings.Cut(d.Title, " / ")
		fmt.Fprintf(&b, "\n**%s.** %s\n\n| panel | what it answers |\n|---|---|\n", title, d.Description)
		for _, p := range d.Panels {
			if p.Type != "row" {
				fmt.Fprintf(&b, "| %s | %s |\n", p.Title, p.Description)
			}
		}
	}
	return b.String()
}

// The guide says of each panel what it answers, in the panel's own words.
func TestTheGuideHasEachPanel(t *testing.T) {
	const page, begin, end = "../../docs/monitoring.md", "<!-- panels: go test ./internal/monitoring -update -->\n", "\n<!-- /panels -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for the panels", page)
	}
	compare(t, page, []byte(before+begin+panelList(t)+end+after))
}

// asked is one query of a dashboard or a rule.
type asked struct{ where, expr string }

// queries returns every query in PromQL of the dashboards and the rules, and
// those in LogQL.
func queries(t *testing.T) (promQL, logQL []asked) {
	t.Helper()
	all, err := monitoring.Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
				Type    string
			}
			Templating struct {
				List []struct {
					Name  string
					Query any
				}
			}
		}
		if err := json.Unmarshal(all[name], &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				at := asked{name + ": " + p.Title, q.Expr}
				if p.Type == "logs" {
					logQL = append(logQL, at)
				} else {
					promQL = append(promQL, at)
				}
			}
		}
		for _, v := range d.Templating.List {
			text, _ := v.Query.(string)
			if inner, ok := strings.CutPrefix(text, "label_values("); ok {
				promQL = append(promQL, asked{name + ": $" + v.Name, inner[:strings.LastIndex(inner, ",")]})
			}
		}
	}
	for _, a := range monitoring.Alerts(monitoring.Options{}) {
		promQL = append(promQL, asked{a.Name, a.Expr})
	}
	return promQL, logQL
}

var (
	metricName = regexp.MustCompile(`\b(tasuki|process|go)_[a-z_]+\b|\bALERTS\b|\bup\b`)
	matcher    = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)
	labelName  = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
)

// A query names metrics that the reference has, and labels that they bear.
func TestEveryQueryIsOfMetricsThatThereAre(t *testing.T) {
	labels := map[string][]string{
		"up": nil, "ALERTS": {"alertname", "alertstate", "host"},
		"process_start_time_seconds": nil, "process_resident_memory_bytes": nil, "process_cpu_seconds_total": nil, "go_goroutines": nil,
	}
	for _, m := range metrics.Table() {
		labels[m.Name] = m.Labels
		if m.Kind == metrics.Histogram {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				labels[m.Name+suffix] = append(slices.Clone(m.Labels), "le")
			}
		}
	}
	promQL, logQL := queries(t)
	if len(promQL) < 60 || len(logQL) < 3 {
		t.Fatalf("%d queries in PromQL, %d in LogQL: they are not read right", len(promQL), len(logQL))
	}
	for _, q := range promQL {
		names := metricName.FindAllString(q.expr, -1)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %s", q.where, q.expr)
		}
		for _, name := range names {
			if _, ok := labels[name]; !ok && name != "go_version" { // a label
				t.Errorf("%s: there is no metric %s", q.where, name)
			}
		}
		for _, m := range matcher.FindAllStringSubmatch(q.expr, -1) {
			for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "job" && l[1] != "host" && !slices.Contains(labels[m[1]], l[1]) {
					t.Errorf("%s: %s has no label %s", q.where, m[1], l[1])
				}
			}
		}
	}
}

// Every alert has a runbook, every panel an answer to what it is for, and the
// guide names no others.
func TestTheGuideHasARunbookForEachAlert(t *testing.T) {
	guide, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	var headings []string
	for line := range strings.Lines(string(guide)) {
		if head, ok := strings.CutPrefix(line, "#"); ok {
			head = strings.TrimSpace(strings.TrimLeft(head, "#"))
			anchors[monitoring.Anchor(head)] = true
			headings = append(headings, head)
		}
	}
	known := map[string]bool{}
	for _, a := range monitoring.Alerts(monitoring.Options{}) {
		known[a.Name] = true
		if page, anchor, _ := strings.Cut(a.Runbook(), "#"); page != monitoring.Guide || !anchors[anchor] {
			t.Errorf("%s: there is no runbook %s", a.Name, a.Runbook())
		}
		if a.Severity != monitoring.Critical && a.Severity != monitoring.Warning {
			t.Errorf("%s: severity %q", a.Name, a.Severity)
		}
	}
	for _, head := range headings {
		if strings.HasPrefix(head, "Tasuki") && !strings.Contains(head, " ") && !known[head] {
			t.Errorf("the guide has a runbook for %s, which is no alert", head)
		}
	}
}

func TestHostsAreRead(t *testing.T) {
	for text, want := range map[string]monitoring.Host{
		"rack-1":                            {Name: "rack-1", Address: "rack-1:9464"},
		"rack-1.example.com:9000":           {Name: "rack-1.example.com", Address: "rack-1.example.com:9000"},
		"rack-1=10.0.0.5":                   {Name: "rack-1", Address: "10.0.0.5:9464"},
		"rack-1=https://rack-1.example.com": {Name: "rack-1", Address: "rack-1.example.com:9464", TLS: true},
		"six=[2001:db8::1]:9464":            {Name: "six", Address: "[2001:db8::1]:9464"},
		"https://proxy.example.com:443":     {Name: "proxy.example.com", Address: "proxy.example.com:443", TLS: true},
	} {
		if got, err := monitoring.ParseHost(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "=", "rack-1=", "rack 1", "a=b=c", "http://rack-1", "rack-1:port", "rack-1:0", "rack-1/x", "user@rack-1", "a\"b=rack-1"} {
		if got, err := monitoring.ParseHost(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
	for name, o := range map[string]monitoring.Options{
		"no host":       {},
		"twice":         {Hosts: []monitoring.Host{{Name: "a", Address: "a:1"}, {Name: "a", Address: "b:1"}}},
		"Loki's secret": {Hosts: example.Hosts, LokiURL: "http://user:secret@loki:3100"},
	} {
		if _, err := monitoring.Bundle(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
