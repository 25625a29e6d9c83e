# What the scripts share that make images, here and for the tests. Sourced by them.
# shellcheck shell=bash disable=SC2034 # used by who sources it
set -euo pipefail
shopt -s inherit_errexit

fail() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

# cargo_tool NAME VERSION: installs a command of Cargo unless there is one, here or on the PATH that it then is on.
cargo_tool() {
  local tools=${REACH_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/reach}/tools
  PATH=$PATH:$tools/bin
  command -v "$1" >/dev/null || "${CARGO:-cargo}" install --locked --quiet --root "$tools" "$1@$2" >&2
}

# begin ARCHIVE: makes ready for an image layout in $work/layout, with the folder $blobs. What is done then depends on
# nobody's settings.
begin() {
  export LC_ALL=C TZ=UTC
  umask 022
  mkdir -p -- "$(dirname -- "$1")"
  work=$(mktemp -d -- "$1.XXXXXX")
  trap 'rm -rf -- "$work"' EXIT
  blobs=$work/layout/blobs/sha256
  mkdir -p "$blobs"
}

digest() { sha256sum <"$1" | cut -d ' ' -f 1; }

# blob FILE TYPE: moves the file to its place among the blobs and prints its descriptor.
blob() {
  local digest size
  digest=$(digest "$1")
  size=$(stat -c %s -- "$1")
  mv -- "$1" "$blobs/$digest"
  jq -cn --arg type "application/vnd.oci.image.$2" --arg digest "sha256:$digest" --argjson size "$size" \
    '{mediaType: $type, digest: $digest, size: $size}'
}

# pack FOLDER TIME FILE...: a tar of the files, in this order, that tells nothing of who made it.
pack() {
  tar --create --format=ustar --directory="$1" --owner=0 --group=0 --numeric-owner --mtime="$2" --no-recursion -- "${@:3}"
}

# finish ARCHIVE TIME ENTRY FILE...: writes the archive of the layout, with the entry as its index and these files beside it.
finish() {
  printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
  jq -cj '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [.]}' \
    <<<"$3" >"$work/layout/index.json"
  chmod -R u=rwX,go=rX "$work/layout"
  pack "$work/layout" "$2" oci-layout index.json "${@:4}" >"$work/archive.tar"
  # In one step, so that no reader sees half of it.
  mv -- "$work/archive.tar" "$1"
}
