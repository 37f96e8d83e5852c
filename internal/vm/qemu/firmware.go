package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// A guest that boots by firmware has UEFI, on amd64 where its disk is made for
// it: one with a GUID partition table. Other disks there get QEMU's own BIOS.

// uefi is one build of UEFI on this machine: its code, and the template of the
// variables that belong to it.
type uefi struct{ code, vars string }

// firmwares are where systems keep UEFI by architecture (Debian, Fedora,
// Homebrew). Those with Secure Boot are left out: they need a machine of
// another make.
var firmwares = map[string][]uefi{
	image.ArchAMD64: {
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"},
		{"/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"},
	},
	image.ArchARM64: {
		{"/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/opt/homebrew/share/qemu/edk2-arm-vars.fd"},
		{"/usr/local/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-arm-vars.fd"},
	},
}

// firmwarePackages are the Debian packages that bring UEFI.
var firmwarePackages = map[string]string{image.ArchAMD64: "ovmf", image.ArchARM64: "qemu-efi-aarch64"}

// firmware returns the path of UEFI's code.
func (d *Driver) firmware() (string, error) {
	for _, f := range firmwares[d.arch] {
		if isFile(f.code) && isFile(f.vars) {
			return f.code, nil
		}
	}
	hint := "sudo apt-get install " + firmwarePackages[d.arch]
	if runtime.GOOS == "darwin" {
		hint = "brew install qemu"
	}
	return "", fmt.Errorf("the image boots by UEFI, and there is no such firmware on this machine; install it: %s: %w", hint, vm.ErrUnsupported)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// firmwareVars is the template of variables that belongs to a firmware.
func firmwareVars(code string) string {
	for _, known := range firmwares {
		for _, f := range known {
			if f.code == code {
				return f.vars
			}
		}
	}
	return strings.Replace(code, "CODE", "VARS", 1)
}

// wantsUEFI says whether an image that boots by firmware is made for UEFI.
func (d *Driver) wantsUEFI(img image.Local) (bool, error) {
	if d.arch != image.ArchAMD64 || img.NVRAM != "" {
		return true, nil
	}
	if formatOf(img.Disk) != "raw" {
		return false, nil // a snapshot of a guest with UEFI has its variables
	}
	return hasGPT(img.Disk)
}

// gptSignature begins the header of a GUID partition table, in the second
// sector (UEFI specification 2.10, section 5.3.2).
const gptSignature = "EFI PART"

func hasGPT(disk string) (bool, error) {
	f, err := os.Open(disk)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var b [len(gptSignature)]byte
	if _, err := f.ReadAt(b[:], 512); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("cannot read the partition table of %q: %w", disk, err)
	}
	return string(b[:]) == gptSignature, nil
}

// formatOf is the format of a disk that guests are cloned from: raw, but for
// snapshots of ours. Its name decides and never its content: a guest writes
// its own first sector, and could name any file of this host as a backing file.
func formatOf(disk string) string {
	if filepath.Base(disk) == snapshotFile {
		return "qcow2"
	}
	return "raw"
}
