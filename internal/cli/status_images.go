package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/human"
)

// imageTable shows what image each pool is on, and what happens to it; nothing
// where no pool has one.
func imageTable(s api.Status, style statusStyle) string {
	rows := [][]cell{header("POOL", "IMAGE", "AGE", "REFERENCE", "STATE")}
	for _, p := range s.Pools {
		if p.Digest == "" && p.Pulling == nil {
			continue
		}
		state, colour := imageState(p, s.Now)
		rows = append(rows, []cell{
			{text: p.Name, colour: bold}, {text: cmp.Or(shortDigest(p.Digest), "none yet")}, {text: imageAge(p, s.Now), colour: dim},
			{text: oneLine(p.Image)}, {text: state, colour: colour},
		})
	}
	if len(rows) == 1 {
		return ""
	}
	return style.table(rows)
}

// imageAge says how old the pool's image is: since it was built, or else came
// here.
func imageAge(p api.Pool, now time.Time) string {
	switch {
	case !p.ImageBuilt.IsZero():
		return human.Duration(now.Sub(p.ImageBuilt))
	case !p.ImageArrived.IsZero():
		return "here " + human.Duration(now.Sub(p.ImageArrived))
	}
	return "-"
}

// imageState says what happens to a pool's image; empty: nothing.
func imageState(p api.Pool, now time.Time) (text, colour string) {
	var parts []string
	if p.Rejected != "" && p.Rejected != p.Digest {
		parts, colour = append(parts, shortDigest(p.Rejected)+" rejected"), red
	}
	if p.Pinned != "" {
		parts, colour = append(parts, "pinned to "+shortDigest(p.Pinned)), cmp.Or(colour, yellow)
	}
	if p.Trying != "" {
		parts = append(parts, "trying "+shortDigest(p.Trying))
	}
	if d := p.Pulling; d != nil {
		text := fmt.Sprintf("pulling for %s", human.Duration(now.Sub(d.Since)))
		if d.Total > 0 {
			text = fmt.Sprintf("pulling %d %% of %s", 100*d.Done/d.Total, human.Bytes(d.Total))
		}
		if d.Reused > 0 {
			text += fmt.Sprintf(" (%s were here)", human.Bytes(d.Reused))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; "), colour
}
