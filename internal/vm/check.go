package vm

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

var (
	keyForm  = regexp.MustCompile(`^[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [[:print:]]*)?$`)
	userForm = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)
)

// CheckSpec returns an ErrSpec for what no driver with these capabilities can
// make. Drivers call it first and then add their own rules.
func CheckSpec(spec Spec, caps Capabilities) error {
	if err := CheckName(spec.Name); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, ErrSpec)...)
	}
	labels := spec.Image.Labels
	switch os, arch, user := labels[image.LabelOS], labels[image.LabelArch], labels[image.LabelUser]; {
	case spec.CPUs < 0 || spec.MemoryMiB < 0 || spec.DiskGB < 0:
		return bad("%d processors, %d MiB of memory, %d GB of disk: none may be negative", spec.CPUs, spec.MemoryMiB, spec.DiskGB)
	case spec.Image.Digest == "" && spec.Image.Disk == "":
		return bad("it has no image")
	case os != "" && os != caps.GuestOS:
		return bad("the image holds %q; %s runs %q guests here", os, caps.Driver, caps.GuestOS)
	case arch != "" && arch != caps.GuestArch:
		return bad("the image is made for %s; %s runs %s guests here", arch, caps.Driver, caps.GuestArch)
	case user != "" && !userForm.MatchString(user):
		return bad("the image names the user %q, which is no user name", user)
	case spec.LoginKey != "" && !keyForm.MatchString(strings.TrimSpace(spec.LoginKey)):
		return bad("its login key is not one line of authorized_keys")
	case spec.Hostname != "" && !hostForm.MatchString(spec.Hostname):
		return bad("%q is not a host name", spec.Hostname)
	case spec.Network.Mode != Isolated && spec.Network.Mode != Internet:
		return bad("its network %q is neither %q nor %q", spec.Network.Mode, Isolated, Internet)
	}
	return nil
}
