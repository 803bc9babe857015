"""A task and a configuration as an object, for those who write Python rather than command lines."""

from collections.abc import Sequence
from pathlib import Path

from embodied.base import Env
from embodied.checkpoint import find_save
from embodied.config import Config, configs_dir, expand_timestamp, parse
from embodied.errors import ConfigError
from embodied.run import evaluate
from embodied.run.evaluate import store
from embodied.run.evaluation import Evaluation
from embodied.seeds import derive

from . import parts, runs
from .agent import Agent
from .load import restored, stored
from .machine import settled


def create(
    task: str, configs: str | Sequence[str] = (), logdir: str | Path = '', **flags
) -> 'Experiment':
    """An experiment on a task; nothing runs yet.

        dreamer4.create('dmc_walker_walk', configs=['dmc_vision', 'size12m']).train()
        dreamer4.create('pixel_catch', 'pixel', seed=1, run={'steps': 48000})

    Args:
        task: as for --task. configs: presets, in this order.
        logdir: folder of the run; a new one below logdir/ if not given. With that of an earlier
            run its training goes on.
        flags: keys of the configuration, dotted or as nested dicts.

    Raises:
        ConfigError: an unknown preset or key, or a value that it does not take.
    """
    names = [configs] if isinstance(configs, str) else list(configs)
    config = parse(['--configs', *names] if names else [], configs_dir(Path(__file__).parent))
    config = config.update({'task': task, 'logdir': str(logdir) or config.logdir})
    return Experiment(config.update(flags, source='create()'))


class Experiment:
    """A task, a configuration and the folder of their run.

    Attributes:
        config: embodied.config.Config. logdir: folder of the run.
        interrupted: name of the signal that ended train() before it was complete, such as SIGTERM;
            '' for none.
    """

    def __init__(self, config: Config):
        self.logdir = Path(expand_timestamp(config.logdir)).expanduser()
        self.config = config.update({'logdir': str(self.logdir)})
        self.interrupted = ''
        self._agent: Agent | None = None

    def train(self) -> 'Experiment':
        """Run `script` (train, train_eval, offline, collect) until `run.steps` or a signal, such as
        Ctrl-C, of which `interrupted` tells; a run that is in logdir goes on. Returns itself.

        Raises:
            ConfigError: settings that cannot work, or those of the run in logdir differ.
            EnvError: the envs fail more often than `driver` allows.
        """
        config, self._agent = self.config, None
        with settled(parts.Parts(config, self.logdir).machine):
            self.interrupted = parts.run(config)
        return self

    @property
    def agent(self) -> Agent:
        """That of the newest checkpoint; without one the agent that train() begins with."""
        if self._agent is None:
            self._agent = self._trained() if (self.logdir / 'ckpt').is_dir() else self._fresh()
        return self._agent

    def env(self) -> Env:
        """A new environment of the task."""
        return parts.Parts(self.config, self.logdir).env('env', 0)()

    def evaluate(self, **flags) -> Evaluation:
        """Whole episodes of the agent in fresh environments; of a trained one, they also stand in
        logdir/eval/eval.json.

        Args:
            flags: keys of the block `eval`, such as episodes=100.
        """
        made = parts.Parts(self.config.update({'eval': flags}), self.logdir)
        setup = made.setup
        result = evaluate(self.agent, made.env, setup.eval, setup.driver, tasks=made.tasks)
        if (self.logdir / 'ckpt').is_dir():
            store(result, made.setup, find_save(self.logdir))
        return result

    def summary(self) -> str:
        """Of the agent: parts, parameters, tokens, and FLOPs per update."""
        return self.agent.summary()

    def _trained(self) -> Agent:
        config = stored(self.logdir, self.config.machine.to_dict())
        return restored(self.logdir, config, *runs.read_spaces(self.logdir), self.config.seed)

    def _fresh(self) -> Agent:
        env = self.env()
        try:
            seed = derive(self.config.seed, 'agent')
            return Agent.from_config(self.config, env.obs_space, env.act_space, seed)
        except ValueError as error:  # settings that do not go with each other or with these spaces
            raise ConfigError(str(error)) from error
        finally:
            env.close()
