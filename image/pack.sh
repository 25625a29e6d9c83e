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
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" || exit

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

begin "$archive"
mkdir "$work/root"
install -m 0555 -- "$binary" "$work/root/reach"
pack "$work/root" "@$epoch" reach >"$work/layer.tar"
diff_id=sha256:$(digest "$work/layer.tar")
gzip -n -9 <"$work/layer.tar" >"$work/layer.tar.gz"
layer=$(blob "$work/layer.tar.gz" layer.v1.tar+gzip)

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
config=$(blob "$work/config.json" config.v1+json)

jq -cnj --argjson config "$config" --argjson layer "$layer" --argjson labels "$labels" '
  {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: $config,
    layers: [$layer],
    annotations: $labels
  }' >"$work/manifest.json"
manifest=$(blob "$work/manifest.json" manifest.v1+json)

entry=$(jq -c --arg architecture "$architecture" --arg full "$full" --arg tag "${image##*:}" '
  . + {
    platform: {architecture: $architecture, os: "linux"},
    annotations: {"io.containerd.image.name": $full, "org.opencontainers.image.ref.name": $tag}
  }' <<<"$manifest")
# What Docker before version 25 looks for.
jq -cnj --argjson config "$config" --argjson layer "$layer" --arg image "$image" '
  def path: "blobs/" + (.digest | sub(":"; "/"));
  [{Config: ($config | path), RepoTags: [$image], Layers: [$layer | path]}]' >"$work/layout/manifest.json"
mapfile -t paths < <(jq -r '"blobs/" + (.digest | sub(":"; "/"))' <<<"$manifest$config$layer")
finish "$archive" "@$epoch" "$entry" manifest.json "${paths[@]}"
