#!/usr/bin/env bash
# Lists what the program in the image is built from, as CycloneDX: image/sbom.sh FILE
#
# Environment: CARGO.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" || exit

[[ $# == 1 ]] || fail "expected: image/sbom.sh FILE"
file=$(realpath -m -- "$1")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
cargo_tool cargo-cyclonedx 0.5.9

# It writes beside Cargo.toml, whatever the folder is called that is asked for.
name=reach-sbom-$$
trap 'rm -f -- "$name.json"' EXIT
cargo-cyclonedx cyclonedx --quiet --format json --no-build-deps \
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
