# shellcheck shell=sh
# What scripts/go and scripts/prepare.sh both know of Go. Sourced, with the folder
# of these scripts in $here.
: "${here:?}"

# The Go that is installed where none is new enough. Its zip files in the module
# proxy never change; their digests were taken from a download that the checksum
# database vouches for:
# go mod download -json golang.org/toolchain@v0.0.1-goVERSION.OS-ARCH
go_version=1.26.8
go_zip_sha256() {
	case $1 in
	linux-amd64) echo 30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7 ;;
	linux-arm64) echo 02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99 ;;
	*) return 1 ;;
	esac
}

go_cache=${XDG_CACHE_HOME:-$HOME/.cache}/tasuki/go-$go_version

# go_needed prints the version of go.mod's go line.
go_needed() {
	sed -n 's/^go //p' "$here/../go.mod"
}

# version_at_least HAVE WANT compares versions such as 1.26.8; a pre-release
# (1.27rc1) counts as its release.
version_at_least() {
	printf '%s %s\n' "$1" "$2" | awk '{
		split($1, a, /[^0-9]+/); split($2, b, /[^0-9]+/)
		for (i = 1; i <= 3; i++) if (a[i] + 0 != b[i] + 0) exit a[i] + 0 < b[i] + 0
	}'
}

# go_version_of prints the version of a go command itself, whatever go.mod asks.
go_version_of() {
	(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) | sed 's/^go//'
}

# find_go sets found_go to a go command that is new enough.
find_go() {
	for found_go in "$(command -v go || true)" /usr/local/go/bin/go "$go_cache/bin/go"; do
		[ -x "$found_go" ] || continue
		if version_at_least "$(go_version_of "$found_go")" "$(go_needed)"; then
			return 0
		fi
	done
	found_go=
	return 1
}
