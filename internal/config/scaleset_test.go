package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/config"
)

func TestScaleSets(t *testing.T) {
	const head = "host: {name: mini, slots: 4}\ngithub: {url: \"http://127.0.0.1:1\"}\n"
	const pool = "pools:\n  - {name: ios, image: r.example.com/x, scope: acme, "
	type settings struct {
		Set     config.ScaleSet
		Standby int
	}
	for name, c := range map[string]struct {
		file string
		want settings
	}{
		"neither":                       {head + pool + "labels: [x]}\n", settings{Standby: 1}},
		"a set":                         {head + pool + "scaleset: {}}\n", settings{Set: config.ScaleSet{Name: "tasuki-mini-ios"}}},
		"a set that has a name":         {head + pool + "scaleset: {name: macs, warm: 1, headroom: 2}}\n", settings{Set: config.ScaleSet{Name: "macs", Warm: 1, Headroom: 2}}},
		"the default is a set":          {head + "defaults: {scaleset: {warm: 2}}\n" + pool + "max: 3}\n", settings{Set: config.ScaleSet{Name: "tasuki-mini-ios", Warm: 2}}},
		"the pool's standby wins":       {head + "defaults: {scaleset: {warm: 2}}\n" + pool + "standby: 3}\n", settings{Standby: 3}},
		"the pool's set wins":           {head + "defaults: {standby: 2}\n" + pool + "scaleset: {}}\n", settings{Set: config.ScaleSet{Name: "tasuki-mini-ios"}}},
		"a standby of 0 is no conflict": {head + pool + "standby: 0, scaleset: {}}\n", settings{Set: config.ScaleSet{Name: "tasuki-mini-ios"}}},
	} {
		t.Run(name, func(t *testing.T) {
			loaded, err := config.Parse("x.yaml", []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			shown, err := loaded.Show()
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.Parse("x.yaml", shown)
			if err != nil {
				t.Fatalf("%v in\n%s", err, shown)
			}
			for _, cfg := range []*config.Config{loaded, again} {
				got := settings{Standby: cfg.Pools[0].Standby}
				if s := cfg.Pools[0].ScaleSet; s != nil {
					got.Set = *s
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if spec := cfg.Specs()[0]; spec.ScaleSet != c.want.Set.Name || spec.Standby != c.want.Standby {
					t.Errorf("the agent is told standby %d and set %q", spec.Standby, spec.ScaleSet)
				}
			}
		})
	}
}
