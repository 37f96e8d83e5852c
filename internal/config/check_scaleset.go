package config

import (
	"fmt"
	"regexp"
	"strings"
)

// setForm is what the name of a scale set may be: it is a label, too.
var setForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9])?$`)

// maxSet bounds the name of a scale set, in letters; another generation of it
// has a few more.
const maxSet = 80

// warm is how many runners of a scale set wait whatever comes.
func (p Pool) warm() int {
	if p.ScaleSet == nil {
		return 0
	}
	return p.ScaleSet.Warm
}

// scaleSet settles how runners are asked for: by standby or by a scale set. What
// the pool itself says wins over the defaults.
func (k *poolChecker) scaleSet() {
	written := func(path string) bool { _, ok := k.c.at[path]; return ok }
	for _, at := range []string{k.path, "defaults"} {
		set, standby := written(at+".scaleset"), written(at+".standby")
		switch {
		case set && standby && k.p.Standby != 0:
			if where := at + ".standby"; !k.hasProblemAt(where) {
				k.bad([]string{where}, "standby and scaleset are two ways to ask for runners, and here are both",
					"remove standby; runners that wait whatever comes are scaleset.warm")
			}
			k.p.Standby = 0
		case standby && !set:
			k.p.ScaleSet = nil
		case set:
			k.p.Standby = 0
		default:
			continue
		}
		break
	}
	s := k.p.ScaleSet
	if s == nil {
		return
	}
	if s.Name == "" {
		s.Name = strings.Join([]string{k.c.Host.Prefix, k.c.Host.Name, k.p.Name}, "-")
	} else if !setForm.MatchString(s.Name) {
		k.bad(k.key("scaleset.name"), fmt.Sprintf("%q is not a name for a scale set", clip(s.Name)),
			fmt.Sprintf("use letters, digits, hyphens, dots and underscores, at most %d", maxSet))
	}
	if s.Warm < 0 {
		k.bad(k.key("scaleset.warm"), fmt.Sprintf("warm is %d", s.Warm), "write 0 or more")
	}
	if s.Headroom < 0 {
		k.bad(k.key("scaleset.headroom"), fmt.Sprintf("headroom is %d", s.Headroom), "write 0 or more")
	}
	if k.p.Max > 0 && s.Warm > k.p.Max {
		k.bad(k.key("max"), fmt.Sprintf("max %d is less than warm %d", k.p.Max, s.Warm), "raise max or lower warm")
	}
}

// sharedSets looks for pools that would listen to one scale set.
func (k *checker) sharedSets() {
	seen := map[string]int{}
	for i := range k.c.Pools {
		p := &k.c.Pools[i]
		if p.ScaleSet == nil {
			continue
		}
		path := fmt.Sprintf("pools[%d]", i)
		key := strings.ToLower(strings.Join([]string{p.GitHub, p.Scope, p.Group, p.ScaleSet.Name}, " "))
		if first, twice := seen[key]; twice {
			k.bad([]string{path + ".scaleset.name", path + ".scaleset", "defaults.scaleset.name", path},
				fmt.Sprintf("pools %q and %q would listen to one scale set, %q", k.c.Pools[first].Name, p.Name, p.ScaleSet.Name), "give each a name of its own")
			continue
		}
		seen[key] = i
	}
}
