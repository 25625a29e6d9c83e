#!/usr/bin/env bash
# Provides cert-manager for the tests: its controllers and its CA injector as one program (main.go), and its CRDs, at the
# version that go.mod pins.
#
# Prints one line on standard output, a folder that holds cert-manager and crds/; all else goes to standard error. They are
# built once for the same pins, into REACH_TEST_CACHE (by default reach/ in the user's cache folder): about two minutes on
# two cores when Go's own build cache is empty. The cache may be deleted at any time.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) || exit
title=cert-manager
# shellcheck source=../programs.sh
source "$here/../programs.sh"

compile() {
  local source unfinished
  source=$(cd "$here" && GOWORK=off go list -mod=readonly -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)
  # Before the program, whose presence says that all is there. What is in a module cache is read-only, and so is a copy.
  unfinished=$(mktemp -d "$folder/crds.unfinished.XXXXXX")
  cp -- "$source"/deploy/crds/*.yaml "$unfinished/"
  chmod -R u+w,a+rX "$unfinished"
  rm -rf -- "$folder/crds"
  mv -T -- "$unfinished" "$folder/crds"
  go_build "$here" "$2" . ""
}

folder=$(pinned_folder cert-manager "$here" "$here/build.sh" "$here/main.go")
build "$folder" cert-manager
printf '%s\n' "$folder"
