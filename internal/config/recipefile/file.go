// Package recipefile is the YAML of recipes: what a person writes to have a
// guest image built.
//
// A File is read by the rules of the configuration: strict, every mistake at
// once, each with its place and what to do. Variables have their defaults in
// the file; who builds may replace them. Resolve replaces the variables, leaves out the
// steps whose condition is not met, and gives a recipe.Recipe, which knows of
// no variable any more but for those that scripts mention.
package recipefile

import (
	"fmt"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// File is a recipe as it is written.
type File struct {
	Name     string                   `yaml:"name" doc:"A word for the image: lower-case letters, digits and hyphens." example:"linux-runner"`
	OS       string                   `yaml:"os,omitempty" doc:"The guest's system." enum:"linux,darwin"`
	Vars     map[string]string        `yaml:"vars,omitempty" doc:"Variables and their defaults; tasuki image build --var NAME=VALUE replaces one. A script gets those that it mentions in its environment; other values of this file write ${NAME}. os, arch and driver are always there." example:"NODE: \"20\""`
	From     string                   `yaml:"from,omitempty" doc:"The base: an image in a registry." example:"registry.example.com/base:stable"`
	Disk     *Disk                    `yaml:"disk,omitempty" doc:"The base: a distribution's cloud image, raw or qcow2. Linux with QEMU only."`
	Debian   *Debian                  `yaml:"debian,omitempty" doc:"The base: Debian, made of its packages by mmdebstrap. Linux with QEMU only."`
	User     string                   `yaml:"user,omitempty" doc:"Who logs in to the guests and whom the runner runs as. Empty: the base image's user, or runner."`
	Login    Login                    `yaml:"login,omitempty" doc:"Who logs in to the base while it is built on, if that is another."`
	Guest    Guest                    `yaml:"guest,omitempty" doc:"The machine that the build runs in."`
	Env      map[string]string        `yaml:"env,omitempty" doc:"Environment of every step."`
	Secrets  map[string]config.Source `yaml:"secrets,omitempty" doc:"Secrets for steps that name them. They are neither in the image nor in the log, and do not count when a step is looked up in the cache."`
	Steps    []Step                   `yaml:"steps" doc:"What is done, in this order."`
	Labels   map[string]string        `yaml:"labels,omitempty" doc:"Labels of the image, beside ours."`
	HostKey  string                   `yaml:"host_key,omitempty" doc:"image: the image has an SSH host key, which its label names, so that agents know its guests. guest: each guest makes its own, and nobody can tell it from a forged one." enum:"image,guest"`
	document *config.Document
}

// Download is a file by URL and checksum.
type Download struct {
	URL    string `yaml:"url,omitempty" doc:"http, https or file; or a path of this host, relative to the recipe's folder." example:"https://example.com/disk.qcow2"`
	SHA256 string `yaml:"sha256,omitempty" doc:"Its checksum: this one or sha512."`
	SHA512 string `yaml:"sha512,omitempty" doc:"Its checksum: this one or sha256."`
}

// Files is a file for each architecture, or one for all.
type Files struct {
	Download `yaml:",inline"`
	AMD64    *Download `yaml:"amd64,omitempty" doc:"For guests of this architecture, in place of url."`
	ARM64    *Download `yaml:"arm64,omitempty" doc:"For guests of this architecture, in place of url."`
}

// Disk is a cloud image.
type Disk struct {
	Files `yaml:",inline"`
}

// Debian is a system of packages.
type Debian struct {
	Release  string   `yaml:"release,omitempty" doc:"Debian's release." enum:"bookworm"`
	Mirror   string   `yaml:"mirror,omitempty" doc:"Where its packages are. Empty: deb.debian.org."`
	Packages []string `yaml:"packages,omitempty" doc:"Packages beyond what every guest has: sshd, sudo, git, curl."`
}

// Login is how a build gets into its base.
type Login struct {
	User           string        `yaml:"user,omitempty" doc:"Empty: user."`
	Password       config.Source `yaml:"password,omitempty" doc:"The password, where the base takes no key."`
	PublicPassword string        `yaml:"public_password,omitempty" doc:"The same for a password that everybody knows, as of a public base image." example:"admin"`
}

// Guest is the machine of the build.
type Guest struct {
	CPUs    int            `yaml:"cpus,omitempty" doc:"Processors."`
	Memory  config.Size    `yaml:"memory,omitempty" doc:"Memory."`
	Disk    config.Size    `yaml:"disk,omitempty" doc:"Grow the base's disk to this size. Empty: as large as the base's."`
	Network config.Network `yaml:"network,omitempty" doc:"What the guest can reach while it is built."`
}

// Step is one step.
type Step struct {
	Name    string            `yaml:"name" doc:"What it is called in the output."`
	When    string            `yaml:"when,omitempty" doc:"Leave the step out unless this is so: NAME (it is not empty, false, no or 0), !NAME, NAME == value, NAME != value; several joined by &&." example:"XCODE != \"\" && arch == arm64"`
	Copy    []Copy            `yaml:"copy,omitempty" doc:"Files for the guest. They come before run."`
	Run     string            `yaml:"run,omitempty" doc:"A POSIX shell script; its first failing command fails the step."`
	Script  string            `yaml:"script,omitempty" doc:"A file with such a script, or with one that begins with #!. Relative: to the recipe's folder."`
	Runner  *Runner           `yaml:"runner,omitempty" doc:"Install the runner program. One step can."`
	Env     map[string]string `yaml:"env,omitempty" doc:"Environment of this step."`
	Secrets []string          `yaml:"secrets,omitempty" doc:"Names of secrets that come as environment variables."`
	Root    bool              `yaml:"root,omitempty" doc:"Run it as root."`
	Restart bool              `yaml:"restart,omitempty" doc:"Restart the guest afterwards."`
	Timeout config.Duration   `yaml:"timeout,omitempty" doc:"How long it may take."`
}

// Copy is one file, or several, for the guest.
type Copy struct {
	From string      `yaml:"from" doc:"A file of this host, a folder, or a pattern such as xcode/*.xip. Relative: to the recipe's folder."`
	To   string      `yaml:"to" doc:"Where it goes in the guest. With / at its end: into that folder. ~/ is the home of who logs in."`
	Mode config.Mode `yaml:"mode,omitempty" doc:"Permission bits, octal. Empty: as the file's."`
}

// Runner is the runner program.
type Runner struct {
	Files   `yaml:",inline"`
	Kind    string `yaml:"kind,omitempty" doc:"official: a release of actions/runner. act: github-act-runner. command: an archive with the executable run." enum:"official,act,command"`
	Version string `yaml:"version,omitempty" doc:"Its version, for people and for the label." example:"2.330.0"`
	Dir     string `yaml:"dir,omitempty" doc:"Its folder in the guest."`
	Warmup  bool   `yaml:"warmup,omitempty" doc:"Let the official runner load once while the image is built: bin/Runner.Listener warmup."`
}

// Default is what a recipe is where it does not say otherwise.
func Default() File {
	return File{
		OS: image.OSLinux, HostKey: "image",
		Guest: Guest{CPUs: 2, Memory: 4 << 30, Network: config.Network{Mode: vm.Internet}},
	}
}

const (
	defaultRunnerDir = "~/actions-runner"
	defaultRelease   = "bookworm"
)

// Load reads a recipe. If the file can be read and has mistakes, the error is
// config.Problems: all of them.
func Load(path string) (*File, error) {
	data, err := config.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read recipe %q: %w", path, err)
	}
	return Parse(path, data)
}

// Parse is Load for content that is at hand.
func Parse(path string, data []byte) (*File, error) {
	f := Default()
	f.document = config.ParseDocument(path, data, &f)
	f.check()
	if err := f.document.Err(); err != nil {
		return nil, err
	}
	return &f, nil
}

// bases counts what the file begins with.
func (f *File) bases() int {
	n := 0
	for _, there := range []bool{f.From != "", f.Disk != nil, f.Debian != nil} {
		if there {
			n++
		}
	}
	return n
}

func (d *Download) checksum() string {
	if d.SHA512 != "" {
		return "sha512:" + d.SHA512
	}
	return "sha256:" + d.SHA256
}

// of is the file for an architecture; nil if there is none.
func (f *Files) of(arch string) *Download {
	switch {
	case arch == image.ArchAMD64 && f.AMD64 != nil:
		return f.AMD64
	case arch == image.ArchARM64 && f.ARM64 != nil:
		return f.ARM64
	case f.URL != "":
		return &f.Download
	}
	return nil
}
