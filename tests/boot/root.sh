#!/usr/bin/env bash
# Provides the file system of a Debian machine with systemd and cloud-init, as an image of a cloud has it: what is booted in
# the tests. Kubernetes and containerd are not in it; machine/ has the files that an image builder would add.
#
# Prints one line on standard output, its folder; all else goes to standard error. It is made once for the same version of
# this script and of Debian, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about two minutes. The
# packages come from where this machine has its own. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="root"
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"

release=bookworm
packages=(
  # The machine itself.
  systemd systemd-sysv dbus libpam-systemd locales procps kmod sudo python3 cloud-init
  # What containerd, kubelet and kubeadm call.
  runc containernetworking-plugins iptables iproute2 conntrack ethtool socat mount
  # What people call, and what it trusts.
  curl ca-certificates
  # What reads files that reach writes: whether Debian's own machines have it or not.
  python3-dnf
)

digest=$(sha256sum <"${BASH_SOURCE[0]}")
folder=$cache/root-${digest:0:16}
if [[ ! -e $folder/root ]]; then
  ((!EUID)) || fail "root owns what is in it: call this as root"
  for tool in mmdebstrap apt-get flock; do
    command -v "$tool" >/dev/null || fail "$tool is not installed: $here/packages.sh installs what is needed"
  done
  mkdir -p "$folder"
  exec {lock}>"$folder/lock"
  flock "$lock"
fi
if [[ ! -e $folder/root ]]; then
  # This machine may have another release of Debian, and packages of others.
  sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$release" '
      $2 == release || $2 == release "-updates" || $2 == release "-security" {
        print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $1, $2, $3
      }')
  [[ -n $sources ]] || fail "apt of this machine has no source of Debian $release: add one to /etc/apt/sources.list.d"
  say "making a Debian $release with ${packages[*]}"
  rm -rf -- "$folder/unfinished"
  mmdebstrap --mode=root --variant=minbase --format=directory --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt=force-unsafe-io "$release" "$folder/unfinished" - <<<"$sources" >&2 || fail "cannot make it"
  # Nothing of this machine's is for that one.
  rm -f -- "$folder"/unfinished/etc/{resolv.conf,hostname} "$folder"/unfinished/etc/apt/sources.list
  # Only what is finished gets this name.
  mv -- "$folder/unfinished" "$folder/root"
fi
printf '%s\n' "$folder/root"
