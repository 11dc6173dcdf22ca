# Every target makes what it needs first; a fresh clone needs Python 3.10 to 3.13 and make.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
# Hides TensorFlow's remarks on the processor and tensorflow_hub's on pkg_resources.
RUN := TF_CPP_MIN_LOG_LEVEL=2 PYTHONWARNINGS='ignore:pkg_resources' $(VENV)/bin/python

# One variable for each flag of build_encoder.py, build_decoder.py and build_collection.py; an empty one leaves the flag's default.
LAYER ?=
WEIGHTS ?=
SEED ?=
DATASET ?=
INDEX_DTYPE ?=
POOLING ?=
OUTPUT_DIR ?=
PUBLISHER ?=
MODEL_VERSION ?=
ASSET_URL ?=
OVERWRITE ?= true

# For training: the photographs, what they are as a tag of the hub, the folder of the runs, and
# further flags of train_decoder.py.
PHOTOS ?=
DECODER_DATASET ?=
RUNS ?= runs
TRAINING_FLAGS ?=

# For a hub: what goes into the tree, the tree, and where it is served.
ARTIFACTS ?= dist
TREE ?= dist/hub
HOST ?= 127.0.0.1
PORT ?= 8000

# For Kaggle and Hugging Face: the artifact's folder; where to, if not by its card.
ARTIFACT ?= dist/vgg19-block5-conv2
HANDLE ?=
REPOSITORY ?=
PRIVATE ?= false
DRY_RUN ?= false

ARTIFACT_FLAGS = \
	$(if $(DATASET),--dataset='$(DATASET)') \
	$(if $(OUTPUT_DIR),--output_dir='$(OUTPUT_DIR)') \
	$(if $(PUBLISHER),--publisher='$(PUBLISHER)') \
	$(if $(MODEL_VERSION),--model_version='$(MODEL_VERSION)') \
	$(if $(ASSET_URL),--asset_url='$(ASSET_URL)')

DECODER_FLAGS = --overwrite=$(OVERWRITE) $(ARTIFACT_FLAGS) \
	$(if $(LAYER),--layer='$(LAYER)') \
	$(if $(WEIGHTS),--weights='$(WEIGHTS)') \
	$(if $(SEED),--seed='$(SEED)')

EXPORT_FLAGS = $(DECODER_FLAGS) \
	$(if $(INDEX_DTYPE),--index_dtype='$(INDEX_DTYPE)') \
	$(if $(POOLING),--pooling='$(POOLING)')

.PHONY: help export decoder train collection demo test bench tree serve kaggle huggingface lint lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

export: $(VENV)/installed  ## build and check an encoder: make export LAYER=block3_conv2 WEIGHTS=vgg19.h5
	$(RUN) build_encoder.py $(EXPORT_FLAGS)

decoder: $(VENV)/installed  ## build and check a decoder: make decoder LAYER=block3_conv2 WEIGHTS=decoder.h5
	$(RUN) build_decoder.py $(DECODER_FLAGS)

train: $(VENV)/installed  ## train a decoder: make train LAYER=block3_conv2 WEIGHTS=vgg19.h5 PHOTOS=folder
	$(RUN) train_decoder.py --photos='$(PHOTOS)' --output_dir='$(RUNS)' \
		$(if $(LAYER),--layer='$(LAYER)') $(if $(WEIGHTS),--weights='$(WEIGHTS)') $(if $(SEED),--seed='$(SEED)') \
		$(TRAINING_FLAGS)

collection: $(VENV)/installed  ## build all encoders and trained decoders: make collection WEIGHTS=vgg19.h5 PHOTOS=folder
	$(RUN) build_collection.py --overwrite=$(OVERWRITE) --runs='$(RUNS)' \
		$(if $(PHOTOS),--photos='$(PHOTOS)') $(if $(TRAINING_FLAGS),--training_flags='$(TRAINING_FLAGS)') \
		$(if $(WEIGHTS),--weights='$(WEIGHTS)') $(if $(SEED),--seed='$(SEED)') $(ARTIFACT_FLAGS) \
		$(if $(LAYER),--layer='$(LAYER)') $(if $(DECODER_DATASET),--decoder_dataset='$(DECODER_DATASET)')

demo: $(VENV)/installed  ## the whole job without a download: seeded weights, photographs, pictures to look at
	$(RUN) build_encoder.py --overwrite --weights=random --output_dir=dist/demo
	$(RUN) demo.py --archive=dist/demo/vgg19-block5-conv2/encoder.tar.gz --output_dir=dist/demo
	$(RUN) demo_decoder.py --output_dir=dist/demo

test: $(VENV)/installed  ## run the tests
	$(RUN) -m pytest --numprocesses=2 --dist=loadfile $(PYTEST_FLAGS)

tree: $(VENV)/installed  ## add artifacts to a hub's tree: make tree ARTIFACTS=dist TREE=dist/hub
	$(RUN) -m publish.tree --artifacts='$(ARTIFACTS)' --output_dir='$(TREE)' --overwrite=$(OVERWRITE)

serve: $(VENV)/installed  ## serve a hub's tree: make serve TREE=dist/hub PORT=8000
	$(RUN) -m publish.serve --root='$(TREE)' --host='$(HOST)' --port='$(PORT)'

kaggle: $(VENV)/installed  ## publish an artifact on Kaggle Models: make kaggle ARTIFACT=dist/vgg19-block5-conv2 DRY_RUN=true
	$(RUN) -m publish.kaggle --artifact='$(ARTIFACT)' $(if $(HANDLE),--handle='$(HANDLE)') --dry_run=$(DRY_RUN)

huggingface: $(VENV)/installed  ## publish an artifact on Hugging Face: make huggingface ARTIFACT=dist/vgg19-block5-conv2 DRY_RUN=true
	$(RUN) -m publish.huggingface --artifact='$(ARTIFACT)' $(if $(REPOSITORY),--repository='$(REPOSITORY)') \
		--private=$(PRIVATE) --dry_run=$(DRY_RUN)

bench: $(VENV)/installed  ## measure what the positions cost, and write docs/performance.md
	$(RUN) -m benchmarks.bench $(BENCH_FLAGS)

lint: $(VENV)/installed  ## check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

lock:  ## choose new pinned versions for requirements.txt from the ranges in pyproject.toml
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --upgrade pyproject.toml --extra serve --extra kaggle \
		--extra huggingface --extra test --extra lint \
		--universal --python-version 3.10 --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements.txt

clean:  ## remove what the other targets made, but not what took training: runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "make: $(PYTHON) is `$(PYTHON) -V 2>&1`; Python 3.10 to 3.13 is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt
	touch $@
