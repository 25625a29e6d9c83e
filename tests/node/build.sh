#!/usr/bin/env bash
# Provides the programs that make a real node of a machine, and the rest of a cluster, for the tests: kubelet, kubeadm,
# kube-proxy and kube-scheduler (at the versions that ../control-plane/go.mod pins), containerd, containerd-shim-runc-v2 and ctr
# (containerd/go.mod), coredns (coredns/go.mod) and pause.
#
# Prints one line on standard output, the folder that holds them; all else goes to standard error. They are built once for
# the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about eight minutes on two cores
# after the control plane's programs. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title=node
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"
kubernetes=$here/../control-plane

compile() {
  local program=$1 file=$2 version major minor
  case $program in
  kubelet | kubeadm | kube-proxy | kube-scheduler)
    version=$(version_of "$kubernetes" k8s.io/kubernetes)
    # kubeadm compares the numbers themselves.
    IFS=. read -r major minor _ <<<"${version#v}"
    go_build "$kubernetes" "$file" "k8s.io/kubernetes/cmd/$program" \
      "$(printf -- '-X k8s.io/component-base/version.%s ' "gitVersion=$version" "gitMajor=$major" "gitMinor=$minor")"
    ;;
  containerd | containerd-shim-runc-v2 | ctr)
    version=$(version_of "$here/containerd" github.com/containerd/containerd/v2)
    # Without the snapshotters for other file systems, and what they link to.
    go_build "$here/containerd" "$file" "github.com/containerd/containerd/v2/cmd/$program" \
      "-X github.com/containerd/containerd/v2/version.Version=$version" -tags "no_btrfs no_devmapper no_zfs"
    ;;
  coredns | pause)
    go_build "$here/$program" "$file" . ""
    ;;
  esac
}

folder=$(pinned_folder node "$here/containerd" "$here"/coredns/{go.mod,go.sum,main.go} "$here"/pause/{go.mod,main.go} \
  "$kubernetes"/go.{mod,sum} "$here/build.sh")
build "$folder" kubelet kubeadm kube-proxy kube-scheduler containerd containerd-shim-runc-v2 ctr coredns pause
printf '%s\n' "$folder"
