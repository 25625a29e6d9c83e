#!/usr/bin/env bash
# Makes a container image of programs of this machine, without an engine or a registry:
#   tests/node/image.sh NAME:TAG ARCHIVE FILE...
#
# Each FILE (a program, a library or a folder) is put where it is on this machine, with the libraries that it loads; a
# static program may be given as SOURCE=TARGET to go elsewhere. The first one is the image's entrypoint. With it come the
# few files that glibc wants. The archive is an OCI image layout, for `ctr images import`.
# shellcheck source-path=SCRIPTDIR source=../../image/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../../image/common.sh" || exit
(($# >= 3)) || fail "expected: tests/node/image.sh NAME:TAG ARCHIVE FILE..."
name=$1 archive=$2
shift 2
for tool in jq tar sha256sum ldd; do
  command -v "$tool" >/dev/null || fail "$tool is not installed"
done

begin "$archive"
root=$work/root
mkdir -p "$root"/{bin,etc,tmp,usr}
chmod 1777 "$root/tmp"
# As on a Debian with one /usr: a program is found by both of its paths.
for folder in lib lib64 sbin; do
  [[ ! -L /$folder ]] || ln -s "$(readlink "/$folder")" "$root/$folder"
  mkdir -p "$root/usr/$folder"
done
if [[ -L /bin ]]; then
  rmdir "$root/bin"
  ln -s usr/bin "$root/bin"
  mkdir -p "$root/usr/bin"
fi
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

# place FILE: puts a file, or what a link leads to, where it is on this machine.
place() {
  local folder
  folder=$(readlink -f -- "$(dirname -- "$1")")
  mkdir -p "$root$folder"
  cp --dereference --preserve=mode -- "$1" "$root$folder/"
}
# libraries FILE...: what the dynamic loader would load for each, and itself.
libraries() {
  ldd "$@" 2>/dev/null | sed -nE 's#^\s*(.* => )?(/[^ ]+) \(0x[0-9a-f]+\)$#\2#p' | sort -u
}

entrypoint=
for file in "$@"; do
  target=${file#*=} source=${file%%=*}
  [[ -e $source ]] || fail "$source does not exist"
  if [[ $source != "$target" ]]; then
    install -D -m 0755 -- "$source" "$root$target"
  elif [[ -d $source ]]; then
    mkdir -p "$root$(dirname -- "$source")"
    tar --create --directory=/ --exclude=__pycache__ --exclude='test' --exclude='*.a' -- "${source#/}" |
      tar --extract --directory="$root"
    mapfile -t objects < <(find "$source" -name '*.so' -type f)
    ((!${#objects[@]})) || while read -r library; do place "$library"; done < <(libraries "${objects[@]}")
  else
    place "$source"
    while read -r library; do place "$library"; done < <(libraries "$source")
  fi
  : "${entrypoint:=$target}"
done

tar --create --file="$work/layer.tar" --directory="$root" --owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name .
diff_id=sha256:$(digest "$work/layer.tar")
layer=$(blob "$work/layer.tar" layer.v1.tar)
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac
jq -cn --arg architecture "$architecture" --arg diff_id "$diff_id" --arg entrypoint "$entrypoint" '
  {
    architecture: $architecture,
    os: "linux",
    config: {Entrypoint: [$entrypoint], Env: ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"], WorkingDir: "/"},
    rootfs: {type: "layers", diff_ids: [$diff_id]}
  }' >"$work/config.json"
config=$(blob "$work/config.json" config.v1+json)
jq -cn --argjson config "$config" --argjson layer "$layer" '
  {schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: [$layer]}
  ' >"$work/manifest.json"
manifest=$(blob "$work/manifest.json" manifest.v1+json)
entry=$(jq -c --arg name "$name" '. + {annotations: {"io.containerd.image.name": $name}}' <<<"$manifest")
paths=("$blobs"/*)
finish "$archive" @0 "$entry" "${paths[@]#"$work/layout/"}"
