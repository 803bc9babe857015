"""From the folder of a run to a game: agent, env and frames, as far as they can be had."""

import argparse
from collections.abc import Callable

from embodied import envs
from embodied.base import Env, Spaces
from embodied.config import Config
from embodied.errors import ConfigError, EmbodiedError, brief
from embodied.seeds import derive

from .. import runs
from ..dream import Dream
from ..load import restored, stored
from ..machine import MachineConfig, settle
from ..starts import Starts
from .game import Game, Settings
from .record import Recorder

Say = Callable[[str], None]


def maker(args: argparse.Namespace, say: Say) -> tuple[Callable[[Callable], Game], Recorder, str]:
    """What makes the game, the recorder of it, and its title.

    Args:
        args: of the command line. say: told what cannot be had.

    Raises:
        ConfigError, CheckpointError: there is no run that could be played.
    """
    logdir = runs.folder_of(args.logdir)
    config = stored(logdir, {'device': args.device, 'threads': args.threads})
    settle(config.machine.build(MachineConfig))
    obs_space, act_space = runs.read_spaces(logdir)
    settings = {block: config.env[block].to_dict() for block in envs.blocks(config.task)}
    meta = {'task': config.task, 'env': settings}
    recorder = Recorder(args.out or logdir / 'play', obs_space, act_space, meta)

    def make(on_episode: Callable) -> Game:
        env = None if args.alone else make_env(config, args, logdir, say)
        starts = make_starts(args, logdir, obs_space, act_space, say)
        agent = restored(logdir, config, obs_space, act_space, args.seed)
        dream = Dream(agent, obs_space, act_space)
        return Game(dream, env, starts, Settings(seed=args.seed), on_episode)

    return make, recorder, f'Dream of {config.task}, {logdir.name}'


def make_env(config: Config, args: argparse.Namespace, logdir, say: Say) -> Env | None:
    """The env of the run; None, and a word of why, where it cannot be made."""
    try:
        if not config.task:
            raise ConfigError('the run names no task')
        envs.check_stored(config.task, args.trust, logdir)
        tasks = runs.read_tasks(logdir)
        return envs.make(config.task, config.env.to_dict(), derive(args.seed, 'env'), tasks)
    except EmbodiedError as error:
        say(f'The dream is alone: {brief(error)}')
        return None


def make_starts(
    args: argparse.Namespace, logdir, obs_space: Spaces, act_space: Spaces, say: Say
) -> Starts | None:
    """The frames to begin at; None, and a word of why, where there are none and nobody asked."""
    try:
        return Starts(args.frames or logdir, obs_space, act_space)
    except ConfigError as error:
        if args.frames:
            raise
        say(f'No replay to begin in: {brief(error)}')
        return None
