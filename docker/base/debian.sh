#!/bin/sh
# A root file system with Python 3.11 from Debian bookworm's packages, signatures checked by apt: the stand-in for the
# official Python image where no registry answers.   usage: debian.sh ARCHIVE.tar PACKAGES.txt [ARCHITECTURE]
# PACKAGES.txt gets every package and its version. Uses the host's own Debian mirror if it has one, else Debian's.
set -eu
archive=$1 packages=$2 architecture=${3:-amd64}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg # not there on an Ubuntu that has mmdebstrap alone
if ! command -v mmdebstrap >/dev/null || [ ! -e "$keyring" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: mmdebstrap or Debian's keyring is not installed, and installing them needs root on Debian or Ubuntu; ask for: apt-get install mmdebstrap debian-archive-keyring" >&2
        exit 3
    fi
    echo "installing mmdebstrap and Debian's keyring with apt"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends mmdebstrap debian-archive-keyring
fi

# apt's proxy, where it is set for apt alone.
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)"
[ -z "$proxy" ] || export http_proxy="${http_proxy:-$proxy}"

sources=$(mktemp)
list=$(mktemp)
trap 'rm -f "$sources" "$list"' EXIT
apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's#^deb \(https\{0,1\}://[^@ ]*\) \(bookworm[a-z-]*\) main Debian$#deb \1 \2 main#p' | sort -u >"$sources" || true
# A host that is no Debian bookworm: mmdebstrap's own choice of mirrors.
if grep -q ' bookworm main$' "$sources"; then from=- && exec <"$sources"; else from=; fi

mmdebstrap --variant=apt --architectures="$architecture" --include=ca-certificates,python3 \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='chroot "$1" dpkg-query -W > '"$list" \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/resolv.conf "$1"/etc/hostname' \
    bookworm "$archive" $from
cp "$list" "$packages"
