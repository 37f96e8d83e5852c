package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
)

const (
	release = "bookworm"
	mirror  = "http://deb.debian.org/debian"
	// packages are what the guest has beyond apt and the essential packages, ARCH
	// being Debian's name of the architecture.
	packages = "linux-image-cloud-ARCH,klibc-utils,cpio,kmod,systemd-sysv,busybox-static,libnss-myhostname," +
		"openssh-server,sudo,git,ca-certificates,curl,procps,iproute2,xz-utils,zstd"
	// buildLimit bounds a build on a slow line; it takes a minute or two.
	buildLimit = 30 * time.Minute
	// buildGrace is for mmdebstrap to unmount and remove its tree.
	buildGrace = 20 * time.Second
)

// dpkgExcludes leaves out what nobody reads in a guest: a quarter of the tree.
const dpkgExcludes = `printf 'path-exclude=/usr/share/%s/*\n' man locale info doc >"$1/etc/dpkg/dpkg.cfg.d/guest"
echo 'path-include=/usr/share/doc/*/copyright' >>"$1/etc/dpkg/dpkg.cfg.d/guest"`

// cmdline is the kernel's command line by architecture. What follows the console
// buys time under emulation. loglevel=6 keeps the first lines on the console.
var cmdline = map[string]string{
	image.ArchAMD64: "root=/dev/vda rw console=ttyS0" + fasterBoot + " no_timer_check tsc=reliable",
	image.ArchARM64: "root=/dev/vda rw console=ttyAMA0" + fasterBoot,
}

const fasterBoot = " net.ifnames=0 loglevel=6 systemd.show_status=0 mitigations=off init_on_alloc=0" +
	" nokaslr audit=0 lsm= cryptomgr.notests random.trust_cpu=on"

// hostFiles are what a build yields beside the disk, the kernel and the initrd.
type hostFiles struct{ hostKey []byte }

// bootstrap runs mmdebstrap and leaves disk, kernel and initrd in work.
func bootstrap(ctx context.Context, o Options, p payload, key, work string) (hostFiles, error) {
	disk, err := os.OpenFile(filepath.Join(work, diskFile), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return hostFiles{}, err
	}
	defer disk.Close()
	// The root of an ordinary user's namespace is another user and opens the disk
	// again. The folder around it lets nobody else in.
	if err := errors.Join(disk.Truncate(diskSize), disk.Chmod(0o666)); err != nil {
		return hostFiles{}, err
	}
	in, out := filepath.Join(work, "in.tar"), filepath.Join(work, "out.tar")
	if err := p.writeFile(in); err != nil {
		return hostFiles{}, fmt.Errorf("cannot pack the runner program: %w", err)
	}
	if err := mmdebstrap(ctx, o, key, buildFiles{disk, in, out}); err != nil {
		return hostFiles{}, err
	}
	o.Progress(0.97, "unpacking the kernel")
	host, err := unpack(out, work)
	if err != nil {
		return hostFiles{}, err
	}
	return host, errors.Join(disk.Chmod(0o600), disk.Sync(), os.Remove(in), os.Remove(out))
}

// buildFiles are what a run of mmdebstrap reads and writes.
type buildFiles struct {
	disk    *os.File
	in, out string // tars that go into the tree and come out of it
}

// mmdebstrap makes the tree and has the recipe's hooks make the rest.
func mmdebstrap(ctx context.Context, o Options, key string, files buildFiles) error {
	args, err := mmdebstrapArgs(o, files)
	if err != nil {
		return err
	}
	mke2fs, err := lookSbin("mke2fs")
	if err != nil {
		return err
	}
	watch := &watcher{report: o.Progress, log: func(line string) { o.Log.Info("mmdebstrap", "line", line) }}
	ctx, cancel := context.WithTimeoutCause(ctx, buildLimit, fmt.Errorf("not done after %v", buildLimit))
	defer cancel()
	cmd := proc.Cmd{
		Path: "mmdebstrap", Args: args, Dir: "/", Stderr: watch, Grace: buildGrace,
		Env: []string{
			"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin:/usr/bin:/bin",
			"INITRD=No", // what Debian's kernel hooks read: the initrd is the recipe's
			"MKE2FS=" + mke2fs, "FSUUID=" + uuidOf(key), "DISK=" + files.disk.Name(),
			"EPOCH=" + strconv.FormatInt(epoch.Unix(), 10), "SOURCE_DATE_EPOCH=" + strconv.FormatInt(epoch.Unix(), 10),
		},
	}
	if os.Geteuid() != 0 {
		// The way to the disk is closed to the namespace's root; an open file is not.
		// One only: apt's shell hooks in mmdebstrap break when theirs gets two digits.
		cmd.Files = []*os.File{files.disk}
		cmd.Env = append(cmd.Env, "DISK=/proc/self/fd/3")
	}
	_, err = proc.Run(ctx, cmd)
	if err != nil && os.Geteuid() != 0 && ctx.Err() == nil {
		return fmt.Errorf("%w%s", err, unshareHint())
	}
	return err
}

func mmdebstrapArgs(o Options, files buildFiles) ([]string, error) {
	mode := "unshare"
	if os.Geteuid() == 0 {
		mode = "root"
	}
	args := []string{
		"--mode=" + mode, "--variant=apt", "--format=null",
		"--skip=cleanup", // it would come after the disk; disk.sh has its own
		"--include=" + strings.Join(append([]string{strings.ReplaceAll(packages, "ARCH", o.Arch)}, o.Packages...), ","),
		"--aptopt=Acquire::Retries 3",
		// Not by --dpkgopt: mmdebstrap would then filter each package in Perl.
		"--essential-hook=" + dpkgExcludes,
		"--customize-hook=tar-in " + shellQuote(files.in) + " /",
	}
	for _, step := range []string{"customize.sh", "", "disk.sh"} {
		if step == "" {
			args = append(args, "--customize-hook=tar-out /run/host "+shellQuote(files.out))
			continue
		}
		text, err := recipe.ReadFile("recipe/" + step)
		if err != nil {
			return nil, err
		}
		args = append(args, "--customize-hook="+string(text))
	}
	args = append(args, release, "/dev/null")
	if o.Mirror != "" {
		args = append(args, o.Mirror)
	}
	return args, nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// unpack takes kernel, initrd and host key from the tar of the tree's /run/host.
func unpack(out, work string) (hostFiles, error) {
	f, err := os.Open(out)
	if err != nil {
		return hostFiles{}, err
	}
	defer f.Close()
	found := map[string][]byte{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return hostFiles{}, fmt.Errorf("cannot read what the recipe left: %w", err)
		}
		if found[path.Base(h.Name)], err = io.ReadAll(tr); err != nil {
			return hostFiles{}, fmt.Errorf("cannot read %q of what the recipe left: %w", h.Name, err)
		}
	}
	for _, name := range []string{"vmlinuz", "initrd", "host-key"} {
		if len(found[name]) == 0 {
			return hostFiles{}, fmt.Errorf("the recipe left no %q", name)
		}
	}
	kernel, err := vmlinux(found["vmlinuz"])
	if err != nil {
		return hostFiles{}, err
	}
	return hostFiles{hostKey: found["host-key"]}, errors.Join(
		os.WriteFile(filepath.Join(work, kernelFile), kernel, 0o600),
		os.WriteFile(filepath.Join(work, initrdFile), found["initrd"], 0o600))
}

// phases are mmdebstrap's messages that begin a part of the work, with how much
// of it is done by then.
var phases = []struct {
	begins string
	done   float64
	doing  string
}{
	{"running apt-get update", 0.02, "reading Debian's package lists"},
	{"downloading packages", 0.08, "downloading the base packages"},
	{"extracting archives", 0.15, "unpacking the base system"},
	{"installing essential packages", 0.20, "installing the base system"},
	{"installing remaining packages", 0.40, "installing the guest's packages"},
	{"running --customize-hook", 0.85, "making the disk"},
}

// watcher turns mmdebstrap's messages into progress.
type watcher struct {
	report Progress
	log    func(string)
	rest   []byte
}

func (w *watcher) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimSpace(string(w.rest[:i]))
		w.rest = w.rest[i+1:]
		w.log(line)
		for _, phase := range phases {
			if strings.HasPrefix(strings.TrimPrefix(line, "I: "), phase.begins) {
				w.report(phase.done, phase.doing)
			}
		}
	}
}

// uuidOf makes a file system's UUID of a key, so that equal inputs make equal disks.
func uuidOf(key string) string {
	return key[:8] + "-" + key[8:12] + "-4" + key[13:16] + "-8" + key[17:20] + "-" + key[20:32]
}

// lookSbin finds a program that may lie where an ordinary user's PATH does not lead.
func lookSbin(name string) (string, error) {
	for _, try := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := proc.Look(try); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("cannot find %q: %w", name, proc.ErrNotInstalled)
}

// preflight finds what would fail the build later and says how to mend it.
func preflight(arch string) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("building a Debian image needs Linux, because mmdebstrap does: %w", ErrHost)
	}
	if _, known := cmdline[arch]; !known || arch != runtime.GOARCH {
		return fmt.Errorf("cannot build for %q on %q: build on a machine of that architecture: %w", arch, runtime.GOARCH, ErrHost)
	}
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "mount": "mount"} {
		if _, err := lookSbin(program); err != nil {
			return fmt.Errorf("%w; run: sudo apt-get install %s: %w", err, pkg, ErrHost)
		}
	}
	if os.Geteuid() == 0 {
		return nil
	}
	return userNamespaces()
}
