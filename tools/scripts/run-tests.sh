#!/bin/sh
# Runs tests on servers that `atrium-devstack exec` has started, then names the ten slowest. Arguments select tests, as
# cargo-nextest takes them. Where cargo-nextest is not installed, cargo runs the tests, one binary after the other.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PWD/.tools/bin:$PATH

if ! command -v cargo-nextest >/dev/null; then
    exec cargo test "$@" --no-fail-fast
fi

report=target/nextest/default/junit.xml
rm -f "$report"
status=0
cargo nextest run "$@" || status=$?
if [ -f "$report" ]; then
    echo "The ten slowest tests, in seconds:"
    # <testcase name="module::test" classname="crate::binary" … time="1.234">
    sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".* time="\([^"]*\)".*/\3 \2 \1/p' "$report" |
        sort -rn | head -10 | sed 's/^/  /'
fi
exit "$status"
