#!/usr/bin/env bash
# Counts the instructions of benches/instructions.rs in the code that ships, and compares them with benches/instructions.json.
# Arguments go to that program: `benches/check.sh --update`.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source-path=SCRIPTDIR source=../image/common.sh
source image/common.sh || exit

command -v valgrind >/dev/null || fail "valgrind is not installed (Debian: valgrind)"
shipped run --quiet --example instructions -- "$@"
