#!/usr/bin/env bash
# Builds the container image of this folder's source for this machine's architecture and prints where it is.
#
# The binary is linked statically against glibc, as a static-pie, and knows no path of the machine it was built on. It needs
# no file of an operating system: since version 2.34, glibc has in itself what looks up names in /etc/hosts and DNS.
#
# Environment: IMAGE, SOURCE, VERSION, REVISION and SOURCE_DATE_EPOCH as in pack.sh, by default from Cargo.toml and git;
#   CARGO, CARGO_TARGET_DIR as Cargo has them; ARCHIVE, where the image goes [target/image/reach.tar].
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source-path=SCRIPTDIR source=common.sh
source image/common.sh || exit

cargo=${CARGO:-cargo}
for tool in "$cargo" rustc cc jq tar gzip sha256sum od readelf; do
  command -v "$tool" >/dev/null || fail "$tool is not installed (Debian: gcc, binutils, jq, tar, gzip, coreutils; cargo and rustc by rustup)"
done
[[ $(uname -s) == Linux ]] || fail "the image is built on Linux"

metadata=$("$cargo" metadata --locked --format-version 1 --no-deps)
target_folder=$(jq -r .target_directory <<<"$metadata")
VERSION=${VERSION:-$(jq -r '.packages[] | select(.name == "reach") | .version' <<<"$metadata")}
SOURCE=${SOURCE:-$(jq -r '.packages[] | select(.name == "reach") | .repository // ""' <<<"$metadata")}
# Source without git, such as an unpacked archive, has no revision and no date.
if [[ $(git rev-parse --show-toplevel 2>/dev/null) == "$PWD" ]]; then
  : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
  : "${REVISION:=$(git rev-parse HEAD)$([[ -z $(git status --porcelain) ]] || echo -dirty)}"
fi
export IMAGE VERSION SOURCE REVISION SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
IMAGE=${IMAGE:-reach:dev}
archive=${ARCHIVE:-$target_folder/image/reach.tar}

shipped build --bin reach >&2

binary=$target_folder/$triple/dist/reach
# Of a static file, the loader would be missing in the image; asked here, where the message can say so.
if readelf --program-headers --wide "$binary" | grep -q INTERP || readelf --dynamic --wide "$binary" | grep -q NEEDED; then
  fail "$binary is not static"
fi
image/pack.sh "$binary" "$archive"
printf 'image: %s, %s: binary %s bytes, archive %s bytes\n' "$IMAGE" "$VERSION" \
  "$(stat -c %s -- "$binary")" "$(stat -c %s -- "$archive")" >&2
printf '%s\n' "$archive"
