"""One torch thread: the networks of these tests are so small that waking a second one costs more
than it brings. And runs of both kinds of world model that hardly learned, to be played in.
"""

import pytest
import torch

from dreamer4 import main as command

torch.set_num_threads(1)

HERE = ['--driver.parallel', 'false', '--logger.outputs', 'jsonl', '--machine.threads', '1']
WORLDS = {'dreamer4': ['pixel', 'debug'], 'rssm': ['pixel', 'dreamerv3', 'debug']}


def made(folder, world: str, *flags):
    """The logdir of a run on pixel_reach that learned for a few updates."""
    common = ['--task', 'pixel_reach', '--env.pixel.size', '16', *HERE, *flags]
    common += ['--agent.tokenizer.patch', '8', '--run.steps', '130', '--run.envs', '2']
    schedule = ['tokenizer_updates 20', 'dynamics_updates 20', 'value_updates 2']
    common += [word for text in schedule for word in f'--agent.schedule.{text}'.split()]
    common += ['--run.prefill', '100', '--run.train_ratio', '128']
    flags = ['--configs', *WORLDS[world], *common, '--logdir', str(folder)]
    assert command.main(flags) == 0
    return folder


@pytest.fixture(scope='session')
def played(tmp_path_factory):
    """World model -> logdir of a run with a replay; made when it is asked for."""
    found = {}

    def logdir(world: str = 'dreamer4'):
        if world not in found:
            found[world] = made(tmp_path_factory.mktemp('played') / world, world)
        return found[world]

    return logdir
