#!/usr/bin/env bash
# Provides the images that kubeadm wants for a control plane, under the names that it gives them, made of the programs of
# ../control-plane/build.sh and ../node/build.sh.
#
# Prints one line on standard output, the folder that holds their archives; all else goes to standard error. They are made
# once for the same programs, into REACH_TEST_CACHE (by default reach/ in the user's cache folder).
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="images of kubeadm"
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"
control_plane=$("$here/../control-plane/build.sh")
node=$("$here/../node/build.sh")

# files NAME: what the image of this name, without registry and version, is made of; first what it runs.
files() {
  local program libraries
  case $1 in
  kube-apiserver | kube-controller-manager | etcd) echo "$control_plane/$1=/usr/bin/$1" ;;
  kube-scheduler) echo "$node/$1=/usr/bin/$1" ;;
  kube-proxy)
    echo "$node/kube-proxy=/usr/local/bin/kube-proxy"
    PATH=$PATH:/usr/sbin:/sbin
    for program in {ip,ip6}tables{,-save,-restore}; do command -v "$program"; done
    # Matches and targets of rules are loaded when a rule has them.
    libraries=$(ldconfig -p | sed -n 's#.* => \(/.*\)/libxtables\.so\.[0-9]*$#\1#p' | head -n 1)
    echo "$libraries/xtables"
    ;;
  coredns/coredns) echo "$node/coredns=/coredns" ;;
  pause) echo "$node/pause=/pause" ;;
  *) fail "kubeadm wants an image $1, which nobody has thought of: add it to $here/images.sh" ;;
  esac
}

digest=$({ echo "$control_plane" "$node" && cat "${BASH_SOURCE[0]}" "$here/../node/image.sh"; } | sha256sum)
folder=$cache/images-${digest:0:16}
mkdir -p "$folder"
exec {lock}>"$folder/lock"
flock "$lock"
version=$("$node/kubeadm" version --output=short)
names=$("$node/kubeadm" config images list --kubernetes-version "$version")
while read -r name; do
  short=${name#*/}
  short=${short%:*}
  archive=$folder/${short//\//-}.tar
  if [[ -e $archive ]]; then continue; fi
  say "making $name"
  list=$(files "$short")
  mapfile -t files <<<"$list"
  # Only what is finished gets this name.
  "$here/../node/image.sh" "$name" "$archive" "${files[@]}" >&2
done <<<"$names"
printf '%s\n' "$folder"
