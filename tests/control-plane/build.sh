#!/usr/bin/env bash
# Provides the programs of a real Kubernetes control plane for the tests: kube-apiserver, etcd, kubectl and
# kube-controller-manager, at the versions that go.mod pins.
#
# Prints one line on standard output, the folder that holds them; all else goes to standard error. In order of preference:
#   1. KUBEBUILDER_ASSETS, when set: a folder with kube-apiserver, etcd and kubectl (the convention of envtest). A missing
#      kube-controller-manager is built.
#   2. The programs built earlier for the same pins, in REACH_TEST_CACHE (by default reach/ in the user's cache folder).
#   3. A build into that cache: about ten minutes on two cores when Go's own build cache is empty.
# The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="control plane"
instead="set KUBEBUILDER_ASSETS"
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"

declare -A package=(
  [etcd]=go.etcd.io/etcd/server/v3
  [kube-apiserver]=k8s.io/kubernetes/cmd/kube-apiserver
  [kube-controller-manager]=k8s.io/kubernetes/cmd/kube-controller-manager
  [kubectl]=k8s.io/kubernetes/cmd/kubectl
)

compile() {
  go_build "$here" "$2" "${package[$1]}" \
    "-X k8s.io/component-base/version.gitVersion=$(version_of "$here" k8s.io/kubernetes)"
}

if [[ -z ${KUBEBUILDER_ASSETS:-} ]]; then
  folder=$(pinned_folder control-plane "$here" "$here/build.sh")
  build "$folder" etcd kube-apiserver kubectl kube-controller-manager
elif ! has "$KUBEBUILDER_ASSETS" kube-apiserver etcd kubectl; then
  fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS does not hold kube-apiserver, etcd and kubectl"
elif has "$KUBEBUILDER_ASSETS" kube-controller-manager; then
  folder=$(cd -- "$KUBEBUILDER_ASSETS" && pwd)
else
  # One folder for all four: links to what is there, beside what is built.
  pinned=$(pinned_folder control-plane "$here" "$here/build.sh")
  build "$pinned" kube-controller-manager
  assets=$(cd -- "$KUBEBUILDER_ASSETS" && pwd)
  digest=$(sha256sum <<<"$assets")
  folder=$pinned-with-${digest:0:16}
  mkdir -p "$folder"
  for program in etcd kube-apiserver kubectl; do
    [[ -e $folder/$program ]] || ln -sfn -- "$assets/$program" "$folder/$program"
  done
  [[ -e $folder/kube-controller-manager ]] ||
    ln -sfn -- "$pinned/kube-controller-manager" "$folder/kube-controller-manager"
fi
printf '%s\n' "$folder"
