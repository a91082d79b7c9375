# Two commands: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV ?= .venv
# Flower, which tests and benchmarks compare with, has an environment of its own: its pins are not ours.
FLOWER_VENV ?= .venv-flower
# pysparkplug too, which tests speak Sparkplug with: it needs paho-mqtt 1.
SPARKPLUG_VENV ?= .venv-sparkplug
# NVFlare too, for benchmarks alone.
NVFLARE_VENV ?= .venv-nvflare
ARGS ?=
# Simulated federations of `make soak`.
SEEDS ?= 100000
# Where pip must be told an index for the CPU build of torch:
#   make demo PIP_ARGS='--extra-index-url ADDRESS'
PIP_ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.headgate-installed
FLOWER_STAMP := $(FLOWER_VENV)/.flower-installed
SPARKPLUG_STAMP := $(SPARKPLUG_VENV)/.sparkplug-installed
NVFLARE_STAMP := $(NVFLARE_VENV)/.nvflare-installed
export FLOWER_VENV SPARKPLUG_VENV NVFLARE_VENV

.PHONY: demo test interop check bench soak clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up and watch several plants learn one model (options: make demo ARGS='--once --json')"
	@echo "make test    set up, check and test everything"
	@echo "make interop  set up, and run the loop on other brokers and beside other programs (Node-RED, MQTT.js and more)"
	@echo "make check   ruff and mypy only"
	@echo "make bench   benchmarks"
	@echo "make soak    100,000 simulated federations under faults (SEEDS=...; hours)"
	@echo "make clean   remove the environments"

$(STAMP): pyproject.toml constraints.txt scripts/setup
	@PYTHON='$(PYTHON)' VENV='$(VENV)' PIP_ARGS='$(PIP_ARGS)' scripts/setup
	@touch $@

$(FLOWER_STAMP): scripts/flower-requirements.txt scripts/setup-flower | $(STAMP)
	@PYTHON='$(PYTHON)' PIP_ARGS='$(PIP_ARGS)' scripts/setup-flower
	@touch $@

$(SPARKPLUG_STAMP): scripts/sparkplug-requirements.txt scripts/setup-sparkplug | $(STAMP)
	@PYTHON='$(PYTHON)' PIP_ARGS='$(PIP_ARGS)' scripts/setup-sparkplug
	@touch $@

$(NVFLARE_STAMP): scripts/nvflare-requirements.txt scripts/setup-nvflare | $(STAMP)
	@PYTHON='$(PYTHON)' PIP_ARGS='$(PIP_ARGS)' scripts/setup-nvflare
	@touch $@

demo: $(STAMP)
	@$(BIN)/headgate demo $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) $(FLOWER_STAMP) $(SPARKPLUG_STAMP) check
	@scripts/need-test-programs
	@scripts/run-tests $(BIN) 2000 $(ARGS)

interop: $(STAMP)
	@scripts/need-interop-programs
	$(BIN)/pytest tests/interop $(ARGS)

soak: $(STAMP)
	$(BIN)/python -m tests.faults.simulate --seeds 0:$(SEEDS) --jobs $$(nproc)

bench: $(STAMP) $(FLOWER_STAMP) $(NVFLARE_STAMP)
	@scripts/need-test-programs
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(FLOWER_VENV) $(SPARKPLUG_VENV) $(NVFLARE_VENV)
