# Every target makes what it needs first; a fresh clone needs Python 3.11 to 3.13 and make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
# Hides TensorFlow's remarks on the processor.
RUN := TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python

# One variable for each flag of a command; an empty one leaves the flag's default.
VARIABLES := LAYER WEIGHTS SEED DATASET LICENSE INDEX_DTYPE POOLING OUTPUT_DIR PUBLISHER MODEL_VERSION ASSET_URL \
	PHOTOS DECODER_DATASET TRAINING_FLAGS HANDLE REPOSITORY CONTENT STYLE OUTPUT \
	ARCHIVE FORMAT FRAMEWORK FORMATS
# These have defaults of their own here. `make collection` has none for OVERWRITE: it continues where it was. (`export` comes
# last, since a line that begins with it is a directive. After the directive below, OVERWRITE would count as set.)
decoder tree export: OVERWRITE ?= true
RUNS ?= runs
ARTIFACTS ?= dist
TREE ?= dist/hub
HOST ?= 127.0.0.1
PORT ?= 8000
ARTIFACT ?= dist/vgg19-block5-conv2
PRIVATE ?= false
BENCH ?= bench
DRY_RUN ?= false

# Recipes read them from the environment, so that a value may hold quotes, spaces and dollar signs.
export $(VARIABLES) OVERWRITE RUNS ARTIFACTS TREE HOST PORT ARTIFACT PRIVATE DRY_RUN

# $(call flags,LAYER ASSET_URL): --layer="$LAYER" and so on, for the variables that are set.
flags = $(foreach name,$(1),$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z)="$$$(name)"))

PUBLICATION := DATASET LICENSE OUTPUT_DIR PUBLISHER MODEL_VERSION ASSET_URL OVERWRITE

.PHONY: help export decoder train collection convert demo stylize studio test bench tree serve kaggle huggingface lint lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

export: $(VENV)/installed  ## build and check an encoder: make export LAYER=block3_conv2 WEIGHTS=vgg19.h5
	$(RUN) build_encoder.py $(call flags,LAYER WEIGHTS SEED INDEX_DTYPE POOLING $(PUBLICATION))

decoder: $(VENV)/installed  ## build and check a decoder: make decoder LAYER=block3_conv2 WEIGHTS=decoder.h5
	$(RUN) build_decoder.py $(call flags,LAYER WEIGHTS SEED $(PUBLICATION))

train: $(VENV)/installed  ## train a decoder: make train LAYER=block3_conv2 WEIGHTS=vgg19.h5 PHOTOS=folder
	$(RUN) train_decoder.py --output_dir="$$RUNS" $(call flags,LAYER WEIGHTS SEED PHOTOS) $(TRAINING_FLAGS)

collection: $(VENV)/installed  ## build all encoders and trained decoders: make collection WEIGHTS=vgg19.h5 PHOTOS=folder
	$(RUN) build_collection.py $(call flags,LAYER WEIGHTS SEED PHOTOS RUNS TRAINING_FLAGS DECODER_DATASET $(PUBLICATION))

convert: $(VENV)/installed  ## make a module run elsewhere: make convert ARCHIVE=encoder.tar.gz FORMAT=onnx OUTPUT=encoder.onnx
	$(RUN) convert.py $(call flags,ARCHIVE FORMAT OUTPUT LICENSE) $(CONVERT_FLAGS)

demo: $(VENV)/installed  ## see it work, without a download: build a pair, train its decoder, decode a photograph
	$(RUN) demo.py $(call flags,LAYER OUTPUT_DIR)

stylize: $(VENV)/installed  ## give a photograph the look of another: make stylize CONTENT=a.jpg STYLE=b.jpg OUTPUT=out.png
	$(RUN) stylize.py $(call flags,CONTENT STYLE OUTPUT WEIGHTS) $(STYLIZE_FLAGS)

studio: $(VENV)/installed  ## the same on a page in the browser: make studio PORT=8000
	$(RUN) studio.py $(call flags,WEIGHTS HOST PORT) $(STUDIO_FLAGS)

test: $(VENV)/installed  ## run the tests
	$(RUN) -m pytest --numprocesses=auto --dist=loadfile $(PYTEST_FLAGS)

tree: $(VENV)/installed  ## add artifacts to a hub's tree: make tree ARTIFACTS=dist TREE=dist/hub
	$(RUN) -m publish.tree --output_dir="$$TREE" $(call flags,ARTIFACTS OVERWRITE)

serve: $(VENV)/installed  ## serve a hub's tree: make serve TREE=dist/hub PORT=8000
	$(RUN) -m publish.serve --root="$$TREE" $(call flags,HOST PORT)

kaggle: $(VENV)/installed  ## publish an artifact on Kaggle Models: make kaggle ARTIFACT=dist/vgg19-block5-conv2 DRY_RUN=true
	$(RUN) -m publish.kaggle $(call flags,ARTIFACT FRAMEWORK HANDLE DRY_RUN)

huggingface: $(VENV)/installed  ## publish an artifact on Hugging Face: make huggingface ARTIFACT=dist/vgg19-block5-conv2 DRY_RUN=true
	$(RUN) -m publish.huggingface $(call flags,ARTIFACT FORMATS REPOSITORY PRIVATE DRY_RUN)

bench: $(VENV)/installed  ## measure what the positions cost, for docs/performance.md; BENCH=style for docs/style.md
	$(RUN) -m benchmarks.$(BENCH) $(BENCH_FLAGS)

lint: $(VENV)/installed  ## check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

EXTRAS := hub onnx litert safetensors
DEPENDENCY_GROUPS := export train serve kaggle huggingface demo studio test lint

lock:  ## choose new pinned versions for requirements.txt from the ranges in pyproject.toml
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --upgrade pyproject.toml \
		$(addprefix --extra=,$(EXTRAS)) $(addprefix --group=,$(DEPENDENCY_GROUPS)) \
		--universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements.txt

clean:  ## remove what the other targets made, but not what took training: runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "make: $(PYTHON) is `$(PYTHON) -V 2>&1`; Python 3.11 to 3.13 is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt
	touch $@
