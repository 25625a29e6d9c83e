#!/usr/bin/env bash
# Provides Cluster API for the tests: its core, kubeadm bootstrap and kubeadm control-plane controllers with their CRDs and
# webhook manifests, and clusterctl, at the version that go.mod pins; and Ignition's validator (ignition/go.mod).
#
# Prints one line on standard output, a folder that holds core, bootstrap, control-plane, clusterctl, ignition-validate and
# manifests/{core,bootstrap,control-plane}/{crds/,webhooks.yaml}; all else goes to standard error. They are built once for
# the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about four minutes on two cores when
# Go's own build cache is empty. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="Cluster API"
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"

declare -A path=(
  [core]=core
  [bootstrap]=bootstrap/kubeadm
  [control-plane]=controlplane/kubeadm
  [clusterctl]=cmd/clusterctl
)

compile() {
  local program=$1 file=$2 version major minor
  if [[ $program == ignition-validate ]]; then
    go_build "$here/ignition" "$file" github.com/coreos/ignition/v2/validate \
      "-X github.com/coreos/ignition/v2/internal/version.Raw=$(version_of "$here/ignition" github.com/coreos/ignition/v2)"
    return
  fi
  # Before the program, whose presence says that all is there.
  if [[ $program != clusterctl ]]; then manifests "$program"; fi
  version=$(version_of "$here" sigs.k8s.io/cluster-api)
  IFS=. read -r major minor _ <<<"${version#v}"
  go_build "$here" "$file" "sigs.k8s.io/cluster-api/${path[$program]}" "$(
    printf ' -X sigs.k8s.io/cluster-api/version.%s' "gitVersion=$version" "gitMajor=$major" "gitMinor=$minor"
  )"
}

# manifests PROGRAM: copies what the API server has to know of a program, whole or not at all.
manifests() {
  local source unfinished target=$folder/manifests/$1
  source=$(cd "$here" && GOWORK=off go list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/cluster-api)/${path[$1]}/config
  mkdir -p "$folder/manifests"
  unfinished=$(mktemp -d "$target.unfinished.XXXXXX")
  mkdir "$unfinished/crds"
  cp -- "$source"/crd/bases/*.yaml "$unfinished/crds/"
  cp -- "$source/webhook/manifests.yaml" "$unfinished/webhooks.yaml"
  # What is in a module cache is read-only, and so is a copy.
  chmod -R u+w,a+rX "$unfinished"
  rm -rf -- "$target"
  mv -T -- "$unfinished" "$target"
}

folder=$(pinned_folder cluster-api "$here" "$here"/ignition/go.{mod,sum} "$here/build.sh")
build "$folder" core bootstrap control-plane clusterctl ignition-validate
printf '%s\n' "$folder"
