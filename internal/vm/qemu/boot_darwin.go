package qemu

import "golang.org/x/sys/unix"

// bootID identifies this boot of the machine.
func bootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }
