# make test      everything that must hold before a change lands; leaves no process behind
# make demo      a real Swift, an S3 server and the agent, end to end (KEEP=1 leaves them running)
# make demo-kubernetes  the operator and the agents on a real Kubernetes with three nodes; needs root (KEEP=1 leaves it running)
# make bench     what the operator needs for 5,000 policies, and how fast a change is in every agent; needs root; minutes
# make fixtures  records what a real Swift answers into fixtures/

.PHONY: test demo demo-kubernetes bench fixtures prepare

test: prepare
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	.tools/bin/cargo-deny --workspace --locked check bans licenses sources
	# The scenarios run the programs as processes. With everything at once, no dependency is compiled twice.
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked
	# The simulation would find what it is for: faults are planted in the agent, one at a time.
	cargo test --workspace --locked --features onespace-node-agent/planted-faults --test simulation planted

prepare:
	scripts/prepare

demo:
	scripts/demo

demo-kubernetes:
	scripts/demo-kubernetes

bench:
	scripts/bench

fixtures:
	scripts/prepare swift
	cargo run --locked --package onespace-e2e --bin onespace-record-fixtures
	.tools/venv/bin/python scripts/old-databases
	.tools/venv/bin/python core/tests/fixtures/record.py
