#!/usr/bin/env bash
# Makes a container image from one static binary, with no engine and no registry: image/pack.sh BINARY ARCHIVE
#
# The archive is an OCI image layout and, for engines that know only their own format, what `docker save` writes, over the
# same blobs: `docker load`, `podman load`, `ctr images import` and `skopeo copy oci-archive:` all read it. The same binary
# and environment give the same bytes, whoever runs this, whenever and in whatever folder.
#
# Environment:
#   IMAGE              its name and tag [reach:dev]
#   VERSION            version of the binary
#   REVISION           commit it was built from, when there is one
#   SOURCE             where its source is, when that is known: a URL
#   SOURCE_DATE_EPOCH  the only time in the archive, in seconds since 1970 [0]
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C TZ=UTC
umask 022

fail() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

[[ $# == 2 ]] || fail "expected: image/pack.sh BINARY ARCHIVE"
binary=$1 archive=$2
image=${IMAGE:-reach:dev}
[[ ${image##*/} == ?*:?* ]] || fail "IMAGE=$image: expected a name with a tag, such as reach:dev"
epoch=${SOURCE_DATE_EPOCH:-0}
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

# From the file itself: what uname says is true only of binaries that were built for this machine.
case $(od -An -tx1 -N20 -- "$binary" | tr -d ' \n') in
  7f454c4602*3e00) architecture=amd64 ;;
  7f454c4602*b700) architecture=arm64 ;;
  *) fail "$binary: expected a 64-bit ELF file for x86-64 or AArch64" ;;
esac

# An engine would ask docker.io/library for a name without a host, so that is what such a name means in archives.
case $image in
  *.*/* | *:*/* | localhost/*) full=$image ;;
  */*) full=docker.io/$image ;;
  *) full=docker.io/library/$image ;;
esac

mkdir -p -- "$(dirname -- "$archive")"
work=$(mktemp -d -- "$archive.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
blobs=$work/layout/blobs/sha256
mkdir -p "$work/root" "$blobs"

digest() { sha256sum <"$1" | cut -d ' ' -f 1; }
# blob FILE: moves the file to its place among the blobs and prints its descriptor.
blob() {
  local digest size
  digest=$(digest "$1")
  size=$(stat -c %s -- "$1")
  mv -- "$1" "$blobs/$digest"
  jq -cn --arg type "$2" --arg digest "sha256:$digest" --argjson size "$size" \
    '{mediaType: $type, digest: $digest, size: $size}'
}
# pack FOLDER FILE...: a tar of the files, in this order, that tells nothing of who made it.
pack() {
  tar --create --format=ustar --directory="$1" --owner=0 --group=0 --numeric-owner --mtime="@$epoch" \
    --no-recursion -- "${@:2}"
}

install -m 0555 -- "$binary" "$work/root/reach"
pack "$work/root" reach >"$work/layer.tar"
diff_id=sha256:$(digest "$work/layer.tar")
gzip -n -9 <"$work/layer.tar" >"$work/layer.tar.gz"
layer=$(blob "$work/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)

labels=$(jq -cn --arg created "$created" --arg version "${VERSION:-}" --arg revision "${REVISION:-}" --arg source "${SOURCE:-}" '
  {
    title: "reach",
    description: "Gives every workload of a Kubernetes cluster the right HTTP proxy configuration",
    licenses: "Apache-2.0",
    created: $created,
    version: $version,
    revision: $revision,
    source: $source
  } | with_entries(select(.value != "") | .key |= "org.opencontainers.image." + .)')

jq -cnj --arg architecture "$architecture" --arg created "$created" --arg diff_id "$diff_id" --argjson labels "$labels" '
  {
    architecture: $architecture,
    os: "linux",
    created: $created,
    config: {
      User: "65532:65532",
      Entrypoint: ["/reach"],
      WorkingDir: "/",
      ExposedPorts: {"9080/tcp": {}, "9443/tcp": {}},
      Labels: $labels
    },
    rootfs: {type: "layers", diff_ids: [$diff_id]},
    history: [{created: $created, created_by: "image/pack.sh"}]
  }' >"$work/config.json"
config=$(blob "$work/config.json" application/vnd.oci.image.config.v1+json)

jq -cnj --argjson config "$config" --argjson layer "$layer" --argjson labels "$labels" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: $config,
    layers: [$layer],
    annotations: $labels
  }' >"$work/manifest.json"
manifest=$(blob "$work/manifest.json" application/vnd.oci.image.manifest.v1+json)

cd "$work/layout"
printf '{"imageLayoutVersion":"1.0.0"}' >oci-layout
jq -cnj --argjson manifest "$manifest" --arg architecture "$architecture" --arg full "$full" --arg tag "${image##*:}" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$manifest + {
      platform: {architecture: $architecture, os: "linux"},
      annotations: {"io.containerd.image.name": $full, "org.opencontainers.image.ref.name": $tag}
    }]
  }' >index.json
# What Docker before version 25 looks for.
jq -cnj --argjson config "$config" --argjson layer "$layer" --arg image "$image" '
  def path: "blobs/" + (.digest | sub(":"; "/"));
  [{Config: ($config | path), RepoTags: [$image], Layers: [$layer | path]}]' >manifest.json

chmod -R u=rwX,go=rX .
cd "$OLDPWD"
mapfile -t paths < <(jq -r '"blobs/" + (.digest | sub(":"; "/"))' <<<"$manifest$config$layer")
pack "$work/layout" oci-layout index.json manifest.json "${paths[@]}" >"$work/archive.tar"
# In one step, so that no reader sees half of it.
mv -- "$work/archive.tar" "$archive"
