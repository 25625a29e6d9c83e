#!/usr/bin/env bash
# Provides a control plane of the oldest Kubernetes that the chart supports: kube-apiserver and kube-controller-manager at the
# version that go.mod pins.
#
# Prints one line on standard output, a folder with them beside the etcd and kubectl of ../build.sh; all else goes to standard
# error. They are built once for the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about
# ten minutes on two cores when Go's own build cache is empty. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="oldest control plane"
# shellcheck source-path=SCRIPTDIR source=../../programs.sh
source "$here/../../programs.sh"

compile() {
  go_build "$here" "$2" "k8s.io/kubernetes/cmd/$1" \
    "-X k8s.io/component-base/version.gitVersion=$(version_of "$here" k8s.io/kubernetes)"
}

newest=$("$here/../build.sh")
folder=$(pinned_folder control-plane-oldest "$here" "$here/build.sh")
build "$folder" kube-apiserver kube-controller-manager
for program in etcd kubectl; do
  ln -sfn -- "$newest/$program" "$folder/$program"
done
printf '%s\n' "$folder"
