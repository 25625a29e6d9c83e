#!/usr/bin/env bash
# Installs the HTTP clients that tests/clients.rs measures, at the versions that the lock files here pin, and prints their folder.
# Debian's packages (wget, busybox, ruby, a JDK) have the version of the machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
title=clients
# shellcheck source=tests/programs.sh
source "$here/../programs.sh"

# A program of each package, and the package.
declare -A packages=([wget]=wget [busybox]=busybox [ruby]=ruby [javac]=default-jdk-headless [python3]=python3 [npm]=npm [ip]=iproute2)
missing=()
for program in "${!packages[@]}"; do
  command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
  ((EUID == 0)) && command -v apt-get >/dev/null || fail "install these Debian packages: ${missing[*]}"
  say "installing ${missing[*]}"
  install=(apt-get install --yes --no-install-recommends --option DPkg::Lock::Timeout=300 "${missing[@]}")
  export DEBIAN_FRONTEND=noninteractive
  "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
fi

# rust FOLDER PROGRAM FILE: builds a program of its own lock file.
rust() {
  local target=$folder/target-$1
  nice -n 10 cargo build --quiet --locked --release --manifest-path "$here/$1/Cargo.toml" --target-dir "$target"
  cp -- "$target/release/$2" "$3"
  rm -rf -- "$target"
}

# script FILE LINE: a program of one command.
script() {
  printf '#!/bin/sh\nexec %s "$@"\n' "$2" >"$1"
  chmod +x "$1"
}

compile() {
  local program=$1 file=$2
  case $program in
    curl-*) rust "$program" get-curl "$file" ;;
    reqwest) rust reqwest get-reqwest "$file" ;;
    go) go_build "$here/go" "$file" . '' ;;
    python)
      rm -rf -- "$folder/venv"
      python3 -m venv "$folder/venv"
      "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/python/requirements.txt"
      script "$file" "'$folder/venv/bin/python' -B"
      ;;
    node)
      rm -rf -- "$folder/node_modules"
      cp -- "$here"/node/package*.json "$folder"
      npm ci --silent --ignore-scripts --prefix "$folder"
      script "$file" "env NODE_PATH='$folder/node_modules' '$(echo "$folder"/node_modules/node-linux-*/bin/node)'"
      ;;
    java)
      javac -d "$folder" "$here/workers/Get.java"
      script "$file" "java -cp '$folder' Get"
      ;;
  esac
}

programs=(curl-7.83.1 curl-7.88.1 curl-8.22.0 reqwest go python node java)
folder=$(pinned_folder clients "$here/go" "$here/install.sh" "$here"/*/Cargo.lock "$here"/workers/curl.rs "$here"/workers/Get.java "$here"/*/requirements.txt "$here"/node/package-lock.json)
build "$folder" "${programs[@]}"
echo "$folder"
