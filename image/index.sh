#!/usr/bin/env bash
# Joins images of pack.sh for several architectures into one: image/index.sh ARCHIVE INPUT...
#
# Prints the digest of the joint image. The archive is an OCI image layout, for `skopeo copy --all oci-archive:`; the images
# in it are those of the inputs, byte for byte.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C TZ=UTC
umask 022

fail() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

[[ $# -ge 2 ]] || fail "expected: image/index.sh ARCHIVE INPUT..."
archive=$1
shift
mkdir -p -- "$(dirname -- "$archive")"
work=$(mktemp -d -- "$archive.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
mkdir "$work/layout"
entries=()
for input in "$@"; do
  tar --extract --file="$input" --directory="$work/layout" blobs
  entries+=("$(tar --extract --to-stdout --file="$input" index.json)")
done

cd "$work/layout"
# Each platform once, under one name, in an order that is not that of the arguments.
joint=$(printf '%s\n' "${entries[@]}" | jq -cs '
  [.[].manifests[]] | sort_by(.platform.architecture) |
  if (map(.platform) | unique | length) != length then error("two inputs are for the same architecture")
  elif (map(.annotations) | unique | length) != 1 then error("the inputs have different names")
  else . end') || fail "cannot join $*"
labels=$(jq -c .annotations "blobs/sha256/$(jq -r '.[0].digest | ltrimstr("sha256:")' <<<"$joint")")
jq -cnj --argjson joint "$joint" --argjson labels "$labels" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$joint[] | del(.annotations)],
    annotations: $labels
  }' >joint.json
digest=$(sha256sum <joint.json | cut -d ' ' -f 1)
size=$(stat -c %s joint.json)
mv joint.json "blobs/sha256/$digest"
printf '{"imageLayoutVersion":"1.0.0"}' >oci-layout
jq -cnj --argjson joint "$joint" --arg digest "sha256:$digest" --argjson size "$size" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [{
      mediaType: "application/vnd.oci.image.index.v1+json",
      digest: $digest,
      size: $size,
      annotations: $joint[0].annotations
    }]
  }' >index.json
created=$(jq -r '."org.opencontainers.image.created"' <<<"$labels")
chmod -R u=rwX,go=rX .
cd "$OLDPWD"
tar --create --format=ustar --directory="$work/layout" --owner=0 --group=0 --numeric-owner --mtime="$created" --sort=name \
  --file="$work/archive.tar" oci-layout index.json blobs
mv -- "$work/archive.tar" "$archive"
printf 'sha256:%s\n' "$digest"
