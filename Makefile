# The one door: each target sets up what it needs by itself.

pytest := .venv/bin/python tests/support/reaping.py .venv/bin/python -m pytest
# pytest ends with 5 where options choose no test; that may be so in one of the two parts.
# Two at a time: what the tests wait for is mostly the disk and other processes.
workers ?= 2

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

.PHONY: demo
demo: setup criu ## train, dump half-way, restore, and compare the log with that of an undisturbed run (root)
	@scripts/demo

.PHONY: test
test: setup-dev criu-if-root ## linters and all tests
	@first=0; second=0; \
	$(pytest) -n $(workers) -m 'not quiet' $(pytest_options) || first=$$?; \
	$(pytest) -m quiet $(pytest_options) || second=$$?; \
	case "$$first $$second" in \
	"0 0" | "0 5" | "5 0") ;; \
	"5 5") echo "No test was chosen." >&2; exit 5 ;; \
	*) exit 1 ;; \
	esac

.PHONY: lint
lint: setup-dev ## linters alone
	@$(pytest) tests/lint $(pytest_options)

.PHONY: bench
bench: setup criu ## what dumps, restores, `run`, check, ps, report() and starting ckptctl cost, an hour and a half (root)
	@.venv/bin/python bench/startup.py
	@.venv/bin/python bench/report.py
	@.venv/bin/python bench/check.py
	@.venv/bin/python bench/dump.py
	@.venv/bin/python bench/dump.py --contents floats --only durable,pause --sizes 512MiB,1GiB,2GiB,4GiB,8GiB
	@.venv/bin/python bench/restore.py
	@.venv/bin/python bench/overhead.py

.PHONY: docs
docs: setup ## write the pages of docs/reference that come from the code
	@.venv/bin/python scripts/generate-docs

.PHONY: clean
clean: ## remove .venv and what tools left behind
	rm -rf .venv .setup.lock .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: setup setup-dev criu criu-if-root
setup:
	@scripts/setup
setup-dev:
	@scripts/setup --dev
criu:
	@scripts/install-criu
criu-if-root: # without root the tests that need CRIU are skipped
	@[ "$$(id -u)" != 0 ] || scripts/install-criu || [ -z "$(findstring criu,$(CKPTCTL_REQUIRE))" ]
