#!/usr/bin/env bash
# Installs the Debian packages that a real node and a corporate proxy need, those that are missing. Without root, or
# without apt-get, it says which they are and fails; tests/cluster.rs then says what it cannot run.
set -euo pipefail

# A program of each package, and the package. Debian's sbin folders are not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
declare -A packages=(
  [runc]=runc
  [/usr/lib/cni/bridge]=containernetworking-plugins
  [iptables]=iptables
  # Debian's squid conflicts with it and does as well.
  [squid]=squid-openssl
  [ip]=iproute2
  [nsenter]=util-linux
  # What the images of test pods are made of.
  [curl]=curl
  [wget]=wget
  [/usr/bin/python3]=python3
)

missing=()
for program in "${!packages[@]}"; do
  command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
((${#missing[@]})) || exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort)
say() { printf 'packages: %s\n' "$*" >&2; }
if ((EUID)) || ! command -v apt-get >/dev/null; then
  say "a real node needs these Debian packages, which are not installed: ${missing[*]}"
  say "as root: apt-get install --no-install-recommends ${missing[*]}"
  exit 1
fi

# Installed, not started: the tests run a squid of their own, and nobody asked for one that serves this machine.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
squid=$(command -v squid) || squid=
say "installing ${missing[*]}"
install=(apt-get install --yes --no-install-recommends --option DPkg::Lock::Timeout=300 "${missing[@]}")
export DEBIAN_FRONTEND=noninteractive
# The lists of a fresh machine are empty or old.
"${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
# Nor shall it start with the machine.
if [[ -z $squid ]] && command -v systemctl >/dev/null; then systemctl disable squid >&2 || true; fi
