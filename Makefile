# The commands of a developer; `make help` lists them. The first run builds an environment, later runs check stamps.
#
# The package is installed, not linked: an editable install puts no data files (launch, config, urdf, ament index) in
# place. It is installed again whenever a file of it changes, so programs and tests run what the checkout holds.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# --- ROS 2 distribution: jazzy (default) or kilted, each in its own environment ------------------------------------
DISTROS := jazzy kilted
# A sourced ROS installation exports ROS_DISTRO too; that is no choice made for this Makefile unless it is one of ours.
ifneq ($(origin ROS_DISTRO),command line)
ifeq ($(filter $(DISTROS),$(ROS_DISTRO)),)
ROS_DISTRO := jazzy
endif
endif
ifeq ($(filter $(DISTROS),$(ROS_DISTRO)),)
$(error ROS_DISTRO=$(ROS_DISTRO) is not supported; use one of: $(DISTROS))
endif
export ROS_DISTRO

VENV := $(if $(filter jazzy,$(ROS_DISTRO)),.venv,.venv-$(ROS_DISTRO))
BIN := $(VENV)/bin

# --- Environment of every command -----------------------------------------------------------------------------------
# ROS 2 comes from the environment's wheels: what a sourced installation or another environment's wheels exported
# (their bootstrap guard included) would mix the two.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH LD_LIBRARY_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
# `python -m` must find the installed package, not the working directory.
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# --- Python 3.11 ------------------------------------------------------------------------------------------------------
IS_311 := import sys; sys.exit(sys.version_info[:2] != (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python; do "$$p" -c '$(IS_311)' 2>/dev/null && { echo $$p; break; }; done)

# --- What the package consists of --------------------------------------------------------------------------------------
METADATA := package.xml setup.py setup.cfg pyproject.toml LICENSE
TREES := safe_rl_ros launch config urdf resource scripts
PACKAGE_FILES = $(METADATA) $(shell find $(TREES) -type f -not -name '*.pyc' | LC_ALL=C sort)
CONSTRAINTS := constraints/$(ROS_DISTRO).txt
STAGE := $(VENV)/.stage
EXTRAS := ros-$(ROS_DISTRO),pybullet,test
TEST_WORKERS ?= 2
# What the installed dependencies follow from.
DEPENDENCIES = cat setup.py $(CONSTRAINTS); echo '$(EXTRAS)'

define STAGE_PACKAGE
rm -rf $(STAGE) && mkdir -p $(STAGE) && cp -r $(METADATA) $(TREES) $(STAGE)
endef

.PHONY: help demo test test-ros test-slow lint venv lock clean distclean FORCE

help: ## List the targets
	@echo "Usage: make TARGET [ROS_DISTRO=jazzy|kilted]   (environment: $(VENV))"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: venv ## Train, run a session over ROS 2 with the filter in the loop, evaluate, print the table
	$(BIN)/safe-rl-ros demo

# Tests run beside each other, but for those with ROS that watch deadlines: one at a time.
test: lint ## Linters, types and all tests but the slow ones; with PYTEST_ARGS=... those, one at a time
ifeq ($(strip $(PYTEST_ARGS)),)
	$(BIN)/pytest -m '(patient or not ros) and not slow' --numprocesses $(TEST_WORKERS) --dist loadfile
	$(BIN)/pytest -m 'ros and not patient and not slow'
else
	$(BIN)/pytest $(PYTEST_ARGS)
endif

test-ros: venv ## Only the tests that need ROS 2, which must be there
	SAFE_RL_ROS_REQUIRE_ROS=1 $(BIN)/pytest -m 'ros and not slow' $(PYTEST_ARGS)

test-slow: venv ## Only the slow tests
	$(BIN)/pytest -m slow --timeout 1800 $(PYTEST_ARGS)

lint: venv ## ruff and mypy
	@$(BIN)/ruff check . || { echo "make: ruff found the above; '$(BIN)/ruff check --fix .' mends the simple ones" >&2; exit 1; }
	@$(BIN)/mypy || { echo "make: mypy found the above type errors" >&2; exit 1; }

venv: $(VENV)/.installed ## Create or refresh the environment

# The environment's stamp exists only after pip works in it; a half-made one is made anew.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 not found as python3.11, python3 or python." >&2; \
	  echo "  Install it (Debian, Ubuntu: apt install python3.11 python3.11-venv; or pyenv, uv, conda)," >&2; \
	  echo "  or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c '$(IS_311)' || { echo "make: PYTHON=$(PYTHON) is not Python 3.11" >&2; exit 1; }
	@echo "make: creating $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv --clear $(VENV) && $(BIN)/python -m pip --version > /dev/null || { rm -rf $(VENV); \
	  echo "make: no virtual environment could be made; on Debian and Ubuntu: apt install python3.11-venv" >&2; exit 1; }
	@touch $@

# Changes only when the content or the list of files changes, whatever their times say.
$(VENV)/.sources: FORCE | $(VENV)/.created
	@sha256sum $(PACKAGE_FILES) > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Dependencies are looked at only when their list changed; the package alone is a matter of seconds.
$(VENV)/.installed: $(VENV)/.sources $(CONSTRAINTS) Makefile
	@$(STAGE_PACKAGE)
	@if ! { $(DEPENDENCIES); } | cmp -s - $(VENV)/.deps; then \
	  echo "make: installing the pinned dependencies of $(CONSTRAINTS); minutes the first time"; \
	  { $(BIN)/pip install --quiet -c $(CONSTRAINTS) setuptools && \
	    $(BIN)/pip install --quiet --no-build-isolation -c $(CONSTRAINTS) '$(STAGE)[$(EXTRAS)]'; } || { \
	    echo "make: pip failed, see above. No network or index: try again later. A version is gone or conflicts:" >&2; \
	    echo "  'make lock ROS_DISTRO=$(ROS_DISTRO)' resolves anew. A broken environment: 'make distclean' and try again." >&2; \
	    exit 1; }; \
	  $(BIN)/pip check || { echo "make: the installed packages contradict each other; 'make lock' resolves anew" >&2; exit 1; }; \
	  { $(DEPENDENCIES); } > $(VENV)/.deps; \
	else \
	  echo "make: installing safe_rl_ros into $(VENV)"; \
	  $(BIN)/pip install --quiet --no-deps --no-build-isolation $(STAGE) || { \
	    echo "make: the package did not install, see above; 'make distclean' starts afresh" >&2; exit 1; }; \
	fi
	@rm -rf $(STAGE)
	@touch $@

lock: $(VENV)/.created ## Resolve the newest versions that fit and write them to constraints/
	@$(STAGE_PACKAGE)
	@$(BIN)/python constraints/lock.py $(ROS_DISTRO) --project $(STAGE) || { \
	  echo "make: pip found no solution, see above; $(CONSTRAINTS) is unchanged" >&2; exit 1; }
	@rm -rf $(STAGE)
	@echo "make: wrote $(CONSTRAINTS); run 'make test ROS_DISTRO=$(ROS_DISTRO)' before you commit it"

clean: ## Remove build outputs and caches; environments and runs stay
	rm -rf build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(TREES) test benchmarks constraints -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove the environments too
	rm -rf .venv .venv-kilted
