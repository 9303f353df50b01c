# Thin: what the targets do is in tools/devstack and tools/scripts.

# By --bin, not by package: cargo then resolves the features of the whole workspace, as all other targets here do,
# and nothing is compiled twice.
DEVSTACK = cargo run --bin atrium-devstack --

.PHONY: dev tour chaos bench check test contract-test lint queries fmt tools

# Everything at once, until Ctrl-C.
dev:
	@$(DEVSTACK) dev

# The main job through the public API, of the running `make dev` or of a stack of its own. ENV=.dev/env.<pid>: of
# that one. ROUNDS=100: measures latencies, too.
tour:
	@$(DEVSTACK) tour $(if $(ENV),--env $(ENV)) $(if $(ROUNDS),--rounds $(ROUNDS))

# The crash matrix (docs/reliability.md). SEED=7 FROM=12 ROUNDS=1: that round of that seed again. FAULT="kill -9"
# POINT=chat.counted: only these.
chaos:
	@$(DEVSTACK) chaos $(if $(SEED),--seed $(SEED)) $(if $(FROM),--from $(FROM)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(PARALLEL),--parallel $(PARALLEL)) $(if $(FAULT),--fault "$(FAULT)") $(if $(POINT),--point $(POINT))

# How fast the write path is, against a floor in the same run. WHAT="sagas relay": only these.
bench:
	cargo build --release --workspace --bins
	target/release/atrium-devstack exec -- target/release/atrium-bench $(WHAT)

# For a person who changed one file: format, lints, and the tests that need no process of Atrium.
check: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(DEVSTACK) exec -- tools/scripts/run-tests.sh --workspace --lib --test wall --test imports --test phrases --test documents

# The tour, the main job in a browser, requests made out of the contract, and some rounds of the crash matrix, each on
# stacks of its own; then every test on private servers. All targets are compiled in one go, so that no crate is
# compiled once for the programs and once more, with other features, for the tests.
test: tools
	cargo build --workspace --all-targets
	$(DEVSTACK) tour --own-stack
	$(DEVSTACK) browser
	$(DEVSTACK) fuzz
	$(DEVSTACK) chaos --seed 1 --rounds 16
	$(DEVSTACK) exec -- tools/scripts/run-tests.sh --workspace

# The API description, checked with other people's linters, and with generators whose clients have to compile.
contract-test:
	@tools/scripts/contract-test.sh

lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	cargo run --quiet --bin atrium-queries -- check
	tools/scripts/lint-files.sh
	@if command -v npm >/dev/null; then npm --prefix web ci --no-audit --no-fund && npm --prefix web run lint; \
	else echo "web: not checked, there is no npm"; fi

# Describes the SQL of the code to the compiler anew (.sqlx), after a change of a query or of the schema.
queries:
	@cargo run --quiet --bin atrium-queries -- prepare

fmt:
	cargo fmt --all

# Programs that `make lint` and `make test` use, in .tools.
tools:
	@tools/scripts/install-tools.sh
