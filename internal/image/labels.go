package image

// Labels of ours in an image's OCI configuration. They say what a host must know
// before the first boot of a guest.
const (
	// LabelOS is the guest's system: OSLinux or OSDarwin.
	LabelOS = "org.tasuki.os"
	// LabelArch is the guest's architecture: ArchAMD64 or ArchARM64.
	LabelArch = "org.tasuki.arch"
	// LabelBoot is how it boots: BootKernel or BootFirmware.
	LabelBoot = "org.tasuki.boot"
	// LabelCmdline is the kernel's command line where LabelBoot is BootKernel.
	LabelCmdline = "org.tasuki.cmdline"
	// LabelKernelDigest and LabelInitrdDigest are the digests of the files of the
	// boot artifact. They bind those files to the image's own digest; a push
	// sets them.
	LabelKernelDigest = "org.tasuki.kernel.digest"
	LabelInitrdDigest = "org.tasuki.initrd.digest"
	// LabelUser is the user who logs in and whom the runner runs as.
	LabelUser = "org.tasuki.user"
	// LabelHostKey is the SSH host key that guests present, as a line of an
	// authorized_keys file.
	LabelHostKey = "org.tasuki.host-key"
	// LabelRunnerDir is the directory of the runner program in the guest.
	LabelRunnerDir = "org.tasuki.runner.dir"
	// LabelRunnerKind is RunnerAct or RunnerOfficial.
	LabelRunnerKind = "org.tasuki.runner.kind"
	// LabelRunnerVersion is the version of the runner program.
	LabelRunnerVersion = "org.tasuki.runner.version"
	// LabelRecipe identifies the recipe, and the inputs, that the image was built from.
	LabelRecipe = "org.tasuki.recipe"
	// LabelDiskData is how many bytes of the disk are in blocks of 4 KiB that are
	// not all zeros: what a sparse copy takes. A push sets it.
	LabelDiskData = "org.tasuki.disk.data"
	// LabelBase is the digest of the image that this one was made from.
	LabelBase = "org.tasuki.base"
	// LabelBuilt is the time of the build in RFC 3339, UTC.
	LabelBuilt = "org.tasuki.built"
)

// Values of LabelOS.
const (
	OSLinux  = "linux"
	OSDarwin = "darwin"
)

// Values of LabelArch.
const (
	ArchAMD64 = "amd64"
	ArchARM64 = "arm64"
)

// Values of LabelBoot.
const (
	// BootKernel: the hypervisor loads the image's kernel and initrd.
	BootKernel = "kernel"
	// BootFirmware: firmware finds a boot loader on the disk.
	BootFirmware = "firmware"
)

// Values of LabelRunnerKind.
const (
	// RunnerAct is github-act-runner.
	RunnerAct = "act"
	// RunnerOfficial is GitHub's actions/runner.
	RunnerOfficial = "official"
)
