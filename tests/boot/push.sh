#!/usr/bin/env bash
# Pushes an image from an archive (an OCI image layout) into a registry:
#   tests/boot/push.sh ARCHIVE HOST/NAME:TAG [OPTION OF CURL]...
# shellcheck source-path=SCRIPTDIR source=../../image/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../../image/common.sh" || exit
(($# >= 2)) || fail "expected: tests/boot/push.sh ARCHIVE HOST/NAME:TAG [OPTION OF CURL]..."
archive=$1 image=$2
shift 2
host=${image%%/*} tag=${image##*:}
name=${image#*/}
name=${name%:*}

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
tar --extract --file="$archive" --directory="$work"
ask() { curl --silent --show-error --fail --noproxy '*' "${options[@]}" "$@"; }
options=("$@")

# blob DIGEST: sends what the registry does not have yet.
blob() {
  local place separator='?'
  if ask --head --output /dev/null "https://$host/v2/$name/blobs/$1" 2>/dev/null; then return; fi
  place=$(ask --request POST --output /dev/null --write-out '%header{location}' "https://$host/v2/$name/blobs/uploads/")
  [[ $place != *'?'* ]] || separator='&'
  ask --request PUT --header 'Content-Type: application/octet-stream' --upload-file "$work/blobs/${1/://}" \
    "$place${separator}digest=$1"
}

descriptor=$(jq -c '.manifests[0]' "$work/index.json")
digest=$(jq -r .digest <<<"$descriptor")
manifest=$work/blobs/${digest/://}
while read -r part; do blob "$part"; done < <(jq -r '.config.digest, .layers[].digest' "$manifest")
ask --request PUT --header "Content-Type: $(jq -r .mediaType <<<"$descriptor")" --upload-file "$manifest" \
  --output /dev/null "https://$host/v2/$name/manifests/$tag"
