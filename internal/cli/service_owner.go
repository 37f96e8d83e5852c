package cli

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf names the owner of a path; "" if it is not there.
func ownerOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	who, err := user.LookupId(strconv.FormatUint(uint64(sys.Uid), 10))
	if err != nil {
		return ""
	}
	return who.Username
}

// uid is a user's number; -1 where users have none.
func uid(who *user.User) int {
	n, err := strconv.Atoi(who.Uid)
	if err != nil {
		return -1
	}
	return n
}
