#!/bin/sh
# Checks docs/api/openapi.yaml with other people's programs: linters, and generators whose clients have to compile. What
# a program needs and the machine lacks is named and left out. Programs are pinned in tools/generators; clients are
# generated in target/generators.
set -eu
cd "$(dirname "$0")/../.."
contract=$PWD/docs/api/openapi.yaml
generators=$PWD/tools/generators
output=$PWD/target/generators
mkdir -p "$output"

# Runs a step and shows its output only if it fails: `step "name" command …`.
step() {
    name=$1
    shift
    if "$@" >"$output/log" 2>&1; then
        echo "  ✓ $name"
    else
        cat "$output/log"
        echo "  ✗ $name"
        exit 1
    fi
}

# Whether a program is installed; names it if not.
have() {
    command -v "$1" >/dev/null && return
    echo "  - $2: left out, there is no $1"
    return 1
}

echo "The API description and its generated clients"

if have npm "redocly, openapi-typescript"; then
    step "npm packages" npm --prefix "$generators" ci --no-audit --no-fund
    bin=$generators/node_modules/.bin
    step "redocly lint" "$bin/redocly" lint --config "$generators/redocly.yaml" "$contract"
    step "openapi-typescript: generate" "$bin/openapi-typescript" "$contract" --output "$output/schema.d.ts"
    step "openapi-typescript: compile" "$bin/tsc" --noEmit --strict "$output/schema.d.ts"
fi

if have python3 "openapi-spec-validator, openapi-python-client"; then
    python=$output/python
    if ! cmp -s "$generators/requirements.txt" "$python/requirements.txt"; then
        step "Python environment" python3 -m venv --clear "$python"
        step "Python packages" "$python/bin/pip" install --quiet --disable-pip-version-check \
            --requirement "$generators/requirements.txt"
        cp "$generators/requirements.txt" "$python/requirements.txt"
    fi
    step "openapi-spec-validator" "$python/bin/openapi-spec-validator" "$contract"
    # It formats what it generates by a program that it looks up.
    step "openapi-python-client: generate" env PATH="$python/bin:$PATH" "$python/bin/openapi-python-client" generate \
        --path "$contract" --output-path "$output/python-client" --overwrite
    step "openapi-python-client: compile" "$python/bin/python" -m compileall -q "$output/python-client"
fi

if have go "oapi-codegen, ogen"; then
    mkdir -p "$output/go/oapi" "$output/go/ogen"
    cp "$generators/go.mod" "$generators/go.sum" "$output/go"
    go_in() { (cd "$output/go" && "$@"); }
    step "oapi-codegen: generate" go_in go tool oapi-codegen --config "$generators/oapi-codegen.yaml" \
        -o oapi/client.go "$contract"
    step "ogen: generate" go_in go tool ogen --config "$generators/ogen.yaml" --target ogen --clean --package ogen \
        "$contract"
    step "oapi-codegen, ogen: compile" go_in go vet ./...
fi

if have mvn "openapi-generator for Java and Kotlin"; then
    step "openapi-generator: generate and compile Java and Kotlin" mvn --batch-mode --quiet \
        -Dstyle.color=never --file "$generators/pom.xml" compile
fi
