#!/usr/bin/env bash
# Installs the Debian packages that the boot of a machine needs beside those of ../node/packages.sh, those that are missing.
# Without root, or without apt-get, it says which they are and fails; tests/boot.rs then says what it cannot run.
# shellcheck source-path=SCRIPTDIR source=../packages.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../packages.sh" || exit

# A program of each package, and the package.
packages=(
  systemd-nspawn=systemd-container
  mmdebstrap=mmdebstrap
  # It checks what is downloaded.
  gpgv=gpgv
  /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
  docker-registry=docker-registry
)
install_packages "the boot of a machine" "${packages[@]}"
