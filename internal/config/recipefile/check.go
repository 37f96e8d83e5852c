package recipefile

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	envForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	hexForm  = regexp.MustCompile(`^([0-9a-f]{64}|[0-9a-f]{128})$`)
)

// built-in variables.
var builtIn = []string{"os", "arch", "driver"}

// check notes what cannot work, whatever the variables are.
func (f *File) check() {
	bad := f.document.Bad
	if !nameForm.MatchString(f.Name) {
		bad("name", fmt.Sprintf("name %q is not a word for an image", f.Name), "use up to 40 lower-case letters, digits and hyphens")
	}
	f.oneOf("os", f.OS, image.OSLinux, image.OSDarwin)
	f.oneOf("host_key", f.HostKey, "image", "guest")
	switch n := f.bases(); {
	case n == 0:
		bad("from", "the recipe begins with nothing", "write one of from, disk and debian")
	case n > 1:
		bad("from", "the recipe begins with more than one thing", "keep one of from, disk and debian")
	case f.OS == image.OSDarwin && f.From == "":
		bad("os", "a macOS guest begins with an image", "name one under from; recipes/packer makes one of an IPSW")
	}
	if f.Disk != nil {
		f.files("disk", &f.Disk.Files)
	}
	if f.Debian != nil && f.Debian.Release != "" {
		f.oneOf("debian.release", f.Debian.Release, defaultRelease)
	}
	f.words()
	f.document.Source("login.password", &f.Login.Password)
	if !f.Login.Password.IsZero() && f.Login.PublicPassword != "" {
		bad("login", "two passwords", "keep one of password and public_password")
	}
	for i := range f.Steps {
		f.step(i, fmt.Sprintf("steps[%d]", i))
	}
}

func (f *File) oneOf(where, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.document.Bad(where, fmt.Sprintf("%q is not known here", value), "write "+strings.Join(allowed, " or "))
	}
}

// words checks the names of variables, secrets and the environment.
func (f *File) words() {
	names := func(where string, keys []string) {
		for _, name := range keys {
			if !envForm.MatchString(name) {
				f.document.Bad(where+"."+name, fmt.Sprintf("%q is not the name of a variable", name), "use letters, digits and underscores")
			}
			if where == "vars" && slices.Contains(builtIn, name) {
				f.document.Bad(where+"."+name, fmt.Sprintf("variable %q is always there", name), "choose another name")
			}
		}
	}
	names("vars", sorted(f.Vars))
	names("env", sorted(f.Env))
	names("secrets", sorted(f.Secrets))
	for _, name := range sorted(f.Secrets) {
		s := f.Secrets[name]
		f.document.Source("secrets."+name, &s)
		f.Secrets[name] = s
	}
}

func (f *File) files(where string, files *Files) {
	if files.URL == "" && files.AMD64 == nil && files.ARM64 == nil {
		f.document.Bad(where, "it names no file", "give it url and sha256, or amd64 and arm64 with these")
	}
	for sub, d := range map[string]*Download{where: &files.Download, where + ".amd64": files.AMD64, where + ".arm64": files.ARM64} {
		if d == nil || *d == (Download{}) {
			continue
		}
		sum := strings.TrimSpace(d.SHA256 + d.SHA512)
		switch {
		case d.URL == "":
			f.document.Bad(sub, "a checksum without a file", "give it url")
		case d.SHA256 != "" && d.SHA512 != "":
			f.document.Bad(sub, "two checksums", "keep one of sha256 and sha512")
		case sum == "":
			f.document.Bad(sub, "a file without its checksum", "give it sha256 or sha512; for a file of this host, sha256sum FILE prints it")
		case !strings.Contains(sum, "${") && !hexForm.MatchString(sum):
			f.document.Bad(sub, fmt.Sprintf("%q is not a checksum", sum), "write its 64 (sha256) or 128 (sha512) hexadecimal digits, in lower case")
		}
	}
}

func (f *File) step(i int, where string) {
	s := &f.Steps[i]
	bad := f.document.Bad
	kinds := 0
	for _, there := range []bool{s.Run != "", s.Script != "", s.Runner != nil} {
		if there {
			kinds++
		}
	}
	switch {
	case s.Name == "":
		bad(where, "a step without a name", "give it name")
	case kinds > 1:
		bad(where, fmt.Sprintf("step %q does more than one thing", s.Name), "keep one of run, script and runner")
	case kinds == 0 && len(s.Copy) == 0:
		bad(where, fmt.Sprintf("step %q does nothing", s.Name), "give it run, script, copy or runner")
	}
	if _, err := parseCondition(s.When); err != nil {
		bad(where+".when", err.Error(), "write NAME, !NAME, NAME == value or NAME != value, joined by &&")
	} else {
		for _, name := range conditionNames(s.When) {
			f.known(where+".when", name)
		}
	}
	for j, c := range s.Copy {
		at := fmt.Sprintf("%s.copy[%d]", where, j)
		if c.From == "" || c.To == "" {
			bad(at, "a copy without from or to", "give it both")
		} else if !strings.HasPrefix(c.To, "~/") && !path.IsAbs(c.To) && !strings.HasPrefix(c.To, "${") {
			bad(at+".to", fmt.Sprintf("%q is not a path in the guest", c.To), "begin it with / or ~/")
		}
	}
	for j, name := range s.Secrets {
		if _, ok := f.Secrets[name]; !ok {
			bad(fmt.Sprintf("%s.secrets[%d]", where, j), fmt.Sprintf("there is no secret %q", name), "say under secrets where it is")
		}
	}
	for _, name := range sorted(s.Env) {
		if !envForm.MatchString(name) {
			bad(where+".env."+name, fmt.Sprintf("%q is not the name of a variable", name), "use letters, digits and underscores")
		}
	}
	if s.Runner != nil {
		f.runner(i, where+".runner")
	}
}

func (f *File) runner(i int, where string) {
	r := f.Steps[i].Runner
	f.files(where, &r.Files)
	f.oneOf(where+".kind", r.Kind, image.RunnerOfficial, image.RunnerAct, "command")
	for _, other := range f.Steps[:i] {
		if other.Runner != nil && other.When == "" && f.Steps[i].When == "" {
			f.document.Bad(where, "a second runner program", "an image has one; keep one, or give both a condition (when)")
		}
	}
}

// known notes a variable that there is not.
func (f *File) known(where, name string) {
	if _, ok := f.Vars[name]; !ok && !slices.Contains(builtIn, name) {
		f.document.Bad(where, fmt.Sprintf("there is no variable %q", name), "give it a default under vars, which may be empty")
	}
}
