package proc

import (
	"bytes"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Args returns the command line of a running process, the program first, or
// fs.ErrNotExist.
func Args(pid int) ([]string, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(line) == 0 {
		return nil, fs.ErrNotExist
	}
	return strings.Split(string(bytes.TrimSuffix(line, []byte{0})), "\x00"), nil
}
