#!/bin/sh
# Makes the stack image `berth-13` from Debian 13 packages: the root that apps are built and run on.
#
#   sudo deploy/stack/build.sh OUT.tar [PACKAGES.txt…]
#
# OUT.tar is a plain tar of one root file system; `berth stacks import berth-13 OUT.tar` makes an image of it.
# What is in it, and why, stands beside each package in packages.txt. What only some builds need (compilers,
# other interpreters, uv) is not here: packs install it as build steps, whose layers are shared. More lists of
# packages make a larger image with the same ground (tests/corpus does).
#
# Debian is fetched as this machine does: from the mirrors that its own apt sources name for Debian, or from
# mmdebstrap's defaults on a machine that has none.
set -eu

suite=trixie
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT.tar [PACKAGES.txt…]}
shift

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "making a root file system needs root; run it with sudo"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing; install it with: apt-get install mmdebstrap"

# URI of this machine's mirror for one of Debian's archives, by the label in its Release file.
mirror_of() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        sed -n "s/^Debian|$1|//p" | sort -u | head -n 1
}

packages=$(sed 's/#.*//' "$here/packages.txt" "$@" | tr -s ' \t\n' ',' | sed 's/^,//; s/,$//')

main=$(mirror_of Debian)
security=$(mirror_of Debian-Security)
set --
if [ -n "$main" ]; then
    set -- "deb $main $suite main" "deb $main $suite-updates main"
    if [ -n "$security" ]; then
        set -- "$@" "deb $security $suite-security main"
    fi
fi

# Written beside OUT and renamed, so that an interrupted run leaves no half image that a later one would take.
partial=$out.partial.tar
trap 'rm -f "$partial"' EXIT INT TERM

# The same packages must give the same bytes: every time stamp newer than this one is cut to it.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1735689600}
export SOURCE_DATE_EPOCH

# Java's and PostgreSQL's packages link manuals whose directories are not made with the manuals left out.
mmdebstrap --quiet --variant=minbase --format=tar \
    --include="$packages" \
    --essential-hook='mkdir -p "$1/usr/share/man/man1" "$1/usr/share/man/man7"' \
    --customize-hook='find "$1/usr/share/man" -depth -type d -empty -delete' \
    --skip=output/dev \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='APT::Sandbox::User "root"' \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/lintian/*' \
    --customize-hook='chroot "$1" groupadd --gid 1000 app' \
    --customize-hook='chroot "$1" useradd --uid 1000 --gid 1000 --home-dir /app --shell /bin/bash --no-create-home app' \
    --customize-hook='install -d -o 1000 -g 1000 -m 0755 "$1/app"' \
    --customize-hook='ln -sf python3 "$1/usr/bin/python"' \
    --customize-hook='printf "berth-13\n" > "$1/etc/berth-stack"' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/log/* "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf' \
    --customize-hook='rm -f "$1"/etc/passwd- "$1"/etc/group- "$1"/etc/shadow- "$1"/etc/gshadow- "$1"/etc/subuid- "$1"/etc/subgid-' \
    "$suite" "$partial" "$@"

# Device nodes belong to no image; the empty directory they are mounted over does.
tar --append --file="$partial" --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --mode=0755 \
    --no-recursion --transform='s#.*#./dev#' -C / dev
mv "$partial" "$out"
trap - EXIT INT TERM
