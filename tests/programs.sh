# What the scripts share that build the programs of the tests from pinned Go modules. Sourced by them, after they have set
#   here   the script's own folder
#   title  what the programs are, for messages
# and before they define
#   compile PROGRAM FILE   builds the program into the file.
# shellcheck shell=bash disable=SC2154 # set by who sources it
set -euo pipefail
shopt -s inherit_errexit

cache=${REACH_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set REACH_TEST_CACHE}/.cache}/reach}

say() { printf '%s: %s\n' "$title" "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# has FOLDER PROGRAM...: whether the folder has all the programs.
has() {
  local folder=$1 program
  shift
  for program in "$@"; do
    [[ -f $folder/$program && -x $folder/$program ]] || return 1
  done
}

# pinned_folder NAME MODULE FILE...: the cache folder for the pins of the module (a folder), the files, this one and the
# installed Go, which all shape the programs.
pinned_folder() {
  local name=$1 module=$2 wanted found digest
  shift 2
  wanted=$(sed -n 's/^go //p' "$module/go.mod")
  command -v go >/dev/null ||
    fail "the programs are built with Go, which is not installed: install Go $wanted or newer${instead:+, or $instead}"
  # Asked from the module's folder, a Go that may fetch newer toolchains answers with the one it will build with.
  found=$(cd "$module" && GOWORK=off go env GOVERSION)
  found=${found#go}
  [[ $(printf '%s\n' "$wanted" "${found%% *}" | sort -V | head -n 1) == "$wanted" ]] ||
    fail "Go $found is too old: install Go $wanted or newer${instead:+, or $instead}"
  digest=$({ cat "$module"/go.mod "$module"/go.sum "$@" "${BASH_SOURCE[0]}" && echo "$found"; } | sha256sum)
  echo "$cache/$name-${digest:0:16}"
}

# build FOLDER PROGRAM...: builds those that the folder lacks. Only finished programs get their final name, so an
# interrupted build leaves nothing that looks complete, and the next one goes on where it ended. One at a time, of all
# programs: two would only take each other's cores and memory.
build() {
  local folder=$1 program lock
  shift
  if has "$folder" "$@"; then return; fi
  command -v flock >/dev/null || fail "flock is not installed: install util-linux"
  mkdir -p "$folder"
  exec {lock}>"$cache/programs.lock"
  if ! flock --nonblock "$lock"; then
    say "waiting for another build to end"
    flock "$lock"
  fi
  for program in "$@"; do
    if has "$folder" "$program"; then continue; fi
    say "building $program"
    rm -f -- "$folder/$program.unfinished"
    compile "$program" "$folder/$program.unfinished" >&2 || fail "cannot build $program"
    mv -- "$folder/$program.unfinished" "$folder/$program"
  done
  exec {lock}>&-
}

# go_build MODULE FILE PACKAGE LDFLAGS [FLAG...]: builds a static program of the module (a folder) for this machine.
go_build() {
  local module=$1 file=$2 package=$3 ldflags=$4
  shift 4
  (cd "$module" && GOWORK=off GOOS='' GOARCH='' CGO_ENABLED=0 nice -n 10 \
    go build -mod=readonly -trimpath -ldflags "-s -w $ldflags" "$@" -o "$file" "$package")
}

# version_of MODULE REQUIRED: the version of a module that another one (a folder) requires.
version_of() {
  awk -v path="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == path && $2 != "=>" { print $2; exit }' "$1/go.mod"
}
