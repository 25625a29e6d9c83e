#!/usr/bin/env bash
# The last commit that changed what ships: what was measured of one program stays true while only tests and documents change.
# A commit that changes source and yet builds the same program, byte for byte, says so with a line of its message, which is
# "Program: unchanged". With `-dirty` where something that ships is not committed.
set -euo pipefail
ships=(Cargo.toml Cargo.lock rust-toolchain.toml src image charts crds ':!src/**/tests.rs' ':!src/**/tests/**')
commit=$(git log -1 --abbrev=12 --format=%h --invert-grep --grep='^Program: unchanged$' -- "${ships[@]}")
[[ -z $(git status --porcelain -- "${ships[@]}") ]] || commit+=-dirty
printf '%s\n' "$commit"
