# The only door for people. Each target is one call of `python -m runner VERB`; `make help` lists them.
#
# Nothing that is typed ever becomes shell text: every variable set on make's command line (and only there) travels, not
# expanded, in the environment as RUNNER_MAKE_<NAME>; no recipe mentions one. The verb refuses a name that it does not know.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

python3.11 := $(shell command -v python3.11 || command -v python3)
runner := .venv/bin/python -m runner
check := .venv-check/bin/python

typed := $(strip $(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $v)),$v)))
$(foreach v,$(typed),$(eval override RUNNER_MAKE_$v := $$(value $v))$(eval export RUNNER_MAKE_$v)$(eval unexport $v))
ifneq ($(and $(typed),$(filter check test test-docker fix clean help,$(MAKECMDGOALS))),)
$(error $(typed:%=%=): no such variable here; this target takes none)
endif

## Train, evaluate, look

.PHONY: train
train: .venv/ready ## train PROJECT= CONFIG=, with SET= TAG= DATA=toy GPUS= MODE= ENGINE= DETACH=1 DRY_RUN=1
	@$(runner) train

.PHONY: eval
eval: .venv/ready ## evaluate RUN=, with SPLIT=val|test CHECKPOINT=best|latest|<step> DATASET=; writes under outputs/
	@$(runner) eval

.PHONY: resume
resume: .venv/ready ## go on with an interrupted RUN= in the same session, with SET= FORCE=1
	@$(runner) resume

.PHONY: reproduce
reproduce: .venv/ready ## run RUN= again from its inputs/ and give a verdict, with LEVEL= VERIFY=full FORCE=1
	@$(runner) reproduce

.PHONY: compare
compare: .venv/ready ## RUNS="a b c" side by side: what differs, scores, curves (terminal and PNG)
	@$(runner) compare

.PHONY: ls
ls: .venv/ready ## list runs, of one PROJECT=
	@$(runner) ls

.PHONY: show
show: .venv/ready ## everything about RUN=
	@$(runner) show

.PHONY: logs
logs: .venv/ready ## the log of RUN=; FOLLOW=1 goes on until it ends
	@$(runner) logs

.PHONY: stop
stop: .venv/ready ## ask RUN= to stop; NOW=1 kills it
	@$(runner) stop

.PHONY: rm
rm: .venv/ready ## delete RUN= and its evaluations (asks; YES=1)
	@$(runner) rm

## Share

.PHONY: export
export: .venv/ready ## RUN= as one FILE=, with its image, wheels or neither: WITH=image|wheels|none
	@$(runner) export

.PHONY: import
import: .venv/ready ## the run in FILE=, verified before anything is written
	@$(runner) import

.PHONY: release
release: .venv/ready ## a checkpoint of RUN= as models/NAME=, with a card; CHECKPOINT=best VERSION=
	@$(runner) release

.PHONY: model
model: .venv/ready ## weights from outside as models/NAME=: SOURCE=file, or an address with CHECKSUM=
	@$(runner) model

## Prepare

.PHONY: demo
demo: .venv/ready ## engine, image, toy data, train, eval: the whole road on a fresh machine, with ENGINE=
	@$(runner) demo

.PHONY: dataset
dataset: .venv/ready ## prepare DATASET=, from SOURCE= or the authors' site; STAGE=raw|lists|lmdb|toy|readme
	@$(runner) dataset

.PHONY: new-dataset
new-dataset: .venv/ready ## the folder of a new DATASET=, with three functions to fill
	@$(runner) new-dataset

.PHONY: explore
explore: .venv/ready ## DATASET= as one page: samples, balance, shapes, duplicates, what cannot be read
	@$(runner) explore

.PHONY: lint-dataset
lint-dataset: .venv/ready ## hold DATASET= against its dataset.yml, and its toy set against the full one
	@$(runner) lint-dataset

.PHONY: check-datasets
check-datasets: .venv/ready ## say whether the README of each data set, or of DATASET=, still tells the truth
	@$(runner) check-datasets

.PHONY: image
image: .venv/ready ## build the image of PROJECT= (a launch does it by itself), with MODE= GPUS=
	@$(runner) image

.PHONY: lock
lock: .venv/ready .venv-check/ready ## compile requirements/*.in to locks with hashes, of one PROJECT=
	@$(check) -m runner lock

.PHONY: shell
shell: .venv/ready ## a shell in the development container of PROJECT=, on the live code
	@$(runner) shell

.PHONY: notebook
notebook: .venv/ready ## JupyterLab in the development container of PROJECT=, on 127.0.0.1, PORT=8888
	@$(runner) notebook

.PHONY: engine
engine: .venv/ready ## install and start Docker where there is none (Debian or Ubuntu, root)
	@$(runner) engine

## Work on the runner itself

.PHONY: check
check: .venv-check/ready ## format, lint, types, import contracts, locks, and the quick tests; changes nothing
	@$(check) -m ruff format --check .
	@$(check) -m ruff check .
	@$(check) -m mypy
	@.venv-check/bin/lint-imports --no-cache
	@$(check) -m runner lock --check
	@$(check) -m pytest -q -m "not docker and not gpu and not slow"

.PHONY: test
test: .venv-check/ready .venv/ready ## the whole test-suite; first gives the machine an engine where it may
	@$(runner) engine --if-possible
	@$(check) -m pytest

.PHONY: test-docker
test-docker: .venv-check/ready .venv/ready ## only the tests that need containers
	@$(check) -m pytest -m docker

.PHONY: fix
fix: .venv-check/ready ## format and mend what can be mended by machine
	@$(check) -m ruff format .
	@$(check) -m ruff check --fix .

.PHONY: clean
clean: ## remove the virtual environments and the cache (no run, no data)
	@rm -rf .venv .venv-check .cache

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

# The host's own environment is made by pip from a lock with hashes: all it takes is Python 3.11. It is made beside and
# renamed, so that it is complete or absent, and two makes at once do not hurt each other. The one for checks is made
# by the runner, which finds torch's CPU build wherever this machine's pip is not told where to look.
.venv/ready: requirements/host.txt
	@echo "making .venv from $< ..." >&2; beside=.venv-$$$$; trap 'rm -rf $$beside' EXIT; \
	"$(python3.11)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "found $$("$(python3.11)" --version), expected Python 3.11; install it and run again" >&2; exit 2; }; \
	"$(python3.11)" -m venv $$beside && $$beside/bin/python -m pip --quiet --disable-pip-version-check install \
		--require-hashes --only-binary :all: --requirement $< && touch $$beside/ready \
		&& rm -rf .venv && { mv -T $$beside .venv 2>/dev/null || test -e $@; }

.venv-check/ready: requirements/check.txt .venv/ready
	@$(runner) venv --lock check >/dev/null
