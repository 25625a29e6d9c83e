#!/usr/bin/env bash
# Provides what checks the chart: kubeconform and promtool, at the versions that go.mod pins, and the files of the modules
# in modules.txt: the APIs of several Kubernetes versions, and the CRDs of cert-manager, Cluster API and the Prometheus operator.
#
# Prints one line on standard output, a folder that holds kubeconform, promtool and files/; all else goes to standard
# error. They are built once for the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about
# four minutes on two cores when Go's own caches are empty. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title="chart checks"
# shellcheck source=../programs.sh
source "$here/../programs.sh"

compile() {
  case $1 in
  kubeconform) go_build "$here" "$2" github.com/yannh/kubeconform/cmd/kubeconform "" ;;
  # Without service discovery, which checks of rules do not need: it is most of the program.
  promtool) go_build "$here" "$2" github.com/prometheus/prometheus/cmd/promtool "" -tags remove_all_sd ;;
  esac
}

# files FOLDER: makes the folder with the files of the modules, whole or not at all.
files() {
  local unfinished module version checksum answer source
  if [[ -d $1 ]]; then return; fi
  unfinished=$(mktemp -d "$1.unfinished.XXXXXX")
  while read -r module version checksum; do
    say "fetching $module $version"
    answer=$(cd "$here" && GOWORK=off GOFLAGS=-mod=mod go mod download -json "$module@$version") || fail "cannot fetch $module: $answer"
    [[ $answer == *"\"Sum\": \"$checksum\""* ]] || fail "$module $version is not what modules.txt says: $answer"
    source=$(sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$answer")
    case $module in
    k8s.io/kubernetes) cp -- "$source/api/openapi-spec/swagger.json" "$unfinished/kubernetes-${version#v}.json" ;;
    github.com/cert-manager/cert-manager) cp -- "$source"/deploy/crds/cert-manager.io_{certificates,issuers}.yaml "$unfinished/" ;;
    sigs.k8s.io/cluster-api) cp -- "$source/core/config/crd/bases/runtime.cluster.x-k8s.io_extensionconfigs.yaml" "$unfinished/" ;;
    */prometheus-operator)
      cp -- "$source"/example/prometheus-operator-crd/monitoring.coreos.com_{prometheusrules,servicemonitors}.yaml "$unfinished/"
      ;;
    esac
  done < <(sed '/^#/d' "$here/modules.txt")
  # Module caches are read-only, and so are copies of their files.
  chmod -R u+w "$unfinished"
  # Another run may have been first.
  mv -T -- "$unfinished" "$1" 2>/dev/null || rm -rf -- "$unfinished"
  [[ -d $1 ]] || fail "cannot make $1"
}

folder=$(pinned_folder chart "$here" "$here/build.sh" "$here/modules.txt")
build "$folder" kubeconform promtool
files "$folder/files"
printf '%s\n' "$folder"
