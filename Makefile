# make train   set everything up in .venv and watch the agent learn a pixel task (ARGS: further flags)
# make test    set everything up in .venv and run the tests in two processes (ARGS: further flags of pytest, such as --slow)
# make chaos   the long versions: slow tests, 100 kills and 200 env faults (40 minutes)
# make ranks   on a machine with GPUs, for each a process (on one without: two, with gloo): equality with one process, a killed one, the share of communication, ddp and fsdp, then a run that learns and its evaluation by one
# make gpu     on a machine with a GPU: recordings against plain updates, attention kernels, speed plain / as CUDA graphs / compiled too, one learning curve

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/installed
TASK ?= pixel_catch
STEPS ?= 48000

# a file's tests share what they train, so a file stays in one process
PARALLEL := -n 2 --dist loadfile

SPEED := benchmarks.speed --sizes size1m size12m size25m size100m

GPUS = $(shell nvidia-smi -L 2>/dev/null | grep -c .)
RANKS = $(if $(filter 0,$(GPUS)),2,$(GPUS))
TOGETHER = $(PYTHON) -m torch.distributed.run --standalone --nproc-per-node $(RANKS)
UPDATE = -m benchmarks.ranks $(if $(filter 0,$(GPUS)),--updates 1,--preset dmc_vision --size size100m)

.PHONY: train test chaos ranks gpu
.DELETE_ON_ERROR:

train: $(STAMP)
	$(PYTHON) -m dreamer4.main --configs pixel --task $(TASK) --run.steps $(STEPS) --logdir logdir/$(TASK) $(ARGS)

test: $(STAMP)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(PYTHON) -m pytest $(PARALLEL) $(ARGS)

chaos: $(STAMP)
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(PYTHON) -m pytest --slow $(ARGS)
	$(PYTHON) -m benchmarks.chaos

ranks: $(STAMP)
	RANKS_DEVICE=$(if $(filter 0,$(GPUS)),cpu,cuda) $(PYTHON) -m pytest tests/dreamer4/test_ranks.py tests/test_launch.py $(ARGS)
	$(TOGETHER) $(UPDATE) --flags --machine.shard ddp
	$(TOGETHER) $(UPDATE) --flags --machine.shard fsdp
	$(TOGETHER) -m dreamer4.main --configs pixel --task pixel_catch --run.steps $(STEPS) --logdir logdir/ranks
	$(PYTHON) -m dreamer4.main --script eval_only --from_checkpoint logdir/ranks

gpu: $(STAMP)
	$(PYTHON) -m pytest tests/dreamer4/test_record.py tests/dreamer4/test_cache.py tests/dreamer4/nets/test_attention.py $(ARGS)
	$(PYTHON) -m benchmarks.attention --presets dmc_vision:size12m dmc_vision:size100m --name attention_gpu
	$(PYTHON) -m $(SPEED) --name speed_gpu
	$(PYTHON) -m $(SPEED) --name speed_gpu_graphs --flags --machine.graphs true
	$(PYTHON) -m $(SPEED) --name speed_gpu_compiled --flags --machine.graphs true --machine.compile true
	MUJOCO_GL=$${MUJOCO_GL:-egl} $(PYTHON) -m benchmarks.learning dmc --tasks cartpole_balance --seeds 0 --frames 100000 --minutes 9 --flags --machine.graphs true

$(STAMP): pyproject.toml setup.py constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dmc,video,data,play,hub,dev]'
	touch $(STAMP)
