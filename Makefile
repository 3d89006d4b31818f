PYTHON ?= python3
NOX = .venv/bin/nox
DEMO_OF = demo$(addprefix -,$(filter dramatiq arq,$(ARGS)))
DEMO = .venv/$(DEMO_OF)/bin/steindamm
export UV_SYSTEM_CERTS ?= true

.PHONY: demo test coverage check chaos memory bench clean

demo: $(DEMO)  ## a real worker held to the limit of a real API; ARGS=dramatiq or ARGS=arq for theirs
	$(DEMO) demo $(ARGS)

test: $(NOX)  ## all tests, on servers and workers that the tests start
	tests/support/install_servers.sh
	$(NOX) --no-error-on-missing-interpreters

coverage: $(NOX)  ## the lines and branches that the tests run, of what is shipped
	STEINDAMM_TEST_COVERAGE=1 $(NOX) --session core-3.11 celery dramatiq arq together demo coverage_report

check: $(NOX)  ## lint and types
	$(NOX) --session lint types

chaos: $(NOX)  ## what fails, and what stays true all the same; ARGS="killed stopped" for those faults alone
	tests/support/install_servers.sh
	$(NOX) --no-error-on-missing-interpreters --session chaos -- $(ARGS)

memory: $(NOX)  ## what a worker weighs that sends tens of thousands of jobs back
	$(NOX) --session memory

bench: $(NOX)  ## our speed beside the peers', into docs/performance.md; ARGS="--quick" for a first look
	$(NOX) --session bench bench_jobs bench_report -- $(ARGS)

$(NOX):
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "nox[uv]==2026.10.20"

$(DEMO): $(NOX) pyproject.toml
	.venv/bin/uv venv --quiet --clear --python $(PYTHON) .venv/$(DEMO_OF)
	.venv/bin/uv pip install --quiet --python .venv/$(DEMO_OF) --editable ".[$(DEMO_OF)]"
	touch $(DEMO)

clean:  ## what these commands set up
	rm -rf .venv .nox
