#!/usr/bin/env bash
# Lists what the program in the image is built from, as CycloneDX: image/sbom.sh FILE
#
# Environment: CARGO.
set -euo pipefail
shopt -s inherit_errexit

[[ $# == 1 ]] || { echo "image: expected: image/sbom.sh FILE" >&2; exit 1; }
file=$(realpath -m -- "$1")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
tools=${REACH_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/reach}/tools
command -v cargo-cyclonedx >/dev/null || [[ -x $tools/bin/cargo-cyclonedx ]] ||
  "${CARGO:-cargo}" install --locked --quiet --root "$tools" cargo-cyclonedx@0.5.9 >&2

# It writes beside Cargo.toml, whatever the folder is called that is asked for.
name=reach-sbom-$$
trap 'rm -f -- "$name.json"' EXIT
PATH="$PATH:$tools/bin" cargo-cyclonedx cyclonedx --quiet --format json --no-build-deps \
  --target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename "$name" >&2
mkdir -p -- "$(dirname -- "$file")"
# No crate brings the C library, which is linked in; and no reader has this folder.
jq --arg glibc "$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" --arg folder "$PWD" '
  .components += [{
    type: "library",
    "bom-ref": "glibc@\($glibc)",
    name: "glibc",
    version: $glibc,
    licenses: [{expression: "LGPL-2.1-or-later"}],
    purl: "pkg:generic/glibc@\($glibc)"
  }] |
  walk(if type == "string" then split($folder) | join("/reach") else . end)' "$name.json" >"$file.unfinished"
mv -- "$file.unfinished" "$file"
