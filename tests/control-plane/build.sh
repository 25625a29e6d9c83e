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
set -euo pipefail
shopt -s inherit_errexit

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${REACH_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set REACH_TEST_CACHE}/.cache}/reach}

declare -A package=(
  [etcd]=go.etcd.io/etcd/server/v3
  [kube-apiserver]=k8s.io/kubernetes/cmd/kube-apiserver
  [kube-controller-manager]=k8s.io/kubernetes/cmd/kube-controller-manager
  [kubectl]=k8s.io/kubernetes/cmd/kubectl
)

say() { printf 'control plane: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# has FOLDER PROGRAM...: whether the folder has all the programs.
has() {
  local folder=$1 program
  shift
  for program in "$@"; do
    [[ -f $folder/$program && -x $folder/$program ]] || return 1
  done
}

# The cache folder for the pins, this script and the installed Go, which all shape the programs.
pinned_folder() {
  local wanted found digest
  wanted=$(sed -n 's/^go //p' "$here/go.mod")
  command -v go >/dev/null ||
    fail "the programs are built with Go, which is not installed: install Go $wanted or newer, or set KUBEBUILDER_ASSETS"
  # Asked from the module's folder, a Go that may fetch newer toolchains answers with the one it will build with.
  found=$(cd "$here" && GOWORK=off go env GOVERSION)
  found=${found#go}
  [[ $(printf '%s\n' "$wanted" "${found%% *}" | sort -V | head -n 1) == "$wanted" ]] ||
    fail "Go $found is too old: install Go $wanted or newer, or set KUBEBUILDER_ASSETS"
  digest=$({ cat "$here"/go.mod "$here"/go.sum "$here"/build.sh && echo "$found"; } | sha256sum)
  echo "$cache/control-plane-${digest:0:16}"
}

# build FOLDER PROGRAM...: builds those that the folder lacks. Only finished programs get their final name, so an
# interrupted build leaves nothing that looks complete, and the next one goes on where it ended.
build() {
  local folder=$1 kubernetes program lock
  shift
  command -v flock >/dev/null || fail "flock is not installed: install util-linux"
  mkdir -p "$folder"
  exec {lock}>"$cache/control-plane.lock"
  if ! flock --nonblock "$lock"; then
    say "waiting for another build to end"
    flock "$lock"
  fi
  kubernetes=$(sed -n 's/^\tk8s\.io\/kubernetes \(v[^ ]*\).*/\1/p' "$here/go.mod")
  for program in "$@"; do
    if has "$folder" "$program"; then continue; fi
    say "building $program"
    (cd "$here" && GOWORK=off GOOS='' GOARCH='' CGO_ENABLED=0 go build -mod=readonly -trimpath \
      -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes" \
      -o "$folder/$program.unfinished" "${package[$program]}") >&2 || fail "cannot build $program"
    mv -- "$folder/$program.unfinished" "$folder/$program"
  done
  exec {lock}>&-
}

if [[ -z ${KUBEBUILDER_ASSETS:-} ]]; then
  folder=$(pinned_folder)
  programs=(etcd kube-apiserver kubectl kube-controller-manager)
  has "$folder" "${programs[@]}" || build "$folder" "${programs[@]}"
elif ! has "$KUBEBUILDER_ASSETS" kube-apiserver etcd kubectl; then
  fail "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS does not hold kube-apiserver, etcd and kubectl"
elif has "$KUBEBUILDER_ASSETS" kube-controller-manager; then
  folder=$(cd -- "$KUBEBUILDER_ASSETS" && pwd)
else
  # One folder for all four: links to what is there, beside what is built.
  pinned=$(pinned_folder)
  has "$pinned" kube-controller-manager || build "$pinned" kube-controller-manager
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
