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

# shipped COMMAND ARGUMENT...: runs a command of Cargo with the profile, target and flags of what ships, into the folder
# $target_folder/$triple/dist.
shipped() {
  local cargo=${CARGO:-cargo} cargo_home=${CARGO_HOME:-$HOME/.cargo} library commit flags c_flags
  # The binary carries the list of what it was built from, 4 KB: nothing else in the image could tell a scanner.
  cargo_tool cargo-auditable 0.7.7
  target_folder=$("$cargo" metadata --locked --format-version 1 --no-deps | jq -r .target_directory)
  # Named even though it is this machine's own: only then do the flags not hold for build scripts and procedural macros,
  # which cannot be static, and only then does this build share no folder with, and undo nothing of, those of `cargo build`.
  triple=$(rustc -vV | sed -n 's/^host: //p')
  [[ $triple == *-linux-gnu ]] || fail "rustc builds for $triple: expected x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu"
  library=$(rustc --print sysroot)/lib/rustlib/src/rust
  commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
  flags=(
    -Ctarget-feature=+crt-static
    # Where the address of the program is added: bits instead of 24 bytes each.
    -Clink-arg=-Wl,-z,pack-relative-relocs
    "--remap-path-prefix=$PWD=/reach"
    "--remap-path-prefix=$target_folder=/target"
    "--remap-path-prefix=$cargo_home=/cargo"
    "--remap-path-prefix=$library=/rustc/$commit"
  )
  c_flags=("-ffile-prefix-map=$target_folder=/target" "-ffile-prefix-map=$cargo_home=/cargo")
  # C sources that name the time of their compilation get this one, whatever the commit: objects are not compiled anew for it.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") CFLAGS="${c_flags[*]}" SOURCE_DATE_EPOCH=0 \
    "$cargo" auditable "$1" --locked --profile dist --target "$triple" "${@:2}"
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
