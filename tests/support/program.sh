#!/usr/bin/env bash
# The last commit that changed what ships: what was measured of one program stays true while only tests and documents change.
# With `-dirty` where something that ships is not committed.
set -euo pipefail
ships=(Cargo.toml Cargo.lock rust-toolchain.toml src image charts crds ':!src/**/tests.rs' ':!src/**/tests/**')
commit=$(git log -1 --abbrev=12 --format=%h -- "${ships[@]}")
[[ -z $(git status --porcelain -- "${ships[@]}") ]] || commit+=-dirty
printf '%s\n' "$commit"
