# What the scripts share that install Debian packages for the tests. Sourced by them.
# shellcheck shell=bash
set -euo pipefail

# install_packages WHO PROGRAM=PACKAGE...: installs the packages whose programs are missing. Without root, or without
# apt-get, it says which they are, for whom, and fails.
install_packages() {
  local who=$1 pair missing=() policy=/usr/sbin/policy-rc.d install
  shift
  # Debian's sbin folders are not on every user's PATH.
  PATH=$PATH:/usr/sbin:/sbin
  for pair in "$@"; do
    if [[ -e ${pair%%=*} ]]; then continue; fi
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  ((${#missing[@]})) || return 0

  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  say() { printf 'packages: %s\n' "$*" >&2; }
  if ((EUID)) || ! command -v apt-get >/dev/null; then
    say "$who needs these Debian packages, which are not installed: ${missing[*]}"
    say "as root: apt-get install --no-install-recommends ${missing[*]}"
    return 1
  fi

  # Installed, not started: the tests run servers of their own, and nobody asked for some that serve this machine.
  if [[ ! -e $policy ]]; then
    # shellcheck disable=SC2064 # its name as it is now
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  say "installing ${missing[*]}"
  install=(apt-get install --yes --no-install-recommends --option DPkg::Lock::Timeout=300 "${missing[@]}")
  export DEBIAN_FRONTEND=noninteractive
  # The lists of a fresh machine are empty or old.
  "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
  # Nor shall they start with the machine.
  if command -v systemctl >/dev/null; then
    for package in "${missing[@]}"; do
      case $package in
      squid-openssl) systemctl disable squid >&2 || true ;;
      docker-registry) systemctl disable docker-registry >&2 || true ;;
      esac
    done
  fi
}
