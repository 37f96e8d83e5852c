package proc

import (
	"bytes"
	"encoding/binary"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Args returns the command line of a running process, the program first, or
// fs.ErrNotExist.
func Args(pid int) ([]string, error) {
	// The layout of kern.procargs2 is that of XNU's sysctl_procargsx: argc, the
	// program's path, NULs, then argc words and the environment.
	raw, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil || len(raw) < 4 {
		return nil, fs.ErrNotExist
	}
	n := int(binary.LittleEndian.Uint32(raw))
	_, rest, _ := bytes.Cut(raw[4:], []byte{0})
	rest = bytes.TrimLeft(rest, "\x00")
	var args []string
	for range n {
		word, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, fs.ErrNotExist
		}
		args, rest = append(args, string(word)), after
	}
	return args, nil
}
