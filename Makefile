# Each target sets up .venv first if it is missing or out of date.
# Set-up installs what fits the machine's GPU; DEVICE=cuda, rocm, metal or cpu chooses (see scripts/setup.sh).
PYTHON ?= python3
VENV := .venv/bin

.PHONY: help demo test lab lint frontend docs bench gpu recipes lock setup clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

setup: ## create .venv with both engines (skipped when it is current); DEVICE=cuda|rocm|metal|cpu, else what the machine has
	@PYTHON=$(PYTHON) GPU=$(GPU) DEVICE=$(DEVICE) bash scripts/setup.sh

demo: setup ## run the quickstart notebook headless on both engines and print the results
	@$(VENV)/python scripts/demo.py

test: setup ## run the tests, on the real engines, and in a browser if one is available
	@bash scripts/browser.sh
	@$(VENV)/python tests/real/fetch.py mistral qwen3 gptoss
	$(VENV)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not alone"
	$(VENV)/python -m pytest -m alone

lab: setup ## open JupyterLab on notebooks/
	$(VENV)/jupyter lab --ip 127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_quickstart.ipynb

lint: setup ## ruff, mypy --strict, import layers, declared dependencies, notebooks without outputs, the front end where npm is
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/deptry llmlab
	$(VENV)/deptry tests bench scripts docs/site --ignore DEP002,DEP004
	$(VENV)/nbstripout --verify notebooks/*.ipynb
	@bash scripts/frontend.sh check

frontend: ## build the widgets' front end into llmlab/widgets/static (needs node)
	@bash scripts/frontend.sh build

docs: setup ## build the documentation site into out/docs
	@bash scripts/docs.sh

bench: setup ## measure speed on this machine
	$(VENV)/python bench/run.py

gpu: setup ## measure a GPU in ten minutes and write its row of docs/gpu.md
	$(VENV)/python bench/gpu.py

recipes: ## resolve each documented installation with pip, without installing it (needs the network)
	@$(PYTHON) scripts/recipes.py

lock: ## rewrite requirements/cpu.lock from .venv
	bash scripts/lock.sh

clean: ## remove .venv and out/
	rm -rf .venv out
