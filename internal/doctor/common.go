package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// commonChecks concern every machine.
var commonChecks = []check{
	{
		name: "home",
		why:  "the folder holds login keys of guests and the agent's socket: who reads it is in every guest",
		when: func(h Host) bool { return h.Home != "" },
		look: lookAtHome,
	},
	{
		name: "secrets",
		why:  "who reads these files manages your runners; and the agent refuses what others can read",
		when: func(h Host) bool { return len(h.Secrets) > 0 },
		look: lookAtSecrets,
	},
	{
		name: "disk-space",
		why:  "guests fail, and images cannot be pulled, when the disk is full",
		look: func(_ context.Context, m Machine, h Host) verdict {
			free, err := m.Space(h.Home)
			switch {
			case err != nil:
				return unasked("the disk", err)
			case free < h.FreeFloor:
				return byHand(Problem, fmt.Sprintf("%s are free below %s, and %s shall stay so", gigabytes(free), h.Home, gigabytes(h.FreeFloor)),
					"make room: tasuki image prune --dry-run shows what no pool needs")
			case free < 2*h.FreeFloor:
				return byHand(Warning, fmt.Sprintf("%s are free below %s", gigabytes(free), h.Home), "make room, or give the home a larger disk")
			}
			return well("%s are free below %s", gigabytes(free), h.Home)
		},
	},
}

// lookAtSecrets stops at the first file that is not the agent's alone.
func lookAtSecrets(_ context.Context, m Machine, h Host) verdict {
	for _, path := range h.Secrets {
		f, err := m.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return byHand(Problem, path+" is not there", "write it: sudo install -m 0600 -o "+h.User+" /dev/stdin "+path)
		case err != nil:
			return unasked(path, err)
		case f.Mode.Perm()&0o077 != 0:
			return bad(Problem, fmt.Sprintf("others can read %s (mode %04o)", path, f.Mode.Perm()), sudo("chmod", "600", path))
		case f.UID != h.UID:
			return bad(Problem, fmt.Sprintf("%s belongs to another user (%d) than the agent, %s", path, f.UID, h.User), sudo("chown", h.User, path))
		}
	}
	return well("%s: nobody but %s reads them", strings.Join(h.Secrets, ", "), h.User)
}

func lookAtHome(_ context.Context, m Machine, h Host) verdict {
	f, err := m.Stat(h.Home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return well("%s is not there yet: the agent makes it", h.Home)
	case err != nil:
		return unasked(h.Home, err)
	case f.UID != h.UID:
		return bad(Problem, fmt.Sprintf("%s belongs to another user (%d)", h.Home, f.UID), sudo("chown", "-R", h.User, h.Home))
	case f.Mode.Perm()&0o077 != 0:
		return bad(Problem, fmt.Sprintf("others may enter %s (mode %04o)", h.Home, f.Mode.Perm()), []string{"chmod", "700", h.Home})
	}
	if f, err := m.Stat(filepath.Join(h.Home, "config.yaml")); err == nil && f.Mode.Perm()&0o022 != 0 {
		return bad(Problem, fmt.Sprintf("others may change %s", filepath.Join(h.Home, "config.yaml")),
			[]string{"chmod", "600", filepath.Join(h.Home, "config.yaml")})
	}
	return well("%s is closed to others", h.Home)
}
