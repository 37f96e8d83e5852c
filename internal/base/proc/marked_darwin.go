package proc

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Marked returns every process of this user (of any user, as root) that was
// started with this "KEY=value" in its environment, which children inherit.
// A process that ends meanwhile may be missing. macOS does not show the
// environment of the programs that come with it, such as /bin/sh: these are
// missing too.
func Marked(entry string) ([]ID, error) {
	procs, err := unix.SysctlKinfoProcSlice("kern.proc.uid", os.Getuid())
	if os.Getuid() == 0 {
		procs, err = unix.SysctlKinfoProcSlice("kern.proc.all")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for marked processes: %w", err)
	}
	word := append(append([]byte{0}, entry...), 0)
	var found []ID
	for _, p := range procs {
		pid := int(p.Proc.P_pid)
		args, err := unix.SysctlRaw("kern.procargs2", pid)
		if err != nil || !bytes.Contains(args, word) {
			continue
		}
		if id, err := Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found, nil
}
