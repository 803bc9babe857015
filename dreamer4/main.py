"""The command line: parse, build, hand over to embodied.run. The only file that knows everything; nobody imports it.

    python -m dreamer4.main --configs dmc_vision --task dmc_cheetah_run

Exit status: 0 the run ended or was asked to end; 1 it failed; 2 something that was asked for makes no sense; 130 Ctrl-C, where
there was nothing to save. A checkpoint is evaluated, and collected with, as its run was configured; presets and flags override.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

from embodied import envs, schema
from embodied.base import RandomAgent
from embodied.config import Config, configs_dir, diff, expand_timestamp, nearest, parse
from embodied.console import steady
from embodied.driver import DriverConfig
from embodied.errors import CheckpointError, ConfigError, EmbodiedError
from embodied.logger import Logger, LoggerConfig
from embodied.replay import Replay, ReplayConfig
from embodied.run import EvalConfig, RunConfig, Setup, collect, eval_only, load_agent, offline, train
from embodied.seeds import derive

from .agent import Agent
from .agent_config import AgentConfig, find_device
from .cache import Mirror, frames_gb
from .optim import NonFiniteLoss

SCRIPTS = ('train', 'train_eval', 'eval_only', 'offline', 'collect')
# What may differ between a run and its resumption; everything else decides what was learned or stored.
MAY_CHANGE = r'script|logdir|from_checkpoint|run\.(?!envs|train_ratio).*|eval\..*|logger\..*|driver\..*|replay\.(max_gb|disk_gb|resume|prefetch)|agent\.(device|threads|graphs|cache\..*)'

# What an agent brings along to where it acts; the machine may be another one.
OF_THE_AGENT = r'task|env\..*|agent\.(?!device|threads|precision|graphs|cache).*'


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    with steady(patience=None):
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    try:
        return run(configure(argv))
    except ConfigError as error:
        print(f'dreamer4: {str(error).splitlines()[0]}', file=sys.stderr)  # an env worker's ConfigError brings its traceback along
        return 2
    except (EmbodiedError, NonFiniteLoss, ImportError) as error:
        print(f'dreamer4: {type(error).__name__}: {error}', file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    except KeyboardInterrupt:
        return 130


def configure(argv: list[str]) -> Config:
    """The config of a command line; where an agent is only to act, its run's config.yaml says what it is and where it acts."""
    folder = configs_dir(Path(__file__).parent)
    config = parse(argv, folder)
    if config.script not in ('eval_only', 'collect') or not config.from_checkpoint:
        return config
    place = Path(config.from_checkpoint).expanduser()
    logdir = place.parent if place.name == 'ckpt' else place.parent.parent if place.parent.name == 'ckpt' else place
    if not (logdir / 'config.yaml').exists():
        return config
    trained = {key: value for key, value in Config.load(logdir / 'config.yaml').flat.items() if re.fullmatch(OF_THE_AGENT, key)}
    return parse(argv, folder, base=trained)


def run(config: Config) -> int:
    """Build the parts of config.script and run it."""
    if config.script not in SCRIPTS:
        raise ConfigError(f'--script: unknown script {config.script!r}; {nearest(config.script, SCRIPTS)}')
    if not config.task and config.script != 'offline':
        raise ConfigError('--task is missing, as in --task pixel_catch or --task dmc_cheetah_run')
    if config.script == 'offline' and not config.replay.directory:
        raise ConfigError('--replay.directory is missing: the offline script learns from a replay folder')
    if config.script == 'eval_only' and not config.from_checkpoint:
        raise ConfigError('--from_checkpoint is missing: the eval_only script evaluates a checkpoint')
    if config.task:
        envs.make_config(config.task, config.env.to_dict())
    logdir = Path(expand_timestamp(config.logdir)).expanduser()
    config = config.update({'logdir': str(logdir)})
    if config.script != 'eval_only':
        compare(config, logdir)
    return Parts(config, logdir).run()


def compare(config: Config, logdir: Path) -> None:
    """Check that a run in `logdir`, if there is one, was started with the same settings.

    Raises:
      ConfigError: lists the keys that differ, with old and new values.
    """
    path = logdir / 'config.yaml'
    if not path.exists():
        return
    changes = {k: v for k, v in diff(Config.load(path), config).items() if not re.fullmatch(MAY_CHANGE, k)}
    if changes:
        text = ', '.join(f'{k}: {old!r} -> {new!r}' for k, (old, new) in changes.items())
        raise ConfigError(f'{logdir} holds a run with other settings ({text}); choose another --logdir or the old values')


class Parts:
    """Constructors of everything a script needs, from one config."""

    def __init__(self, config: Config, logdir: Path):
        self.config = config
        self.setup = Setup(
            task=config.task, seed=config.seed, logdir=logdir,
            from_checkpoint=Path(config.from_checkpoint).expanduser() if config.from_checkpoint else None,
            run=config.run.build(RunConfig), eval=config.eval.build(EvalConfig),
            driver=config.driver.build(DriverConfig))
        self.logger_config = config.logger.build(LoggerConfig)
        self.replay_config = config.replay.build(ReplayConfig)
        self.agent_config = config.agent.build(AgentConfig)

    def run(self) -> int:
        script = self.config.script
        if script in ('train', 'train_eval'):
            train(self.agent, self.env, self.replay, self.logger, self.setup, evaluating=script == 'train_eval')
        elif script == 'offline':
            offline(self.agent, self.offline_replay, self.logger, self.setup)
        elif script == 'collect':
            collect(self.collector, self.env, self.replay, self.logger, self.setup)
        else:
            load = lambda agent: load_agent(agent, self.setup.from_checkpoint)
            eval_only(self.agent, self.env, self.setup, load, self.logger_config.fps)
        return 0

    def agent(self, obs_space, act_space) -> Agent:
        config = self.agent_config
        if self.config.script in ('eval_only', 'collect'):  # it acts, and needs no weights of a loss
            config = replace(config, tokenizer=replace(config.tokenizer, lpips=0.0))
        try:
            agent = Agent(obs_space, act_space, config, derive(self.config.seed, 'agent'))
        except ValueError as error:  # settings that do not go together, or not with these spaces
            raise ConfigError(str(error)) from error
        self._keep_config()
        return agent

    def collector(self, obs_space, act_space) -> Agent | RandomAgent:
        if self.setup.from_checkpoint is not None:
            return self.agent(obs_space, act_space)
        self._keep_config()
        return RandomAgent(act_space, derive(self.config.seed, 'agent'))

    def _keep_config(self) -> None:
        """Write config.yaml, now that the envs and the replay exist: a start that fails leaves no run behind."""
        if self.config.script != 'eval_only':
            self.setup.logdir.mkdir(parents=True, exist_ok=True)
            self.config.save(self.setup.logdir / 'config.yaml')

    def env(self, kind: str, index: int):
        return envs.Maker(self.config.task, self.config.env.to_dict(), derive(self.config.seed, kind, index))

    def replay(self, obs_space, act_space, meta, on_event) -> Replay | Mirror:
        return self._mirrored(Replay(
            self.replay_config, self._replay_folder(), derive(self.config.seed, 'replay'), obs_space, act_space, meta, on_event=on_event))

    def _mirrored(self, replay: Replay) -> Replay | Mirror:
        """The replay, with its images on the device where an agent learns and there is room for them."""
        if self.config.script == 'collect':
            return replay
        try:
            device = find_device(self.agent_config.device)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        gigabytes = frames_gb(self.agent_config.cache, device)
        return Mirror(replay, device, gigabytes) if gigabytes else replay

    def offline_replay(self, on_event) -> Replay | Mirror:
        folder = self._replay_folder()
        if not folder.is_dir():
            raise ConfigError(f'--replay.directory: {folder} is no folder')
        known = schema.read(folder)
        obs_space, act_space = (known[1], known[2]) if known else (None, None)
        return self._mirrored(Replay(
            self.replay_config, folder, derive(self.config.seed, 'replay'), obs_space, act_space, read_only=True, on_event=on_event))

    def _replay_folder(self) -> Path:
        return Path(self.config.replay.directory).expanduser() if self.config.replay.directory else self.setup.logdir / 'replay'

    def logger(self, counters, on_event) -> Logger:
        return Logger(self.setup.logdir, self.logger_config, counters, on_event)


if __name__ == '__main__':
    sys.exit(main())
