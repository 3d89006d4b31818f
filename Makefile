PYTHON ?= python3
NOX = .venv/bin/nox
DEMO = .venv/demo/bin/steindamm
export UV_SYSTEM_CERTS ?= true

.PHONY: demo test check chaos bench clean

demo: $(DEMO)  ## a real worker held to the limit of a real API
	$(DEMO) demo $(ARGS)

test: $(NOX)  ## all tests, on servers and workers that the tests start
	tests/support/install_servers.sh
	$(NOX) --no-error-on-missing-interpreters

check: $(NOX)  ## lint and types
	$(NOX) --session lint types

chaos: $(NOX)  ## what fails, and what stays true all the same; ARGS="killed stopped" for those faults alone
	$(NOX) --no-error-on-missing-interpreters --session chaos -- $(ARGS)

bench: $(NOX)  ## our speed beside the peers', into docs/performance.md; ARGS="--quick" for a first look
	$(NOX) --session bench bench_jobs bench_report -- $(ARGS)

$(NOX):
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "nox[uv]==2026.10.20"

$(DEMO): $(NOX) pyproject.toml
	.venv/bin/uv venv --quiet --clear --python $(PYTHON) .venv/demo
	.venv/bin/uv pip install --quiet --python .venv/demo --editable ".[demo]"
	touch $(DEMO)

clean:  ## what these commands set up
	rm -rf .venv .nox
