#!/bin/sh
# extras.sh DIR writes what a package carries beside the program: completions
# and manual pages, made by the program itself. SOURCE_DATE_EPOCH dates them.
set -eu
cd "$(dirname "$0")/.."
dir=${1:?usage: extras.sh DIR}
rm -rf "$dir/completions" "$dir/man"
mkdir -p "$dir/completions" "$dir/man"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# A release builds for other machines; this one is for the machine it runs on.
env -u GOOS -u GOARCH CGO_ENABLED=0 scripts/go build -trimpath \
	-ldflags "-X github.com/mirego/tasuki/internal/cli.version=${VERSION:-}" -o "$tmp/tasuki" ./cmd/tasuki
for shell in bash zsh fish; do
	"$tmp/tasuki" completion "$shell" >"$dir/completions/tasuki.$shell"
done
"$tmp/tasuki" man "$dir/man"
