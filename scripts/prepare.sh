#!/bin/sh
# Says what is missing on this machine for the build, the demo and the tests, and
# installs it: packages by apt-get (through sudo unless root), Go for this user
# alone. It asks nothing but sudo's password, and that on a terminal only.
# "prepare.sh demo" leaves out what only the tests need.
set -eu
for_what=${1:-tests}
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/golib.sh
. "$here/golib.sh"

say() { echo "prepare: $*"; }
die() {
	echo "prepare: $*" >&2
	exit 2
}
# Debian leaves these out of an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin
export PATH

# need COMMAND PACKAGE REASON notes a package whose command is missing.
missing=
need() {
	command -v "$1" >/dev/null 2>&1 && return
	say "$1 is missing: $3"
	missing="$missing $2"
}

# become_root COMMAND... makes sure that as_root works, or ends with the command
# that root shall run by hand.
become_root() {
	[ "$(id -u)" != 0 ] || return 0
	command -v sudo >/dev/null 2>&1 || die "there is no sudo here; as root, run: $*"
	sudo -n true 2>/dev/null && return
	[ -t 0 ] || die "sudo wants a password, and there is no terminal to ask on; as root, run: $*"
	say "sudo asks for your password, to run: $*"
	sudo -v || die "sudo does not let $(id -un) become root; as root, run: $*"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi </dev/null
}

# apt_get says nothing but warnings unless it fails: its hundreds of lines hide
# what is said here.
apt_get() {
	log=$(mktemp)
	status=0
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1 || status=$?
	if [ "$status" = 0 ]; then
		grep '^[WE]:' "$log" >&2 || true
	else
		cat "$log" >&2
	fi
	rm -f "$log"
	return "$status"
}

# no_services keeps Prometheus and Alertmanager from running as services of this
# machine, now and after a reboot: tests want the programs alone. A service
# that somebody has is left as it is.
no_services() {
	for unit in prometheus prometheus-alertmanager; do
		case " $missing " in *" $unit "*) ;; *) continue ;; esac
		[ ! -e "/etc/systemd/system/$unit.service" ] || continue
		say "the service $unit is masked; for one of yours: systemctl unmask $unit"
		as_root mkdir -p /etc/systemd/system
		as_root ln -s /dev/null "/etc/systemd/system/$unit.service"
	done
}

install_packages() {
	by_hand="apt-get update && apt-get install --no-install-recommends$missing"
	become_root "$by_hand"
	say "installing$missing"
	apt_get update || die "apt-get cannot read its package lists (above)"
	no_services
	# shellcheck disable=SC2086 # a list of packages
	apt_get install --no-install-recommends $missing ||
		die "apt-get cannot install this (above); once it can, as root: $by_hand"
}

check_packages() {
	case $(uname -m) in
	x86_64) need qemu-system-x86_64 "qemu-system-x86" "it runs the guests" ;;
	aarch64) need qemu-system-aarch64 "qemu-system-arm qemu-efi-aarch64" "it runs the guests" ;;
	*) die "no guests run on $(uname -m) so far; x86_64 and aarch64 do" ;;
	esac
	need qemu-img qemu-utils "it makes a guest's disk a clone of the image's"
	need mmdebstrap mmdebstrap "it builds the guest image"
	need mke2fs e2fsprogs "it writes the guest image's disk"
	need mount mount "it mounts what mke2fs copies"
	need git git "a checkout in a job brings what git tracks"
	if [ "$for_what" != demo ]; then
		need passt passt "it gives guests the internet and nothing of the host"
		need plistutil libplist-utils "tests let it read the service file for macOS"
		need ssh-keygen openssh-client "tests compare our SSH with it"
		if [ "$(uname -m)" = x86_64 ] && [ ! -e /usr/share/OVMF/OVMF_CODE_4M.fd ] && [ ! -e /usr/share/OVMF/OVMF_CODE.fd ]; then
			say "UEFI is missing: guests of cloud images boot by it"
			missing="$missing ovmf"
		fi
		need promtool prometheus "tests let it check the alerts, and let it scrape agents"
		need amtool prometheus-alertmanager "tests let it take the alerts"
		need skopeo skopeo "tests push to our registry and pull from it with it"
		need chromium chromium "tests look at the console with it"
		need node nodejs "it drives the browser of the console's tests"
		need npm npm "it installs what drives that browser"
		need ansible-playbook ansible-core "tests let it read the plays of examples/ansible"
	fi
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || {
		say "Debian's keys are missing: the guest image is made of Debian's packages"
		missing="$missing debian-archive-keyring"
	}
	[ -e /etc/ssl/certs/ca-certificates.crt ] || {
		say "the certificate authorities are missing: downloads are checked against them"
		missing="$missing ca-certificates"
	}
	if [ "$(id -u)" != 0 ]; then
		need newuidmap uidmap "an ordinary user builds the guest image in a user namespace"
	fi
	if ! find_go; then
		command -v curl >/dev/null 2>&1 || need wget wget "it downloads Go"
		need unzip unzip "it unpacks Go"
	fi
}

check_user() {
	[ "$(id -u)" != 0 ] || return 0
	me=$(id -un)
	for file in /etc/subuid /etc/subgid; do
		grep -q -e "^$me:" -e "^$(id -u):" "$file" 2>/dev/null && continue
		say "user $me has no range of ids in $file: a user namespace needs one"
		set -- usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$me"
		become_root "$*"
		as_root "$@" || die "$me got no range of ids (above); as root, run: $*"
		break
	done
}

download() { # URL FILE
	if command -v curl >/dev/null 2>&1; then
		curl -fsSL --retry 2 --connect-timeout 15 -o "$2" "$1"
	else
		wget -q --tries=3 --connect-timeout=15 -O "$2" "$1"
	fi
}

# go_from_dl unpacks the release archive, whose digest go.dev publishes beside it.
go_from_dl() { # PLATFORM TMPDIR
	site=${TASUKI_GO_DL:-https://go.dev/dl}
	file=go$go_version.$1.tar.gz
	download "$site/?mode=json&include=all" "$2/index.json" || return 1
	want=$(tr -d ' \n\t' <"$2/index.json" | tr '{' '\n' | grep -F "\"filename\":\"$file\"" | sed -n 's/.*"sha256":"\([0-9a-f]\{64\}\)".*/\1/p')
	[ -n "$want" ] || return 1
	download "$site/$file" "$2/go.tar.gz" || return 1
	echo "$want  $2/go.tar.gz" | sha256sum -c --status || die "$site/$file is not what it should be"
	mkdir "$2/out" && tar -C "$2/out" --strip-components=1 -xzf "$2/go.tar.gz"
}

# go_from_proxy unpacks the same release as the module proxy has it.
go_from_proxy() { # PLATFORM TMPDIR
	want=$(go_zip_sha256 "$1") || die "no Go for $1 is known here; install Go $(go_needed) or newer from https://go.dev/dl"
	proxies=$(echo "${GOPROXY:-https://proxy.golang.org}" | tr ',|' '  ')
	for proxy in $proxies; do
		case $proxy in http*) ;; *) continue ;; esac
		version=v0.0.1-go$go_version.$1
		download "${proxy%/}/golang.org/toolchain/@v/$version.zip" "$2/go.zip" || continue
		echo "$want  $2/go.zip" | sha256sum -c --status || die "Go $go_version from $proxy is not what it should be"
		unzip -q "$2/go.zip" -d "$2/unzipped"
		mv "$2/unzipped/golang.org/toolchain@$version" "$2/out"
		chmod +x "$2"/out/bin/* "$2"/out/pkg/tool/*/* # zip files of modules carry no modes
		return
	done
	return 1
}

install_go() {
	case $(uname -m) in x86_64) platform=linux-amd64 ;; *) platform=linux-arm64 ;; esac
	say "Go $(go_needed) or newer is missing: it builds Tasuki"
	say "installing Go $go_version (about 70 MB) for this user alone, into $go_cache"
	mkdir -p "$(dirname "$go_cache")"
	tmp=$(mktemp -d "$go_cache.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM
	if ! go_from_dl "$platform" "$tmp" 2>"$tmp/dl.log"; then
		say "cannot get it from go.dev; asking the Go module proxy"
		go_from_proxy "$platform" "$tmp" ||
			die "cannot download Go; install $(go_needed) or newer from https://go.dev/dl and try again"
	fi
	rm -rf "$go_cache"
	mv "$tmp/out" "$go_cache"
	find_go || die "the Go that was installed into $go_cache does not run"
}

# install_modules brings what package-lock.json names, for the console's tests.
install_modules() {
	web=$here/../internal/console/webtest
	kept=$web/node_modules/.package-lock.json
	[ ! -e "$kept" ] || [ "$web/package-lock.json" -nt "$kept" ] || return 0
	say "installing what drives the browser of the console's tests (18 MB, npm)"
	(cd "$web" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) ||
		die "npm cannot install it (above); once it can: cd internal/console/webtest && npm ci"
}

case $(uname -s) in
Linux) ;;
Darwin)
	if [ "$for_what" = demo ]; then
		case $(uname -m) in arm64) qemu="qemu-system-aarch64" ;; *) qemu="qemu-system-x86_64" ;; esac
		for program in "$qemu" qemu-img; do
			command -v "$program" >/dev/null 2>&1 || die "$program is missing: it runs the guests. Install it: brew install qemu"
		done
	fi
	find_go || die "Go $(go_needed) or newer is missing; get it from https://go.dev/dl"
	say "everything is here (Go $(go_version_of "$found_go"))"
	exit 0
	;;
*) die "no preparation for $(uname -s); Linux and macOS have one" ;;
esac

check_packages
if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 ||
		die "this is no Debian or Ubuntu; install what these of Debian's packages hold, then try again:$missing"
	install_packages
fi
check_user
find_go || install_go
[ "$for_what" = demo ] || install_modules
say "everything is here (Go $(go_version_of "$found_go"))"
