# Two commands: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Where pip must be told an index for the CPU build of torch:
#   make demo PIP_ARGS='--extra-index-url ADDRESS'
PIP_ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.headgate-installed

.PHONY: demo test check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up and watch several plants learn one model (options: make demo ARGS='--once --json')"
	@echo "make test    set up, check and test everything"
	@echo "make check   ruff and mypy only"
	@echo "make bench   benchmarks"
	@echo "make clean   remove the environment"

$(STAMP): pyproject.toml constraints.txt scripts/setup
	@PYTHON='$(PYTHON)' VENV='$(VENV)' PIP_ARGS='$(PIP_ARGS)' scripts/setup
	@touch $@

demo: $(STAMP)
	@$(BIN)/headgate demo $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) check
	@scripts/need-test-programs
	$(BIN)/pytest $(ARGS)

bench: $(STAMP)
	@scripts/need-test-programs
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV)
