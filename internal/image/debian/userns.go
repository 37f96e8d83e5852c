package debian

import (
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/mirego/tasuki/internal/base/proc"
)

// userNamespaces reports why an ordinary user cannot have the namespace with many
// user ids that mmdebstrap works in.
func userNamespaces() error {
	for _, setting := range []string{"/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"} {
		value, err := os.ReadFile(setting)
		if err == nil && strings.TrimSpace(string(value)) == "0" {
			name := strings.ReplaceAll(strings.TrimPrefix(setting, "/proc/sys/"), "/", ".")
			mend := map[bool]string{true: "15000", false: "1"}[strings.HasPrefix(name, "user.")]
			return fmt.Errorf("ordinary users may not make user namespaces here; run: sudo sysctl -w %s=%s (or build as root): %w", name, mend, ErrHost)
		}
	}
	if _, err := proc.Look("newuidmap"); err != nil {
		return fmt.Errorf("%w, which an ordinary user needs; run: sudo apt-get install uidmap (or build as root): %w", err, ErrHost)
	}
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("cannot tell who we are: %w", err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		data, _ := os.ReadFile(file)
		if !hasRange(string(data), me) {
			return fmt.Errorf("user %q has no range of ids in %s; run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s (or build as root): %w",
				me.Username, file, me.Username, ErrHost)
		}
	}
	return nil
}

// hasRange says whether a subuid(5) file gives the user ids, by name or number.
func hasRange(file string, who *user.User) bool {
	for line := range strings.Lines(file) {
		owner, _, ok := strings.Cut(line, ":")
		if ok && (owner == who.Username || owner == who.Uid) {
			return true
		}
	}
	return false
}

// unshareHint tells what may stand behind a failure as an ordinary user.
func unshareHint() string {
	value, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
	if err == nil && strings.TrimSpace(string(value)) == "1" {
		return " (AppArmor restricts user namespaces here; if that is the cause, run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or build as root)"
	}
	return ""
}
