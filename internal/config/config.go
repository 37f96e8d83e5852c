package config

import (
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// Config is one host's configuration, with all defaults filled in.
type Config struct {
	Host       Host           `yaml:"host" doc:"This machine."`
	GitHub     GitHub         `yaml:"github" doc:"The GitHub that the runners register with."`
	Registries []Registry     `yaml:"registries,omitempty" doc:"Credentials for image registries. A registry that asks for none needs no entry."`
	Registry   RegistryServer `yaml:"registry,omitempty" doc:"The registry that this machine serves: what tasuki registry serve --config reads. tasuki host run ignores it."`
	Images     Images         `yaml:"images,omitempty" doc:"How guest images are kept on this host."`
	Metrics    Metrics        `yaml:"metrics,omitempty" doc:"Where a Prometheus finds this host."`
	Releases   RunnerReleases `yaml:"runner_releases,omitempty" doc:"The releases of the runner program that are kept on this host."`
	History    History        `yaml:"history,omitempty" doc:"What is kept of runners that are gone."`
	Logs       Logs           `yaml:"logs,omitempty" doc:"What is kept of the logs and consoles of runners that are gone."`
	Console    Console        `yaml:"console,omitempty" doc:"The web console of this host."`
	Defaults   Settings       `yaml:"defaults,omitempty" doc:"Settings of every pool that does not say otherwise. All keys of a pool but its name."`
	Pools      []Pool         `yaml:"pools" doc:"What runs here. The order decides who is served first when slots are short."`

	file     string
	at       positions
	warnings Problems
}

// Host is this machine.
type Host struct {
	Name         string   `yaml:"name" doc:"A word for this machine in the names of its runners. Two hosts must not share one." example:"mac-mini-3"`
	Slots        int      `yaml:"slots" doc:"How many guests may run at once, over all pools."`
	Home         string   `yaml:"home" doc:"The folder for images, guests, the journal and the agent's socket. It needs room for each image once and for what the guests write."`
	Prefix       string   `yaml:"prefix" doc:"Begins the name of every guest and runner of ours. What does not begin with it is never touched."`
	DrainTimeout Duration `yaml:"drain_timeout" doc:"How long busy runners may finish after SIGTERM. Guests that are still busy then go on and are adopted by the next agent."`
	Tick         Duration `yaml:"tick" doc:"How often the agent compares what is there with what the pools want."`
	Accel        string   `yaml:"accel" doc:"How QEMU runs guests. auto takes KVM or HVF after a short trial boot showed that it works, else it emulates." enum:"auto,kvm,hvf,tcg"`
	// Reboot is when the agent reboots the host.
	Reboot        string   `yaml:"reboot" doc:"When the agent reboots this machine. leaked: when macOS has counted virtual machines that are no more for a quarter of an hour, nothing is at work and the last such reboot is six hours ago." enum:"never,leaked"`
	RebootCommand []string `yaml:"reboot_command,omitempty" doc:"The program that reboots, with its arguments. Empty: sudo -n /sbin/shutdown -r now. The agent's user must be allowed to run it without a password."`
}

// GitHub is where runners register.
type GitHub struct {
	Account  `yaml:",inline"`
	Accounts []NamedAccount `yaml:"accounts,omitempty" doc:"Further credentials, for pools that name one under github: another organisation, another GitHub."`
}

// Account is one credential at one GitHub.
type Account struct {
	URL   string `yaml:"url" doc:"https://github.com, https://NAME.ghe.com, a GitHub Enterprise Server, or a Tasuki emulator." example:"https://github.example.com"`
	Token Source `yaml:"token,omitempty" doc:"A personal access token that may manage self-hosted runners of every scope it is used for. It never stands in this file."`
	App   App    `yaml:"app,omitempty" doc:"A GitHub App, instead of token."`
	Proxy string `yaml:"proxy,omitempty" doc:"An HTTP proxy on the way to GitHub. Empty: what HTTPS_PROXY says. Guests have their own, in env." example:"http://proxy.example.com:3128"`
	CA    string `yaml:"ca,omitempty" doc:"A file with certificates in PEM of authorities that GitHub's address may be signed by, beside the system's. Relative: to the configuration's folder." example:"/etc/ssl/acme-ca.pem"`
}

// NamedAccount is an account that pools name.
type NamedAccount struct {
	Name    string `yaml:"name" doc:"What pools write under github: lower-case letters, digits and hyphens." example:"acme"`
	Account `yaml:",inline"`
}

// App is a GitHub App.
type App struct {
	ID           string `yaml:"id" doc:"Its client id or its app id." example:"Iv23liABCDEFGHIJKLMN"`
	Key          Source `yaml:"key" doc:"Its private key, as GitHub gave it: PEM. It never stands in this file."`
	Installation int    `yaml:"installation,omitempty" doc:"The id of its installation. 0: the one of the scope's owner is found."`
}

// IsZero says whether no App is named.
func (a App) IsZero() bool { return a.ID == "" && a.Key.IsZero() && a.Installation == 0 }

// Registry is how to log in to an image registry.
type Registry struct {
	Host     string `yaml:"host" doc:"The registry, as image references name it." example:"registry.example.com:5000"`
	Username string `yaml:"username,omitempty" doc:"Who logs in."`
	Password Source `yaml:"password,omitempty" doc:"Password or token of that user. It never stands in this file."`
	HTTP     bool   `yaml:"http,omitempty" doc:"Speak plain HTTP to it. A registry on this very host is spoken to so without being asked."`
	CA       string `yaml:"ca,omitempty" doc:"A file with certificates in PEM of authorities that its address may be signed by, beside the system's. Relative: to the configuration's folder." example:"registry-ca.pem"`
}

// Pool is one kind of runner.
type Pool struct {
	Name     string `yaml:"name" doc:"A word for the pool in the names of its runners: lower-case letters, digits and hyphens." example:"linux"`
	Settings `yaml:",inline"`
}

// Settings is what a pool says beside its name.
type Settings struct {
	Image            string                    `yaml:"image,omitempty" doc:"The guest image: host/name:tag or host/name@sha256:… in a registry. With driver fake, a folder with a runner program." example:"registry.example.com/linux:stable"`
	Labels           []string                  `yaml:"labels,omitempty" doc:"Labels that workflows name in runs-on, beside self-hosted and the guest's system and architecture, which are always published."`
	Group            string                    `yaml:"group,omitempty" doc:"Runner group by name. Empty: the default group."`
	Driver           string                    `yaml:"driver,omitempty" doc:"What runs the guests: qemu (Linux guests), tart (macOS guests) or fake (no guest at all: a process, for trying things out)." enum:"qemu,tart,fake"`
	GitHub           string                    `yaml:"github,omitempty" doc:"The name of an account under github.accounts. Empty: that of github itself."`
	Scope            string                    `yaml:"scope,omitempty" doc:"Where the runners register: owner/repository, organisation or enterprises/name." example:"acme/app"`
	Registration     runner.Way                `yaml:"registration,omitempty" doc:"How runners register. jit: GitHub does it and gives a just-in-time configuration. token: the runner program does it by itself (config.sh --ephemeral) with a registration token. auto: jit, or token where GitHub has no such configurations (Enterprise Server before 3.10)." enum:"auto,jit,token"`
	Runner           runner.Source             `yaml:"runner,omitempty" doc:"Which runner program a guest executes, where the image carries GitHub's own. host: the release that this host keeps, put into the guest at launch where the image's is older. image: the image's, and a warning where it is older than what GitHub serves. off: the image's." enum:"host,image,off"`
	CPUs             int                       `yaml:"cpus,omitempty" doc:"Processors of a guest. A macOS guest has 4 where the file says nothing."`
	Memory           Size                      `yaml:"memory,omitempty" doc:"Memory of a guest."`
	Disk             Size                      `yaml:"disk,omitempty" doc:"Grow the guest's disk to this size. Empty: as large as the image's."`
	Network          Network                   `yaml:"network,omitempty" doc:"What a guest can reach."`
	Tart             Tart                      `yaml:"tart,omitempty" doc:"What only guests under tart have. Among the defaults it is for the pools with driver tart."`
	Standby          int                       `yaml:"standby" doc:"How many runners wait for a job, beside those that execute one. For pools that several hosts share. Not beside scaleset."`
	ScaleSet         *ScaleSet                 `yaml:"scaleset,omitempty" doc:"Start runners for the jobs that GitHub assigns to a runner scale set, instead of keeping some on standby. One host listens to a set."`
	Max              int                       `yaml:"max,omitempty" doc:"How many runners at once. 0: as many as there are slots."`
	MaxJobTime       Duration                  `yaml:"max_job_time,omitempty" doc:"How long a job may take before its guest is taken away."`
	HoldAfterFailure Duration                  `yaml:"hold_after_failure,omitempty" doc:"Keep the guest of a failed job for so long, to look at it with tasuki ssh. 0: not at all."`
	Deadlines        map[runner.State]Duration `yaml:"deadlines,omitempty" doc:"How long a runner may stay in a state before it is given up. Keys are states."`
	Env              map[string]string         `yaml:"env,omitempty" doc:"Environment of the runner program, and so of every job." example:"HTTPS_PROXY: http://proxy.example.com:3128"`
	Files            []File                    `yaml:"files,omitempty" doc:"Files that are put into the guest before the runner starts: a CA, a proxy's configuration."`
	Hooks            Hooks                     `yaml:"hooks,omitempty" doc:"Scripts for the guest."`
	WorkFolder       string                    `yaml:"work_folder,omitempty" doc:"The runner's work folder in the guest."`
}

// ScaleSet is how a pool serves a runner scale set.
type ScaleSet struct {
	Name     string `yaml:"name,omitempty" doc:"Its name at GitHub, and one more label. It is found, or made. Empty: PREFIX-HOST-POOL. Two hosts must not share one." example:"mac-mini-3-ios"`
	Warm     int    `yaml:"warm,omitempty" doc:"How many runners wait beyond those for assigned jobs, so that a job begins at once."`
	Headroom int    `yaml:"headroom,omitempty" doc:"How many more wait where slots would be unused else. They give way to whoever needs the slot."`
}

// Network is what a guest can reach.
type Network struct {
	Mode     vm.NetworkMode `yaml:"mode,omitempty" doc:"internet: out, but to nothing on this host and to no other guest. isolated: the forwards and nothing else." enum:"internet,isolated"`
	Forwards []Forward      `yaml:"forwards,omitempty" doc:"Addresses of this host that an isolated guest can reach."`
	Allow    []string       `yaml:"allow,omitempty" doc:"IPv4 networks that a guest can reach beside what the mode says (driver tart)." example:"10.1.0.0/16"`
	Block    []string       `yaml:"block,omitempty" doc:"IPv4 networks that a guest cannot reach (driver tart)." example:"192.0.2.0/24"`
}

// Forward makes one address of the host's reachable from a guest.
type Forward struct {
	Guest string `yaml:"guest" doc:"What the guest connects to: an address in 10.0.2.0/24, and a port." example:"10.0.2.100:80"`
	Host  string `yaml:"host" doc:"Where it arrives, as seen from this host." example:"127.0.0.1:8080"`
}

// File is one file for the guest.
type File struct {
	Path string `yaml:"path" doc:"Where it goes in the guest. ~/ is the home of the image's user." example:"/usr/local/share/ca-certificates/acme.crt"`
	Text `yaml:",inline"`
	Mode Mode `yaml:"mode,omitempty" doc:"Permission bits, octal."`
}

// Hooks are scripts for the guest.
type Hooks struct {
	BeforeJob *Text `yaml:"before_job,omitempty" doc:"Run in the guest before the runner starts. A status other than 0 gives the guest up."`
	AfterJob  *Text `yaml:"after_job,omitempty" doc:"Run in the guest after the runner has ended."`
}

// Text is the content of a file or a script: one of the two keys.
type Text struct {
	Source  string  `yaml:"source,omitempty" doc:"A file on this host with the content. Relative: to the configuration's folder."`
	Content *string `yaml:"content,omitempty" doc:"The content itself."`

	data []byte
}

// Bytes returns the content; Load has read it.
func (t *Text) Bytes() []byte {
	if t == nil {
		return nil
	}
	return t.data
}
