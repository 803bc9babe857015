# make train   set everything up in .venv and watch the agent learn a pixel task (ARGS: further flags)
# make test    set everything up in .venv and run the tests (ARGS: further flags of pytest, such as --slow)
# make chaos   the long versions: slow tests, 100 kills and 200 env faults (40 minutes)

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/installed
TASK ?= pixel_catch
STEPS ?= 48000

.PHONY: train test chaos
.DELETE_ON_ERROR:

train: $(STAMP)
	$(PYTHON) -m dreamer4.main --configs pixel --task $(TASK) --run.steps $(STEPS) --logdir logdir/$(TASK) $(ARGS)

test: $(STAMP)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(PYTHON) -m pytest $(ARGS)

chaos: $(STAMP)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(PYTHON) -m pytest --slow $(ARGS)
	$(PYTHON) -m benchmarks.chaos

$(STAMP): setup.py constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dmc,video,dev]'
	touch $(STAMP)
