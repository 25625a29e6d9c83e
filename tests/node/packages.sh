#!/usr/bin/env bash
# Installs the Debian packages that a real node and a corporate proxy need, those that are missing. Without root, or
# without apt-get, it says which they are and fails; tests/cluster.rs then says what it cannot run.
# shellcheck source-path=SCRIPTDIR source=../packages.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../packages.sh" || exit

# A program of each package, and the package.
packages=(
  runc=runc
  /usr/lib/cni/bridge=containernetworking-plugins
  iptables=iptables
  # Debian's squid conflicts with it and does as well.
  squid=squid-openssl
  ip=iproute2
  nsenter=util-linux
  # What the images of test pods are made of.
  curl=curl
  wget=wget
  /usr/bin/python3=python3
)
install_packages "a real node" "${packages[@]}"
