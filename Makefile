# make test     core and backend tests, then the tests inside ComfyUI
# make check    linters, types, import rules, then make test
# make fuzz     read 2,400 spoiled files of every kind that users bring, each in a process of its own
# make trials   Learn Action in a real server: cancelled and killed at random moments, ten in a row; half an hour
# make demo     learn an action from clips, animate pictures, write out/demo/index.html; ACTION="chopping wood"
# make bench    time and memory of one generation
# make bench-train    cost, time and memory of one step of training
# make bench-details    cost, time and memory of decoding with details
# make bench-gpu    everything that a GPU must show, in one command with a time limit; writes docs/speed.md
# One test: .venv/bin/pytest tests/core -k name    Inside ComfyUI: make test-host ARGS="-k name"

PYTHON ?= python3
ARGS ?=
export COMFYUI_PATH ?= $(HOME)/comfy/ComfyUI
COMFYUI_PYTHON ?= $(firstword $(wildcard $(COMFYUI_PATH)/.venv/bin/python) .venv/bin/python)
TEST_FOLDERS = $(wildcard tests/core tests/backends tests/actors tests/benchmarks tests/old)

.PHONY: test test-host trials fuzz check lint-imports demo bench bench-train bench-details bench-gpu bench-transfer clean

test: .venv/ready
	$(if $(TEST_FOLDERS),.venv/bin/pytest $(TEST_FOLDERS) $(ARGS),@echo "There are no tests/core and tests/backends.")
	@$(MAKE) --no-print-directory test-host

# Without a ComfyUI the tests are skipped, and tests/comfy/conftest.py says so.
test-host: .venv/ready
	"$(COMFYUI_PYTHON)" tests/run_in_host.py tests/comfy $(ARGS)

trials: .venv/ready
	"$(COMFYUI_PYTHON)" tests/run_in_host.py tests/comfy/server/trials_of_learning.py -v $(ARGS)

fuzz: .venv/ready
	.venv/bin/python tests/fuzz $(ARGS)

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@$(MAKE) --no-print-directory lint-imports
	@$(MAKE) --no-print-directory test

# import-linter follows relative imports only inside one package, so the repository becomes one: flash_pack.
lint-imports: .venv/ready
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && ln -s "$(CURDIR)" "$$folder/flash_pack" && \
	cd "$$folder" && "$(CURDIR)/.venv/bin/lint-imports" --no-cache --config "$(CURDIR)/pyproject.toml"

demo: .venv/ready
	.venv/bin/python -m actors demo $(if $(ACTION),--action "$(ACTION)") $(ARGS)

bench: .venv/ready
	COMFYUI_PYTHON="$(COMFYUI_PYTHON)" .venv/bin/python -m benchmarks.bench $(ARGS)

bench-train: .venv/ready
	.venv/bin/python -m benchmarks.bench_train $(ARGS)

bench-details: .venv/ready
	.venv/bin/python -m benchmarks.bench_details $(ARGS)

bench-gpu: .venv/ready
	COMFYUI_PYTHON="$(COMFYUI_PYTHON)" .venv/bin/python -m benchmarks.bench_gpu --page docs/speed.md $(ARGS)

bench-transfer: .venv/ready
	.venv/bin/python -m benchmarks.bench_transfer $(ARGS)

# Only the dependencies are installed: the tests must see this folder, and not a copy or a path to it.
.venv/ready: pyproject.toml
	@echo "Installing the development tools into .venv; the first time takes some minutes."
	$(PYTHON) -m venv .venv
	@.venv/bin/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*(line for line in extras["headless"] + extras["dev"] if "[headless]" not in line), sep="\n")' >.venv/requirements.txt
	.venv/bin/pip install --quiet --requirement .venv/requirements.txt
	@touch $@

clean:
	rm -rf .venv .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
