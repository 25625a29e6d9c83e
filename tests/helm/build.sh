#!/usr/bin/env bash
# Provides Helm 4 and Helm 3 for the tests, at the versions that v4/go.mod and v3/go.mod pin.
#
# Prints one line on standard output, a folder that holds both, as helm (which is Helm 4) and helm3; all else goes to
# standard error. They are built once for the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache
# folder): about five minutes on two cores when Go's own build cache is empty. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title=helm
# shellcheck source-path=SCRIPTDIR source=../programs.sh
source "$here/../programs.sh"

compile() {
  local client minor
  case $1 in
  helm)
    go_build "$here/v4" "$2" helm.sh/helm/v4/cmd/helm \
      "-X helm.sh/helm/v4/internal/version.version=$(version_of "$here/v4" helm.sh/helm/v4)"
    ;;
  helm3)
    # As its own Makefile does: it cannot ask for the version of Kubernetes that it is made for, 1.x of its client 0.x.
    client=$(version_of "$here/v3" k8s.io/client-go)
    minor=${client#v0.}
    minor=${minor%%.*}
    go_build "$here/v3" "$2" helm.sh/helm/v3/cmd/helm \
      "-X helm.sh/helm/v3/internal/version.version=$(version_of "$here/v3" helm.sh/helm/v3)$(
        printf ' -X helm.sh/helm/v3/pkg/%s.k8sVersionMajor=1' lint/rules chartutil
        printf " -X helm.sh/helm/v3/pkg/%s.k8sVersionMinor=$minor" lint/rules chartutil
      )"
    ;;
  esac
}

folder=$(pinned_folder helm "$here/v4" "$here"/v3/go.{mod,sum} "$here/build.sh")
build "$folder" helm helm3
printf '%s\n' "$folder"
