package console

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

// parse reads the templates: those of pages, and those of streams. In a stream
// the time that has passed is not written out, or every look would be news; the
// page's script does that.
func (c *Console) parse() (pages, still *template.Template, err error) {
	pages, err = template.New("").Funcs(c.words()).ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, nil, err
	}
	if still, err = pages.Clone(); err != nil {
		return nil, nil, err
	}
	still.Funcs(template.FuncMap{
		"since": func(t time.Time) template.HTML { return timeTag(t, "since", time.Time{}) },
		"ago":   func(t time.Time) template.HTML { return timeTag(t, "ago", time.Time{}) },
	})
	return pages, still, nil
}

// words are what templates can say.
func (c *Console) words() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) string { return c.assets.prefix + name },
		"clock": func(t time.Time) template.HTML { return timeTag(t, "clock", t) },
		"date":  func(t time.Time) template.HTML { return timeTag(t, "date", t) },
		"since": func(t time.Time) template.HTML { return timeTag(t, "since", time.Now()) },
		"ago":   func(t time.Time) template.HTML { return timeTag(t, "ago", time.Now()) },
		"span":  seconds,
		"took":  func(s float64) string { return seconds(max(s, 0.001)) },
		"between": func(from, to time.Time) float64 {
			if from.IsZero() || to.IsZero() {
				return 0
			}
			return max(to.Sub(from).Seconds(), 0.001)
		},
		"bytes":  human.Bytes,
		"count":  human.Count,
		"short":  shortDigest,
		"name":   shortName,
		"title":  jobTitle,
		"bad":    badConclusion,
		"phase":  func(s runner.State) string { return string(phaseOf(s)) },
		"lines":  func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") },
		"pct":    func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) },
		"github": githubAddress,
	}
}

// timeTag writes a time in UTC; a script puts it into the viewer's zone, or
// says how long it is before now. The kind says which of these it is.
func timeTag(t time.Time, kind string, now time.Time) template.HTML {
	if t.IsZero() {
		return `<span class="none">–</span>`
	}
	t = t.UTC()
	text := t.Format("15:04:05")
	switch {
	case kind == "date":
		text = t.Format("2006-01-02 15:04")
	case kind == "since" && !now.IsZero():
		text = human.Duration(now.Sub(t))
	case kind == "ago" && !now.IsZero():
		text = human.Duration(now.Sub(t)) + " ago"
	}
	// Nothing in it is anybody's text.
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-as="%s" title="%s UTC">%s</time>`,
		t.Format("2006-01-02T15:04:05.000Z"), kind, t.Format("2006-01-02 15:04:05"), text))
}

// seconds writes a duration for a table of figures: exact where it is short.
func seconds(s float64) string {
	switch {
	case s <= 0:
		return "–"
	case s < 0.1:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 60:
		return fmt.Sprintf("%.0f s", s)
	}
	return human.Duration(time.Duration(s * float64(time.Second)))
}

// shortDigest is enough of a digest to tell images apart.
func shortDigest(digest string) string {
	hex := image.DigestHex(digest)
	return hex[:min(len(hex), 12)]
}

// shortName is a runner's name without what those of one host have in common:
// PREFIX-HOST-INSTALLATION-POOL-RANDOM becomes RANDOM.
func shortName(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// githubAddress is a link that leads where GitHub said; anything but HTTP is none.
func githubAddress(u string) string {
	if strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://") {
		return u
	}
	return ""
}

// clip shortens a text that somebody sent.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
