#!/usr/bin/env bash
# Joins images of pack.sh for several architectures into one: image/index.sh ARCHIVE INPUT...
#
# Prints the digest of the joint image. The archive is an OCI image layout, for `skopeo copy --all oci-archive:`; the images
# in it are those of the inputs, byte for byte.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" || exit

[[ $# -ge 2 ]] || fail "expected: image/index.sh ARCHIVE INPUT..."
archive=$1
shift
begin "$archive"
entries=()
for input in "$@"; do
  tar --extract --file="$input" --directory="$work/layout" blobs
  entries+=("$(tar --extract --to-stdout --file="$input" index.json)")
done

# Each platform once, under one name, in an order that is not that of the arguments.
joint=$(printf '%s\n' "${entries[@]}" | jq -cs '
  [.[].manifests[]] | sort_by(.platform.architecture) |
  if (map(.platform) | unique | length) != length then error("two inputs are for the same architecture")
  elif (map(.annotations) | unique | length) != 1 then error("the inputs have different names")
  else . end') || fail "cannot join $*"
labels=$(jq -c .annotations "$blobs/$(jq -r '.[0].digest | ltrimstr("sha256:")' <<<"$joint")")
jq -cnj --argjson joint "$joint" --argjson labels "$labels" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$joint[] | del(.annotations)],
    annotations: $labels
  }' >"$work/joint.json"
entry=$(blob "$work/joint.json" index.v1+json)
named=$(jq -c --argjson joint "$joint" '. + {annotations: $joint[0].annotations}' <<<"$entry")
paths=("$blobs"/*)
finish "$archive" "$(jq -r '."org.opencontainers.image.created"' <<<"$labels")" "$named" "${paths[@]#"$work/layout/"}"
jq -r .digest <<<"$entry"
