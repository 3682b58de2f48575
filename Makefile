# The project's habits. Each is one command, and CI runs the same ones.
PYTHON ?= python

.PHONY: run test test-long test-rolling sdks chaos simulation browser monitoring lint format bench bench-usage lock

run:            ## the gateway, with the simulator upstream
	$(PYTHON) -m app serve

test:           ## all tests but the long batteries
	$(PYTHON) -m pytest -n 3

test-long:      ## the long batteries too
	$(PYTHON) -m pytest -m 'not sdks'

test-rolling:   ## restarts under load: two gateways behind a balancer, and behind nginx where it is there
	$(PYTHON) -m pytest -m '' tests/e2e/test_rolling_restart.py

sdks:           ## existing clients, installed from PyPI and npm, with base URL and key changed only
	$(PYTHON) -m pytest -m sdks tests/sdks

chaos:          ## SEEDS=100 [START=0]: real processes under faults drawn from seeds, then the oracles
	$(PYTHON) -m tests.faults.chaos --seeds $(or $(SEEDS),3) --start $(or $(START),0)

simulation:     ## the accounting core in simulated worlds: make simulation SEEDS=100000
	$(PYTHON) -m tests.simulation --seeds $(or $(SEEDS),10000) --start $(or $(START),0)

browser:        ## the console in Chromium (apt-get install chromium)
	$(PYTHON) -m pytest -m '' tests/browser

monitoring:     ## rules and dashboards against real gateways and a real Prometheus (Debian's package prometheus)
	$(PYTHON) -m pytest -m '' tests/monitoring

lint:           ## what CI checks beside the tests
	$(PYTHON) -m ruff check app tests
	$(PYTHON) -m ruff format --check app tests
	$(PYTHON) -m mypy app
	lint-imports

format:
	$(PYTHON) -m ruff format app tests
	$(PYTHON) -m ruff check --fix app tests

bench:          ## CPU per request and event, memory per stream; prints a table
	$(PYTHON) -m tests.bench

bench-usage:    ## every view of usage on a year: make bench-usage RECORDS=10000000 [DATABASE=sqlite|postgresql]
	$(PYTHON) -m tests.bench.usage --records $(or $(RECORDS),10000000) --database $(or $(DATABASE),both)

lock:           ## requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra postgres --extra sso --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -o requirements.lock
