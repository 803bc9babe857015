"""The parts of a run, made from one configuration, and the script that is run with them.

torch takes seconds to import, so only what needs it imports it, behind the checks of flags and
tasks.
"""

import contextlib
import functools
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

from embodied import envs
from embodied.base import RandomAgent, Spaces
from embodied.checkpoint import saves_of
from embodied.config import Config, expand_timestamp
from embodied.drive import Driver, DriverConfig
from embodied.errors import CheckpointError, ConfigError
from embodied.log import Logger, LoggerConfig, Silent
from embodied.machine import memory_gb, over_disk, over_memory
from embodied.ranks import Ranks
from embodied.replay import Replay, ReplayConfig
from embodied.replay.config import anchored, share_of_budgets
from embodied.replay.demos import named
from embodied.replay.infer import demand_rows, folder_of, infer_spaces
from embodied.replay.meta import read as read_meta
from embodied.replay.several import folders_of
from embodied.replay.shard import shard
from embodied.run import (
    EvalConfig,
    RunConfig,
    Setup,
    collect,
    compare,
    eval_only,
    load_agent,
    offline,
    train,
)
from embodied.run.compare import store, table
from embodied.seeds import derive
from embodied.tasks import KEY, TaskId

from . import __version__, runs

LOOKS = ('eval_only', 'report', 'compare')  # scripts that look at a run, in its own folder
UNSAID = 'logdir/{timestamp}'  # the logdir of a command that names none


def run(config: Config, ranks: Ranks = Ranks()) -> str:
    """Build the parts of config.script and run it, as one of the processes of the run. Returns the
    name of the signal that cut it short, '' for none.
    """
    if config.from_checkpoint and not (place := Path(config.from_checkpoint).expanduser()).is_dir():
        raise ConfigError(f'--from_checkpoint {place} is no folder')
    if config.from_checkpoint and place.name in runs.PARTS:
        config = config.update({'from_checkpoint': str(runs.folder_of(place))})
    if not config.task and config.from_checkpoint and config.script in (*LOOKS, 'collect'):
        raise ConfigError(
            f'--from_checkpoint {runs.none_in(place)}; give the folder of a run, or --task'
        )
    if config.script in LOOKS and not config.from_checkpoint:
        raise ConfigError(
            f'--from_checkpoint is missing: the {config.script} script looks at a run or checkpoint'
        )
    if not config.task and config.script != 'offline':
        raise ConfigError('--task is missing, as in --task pixel_catch or --task dmc_cheetah_run')
    if config.script == 'offline' and not config.replay.directory:
        raise ConfigError(
            '--replay.directory is missing: the offline script learns from a replay folder'
        )
    several = len(config.replay.directory) > 1
    if several and config.script not in ('offline', 'report'):
        raise ConfigError(
            f'--replay.directory: several folders are read by --script offline; {config.script}'
            ' writes to one'
        )
    if config.phases and config.script != 'offline':
        raise ConfigError('--phases are those of --script offline; the other scripts have none')
    if config.task and config.script != 'report':  # which plays nothing
        envs.check(config.task, config.env.to_dict())
    note = older = ''
    for key in named(config.replay):
        demand_rows(f'--replay.{key}', folder_of(config.replay[key]))
    if config.script == 'offline':
        folders_of(config.replay.directory)
        config, note = runs.as_stored(config)
    if not config.logdir.strip():
        raise ConfigError('--logdir is empty; give the folder of the run, as in logdir/first')
    if config.script in LOOKS and config.logdir == UNSAID:
        config = config.update({'logdir': str(runs.folder_of(config.from_checkpoint))})
    logdir = Path(ranks.first(expand_timestamp(config.logdir))).expanduser()
    config = config.update({'logdir': str(logdir)})
    if config.from_checkpoint and (config.script in LOOKS or not (logdir / 'ckpt').is_dir()):
        saves_of(Path(config.from_checkpoint).expanduser())
    if config.script not in LOOKS:
        if (run := runs.folder_of(logdir)) != logdir and (run / runs.FILENAME).exists():
            raise ConfigError(f'--logdir {logdir} lies inside of the run {run}; give another')
        config, older = runs.resumed(config, logdir)
    return Parts(config, logdir, ranks, ' '.join(filter(None, [note, older]))).run()


def writable(logdir: Path) -> None:
    """Refuse a logdir that nothing can be written to. Raises ConfigError."""
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=logdir).close()
    except OSError as error:
        raise ConfigError(
            f'--logdir {logdir} cannot be written ({error.strerror}); give another'
        ) from error


class Parts:
    """Constructors of everything a script needs, from one config; `note` is said at the start."""

    # Folders are absolute: an env in this process may change the present one.
    def __init__(self, config: Config, logdir: Path, ranks: Ranks = Ranks(), note: str = ''):
        self.config, self.ranks = config, ranks
        self.setup = Setup(
            task=config.task,
            seed=config.seed,
            logdir=logdir.absolute(),
            from_checkpoint=(
                Path(config.from_checkpoint).expanduser().absolute()
                if config.from_checkpoint
                else None
            ),
            run=config.run.build(RunConfig),
            eval=config.eval.build(EvalConfig),
            driver=config.driver.build(DriverConfig),
            phases=tuple(map(str, config.phases)),
            ranks=ranks,
            warnings=(note,) if note else (),
        )
        self.logger_config = config.logger.build(LoggerConfig)
        replay = anchored(config.replay.build(ReplayConfig))
        self.replay_config = share_of_budgets(replay, ranks.count)

    def _check_phases(self) -> None:
        """Refuse phases that cannot be, and to wait for a measure of episodes that nobody holds
        out.
        """
        from .schedule import ordered

        ordered(self.setup.phases)
        waits = self.config.script == 'offline' and self.config.agent.schedule.plateau
        if waits and not self.config.replay.held_out:
            raise ConfigError(
                'agent.schedule.plateau measures episodes that nothing learns from: give them a'
                ' share, as in --replay.held_out 0.05'
            )

    def run(self) -> str:
        self._check_phases()
        script, what = self.config.script, f'{self.config.script} {self.config.task}'.rstrip()
        if not self.ranks.number:
            print(f'dreamer4 {__version__}: {what} in {self.setup.logdir}', flush=True)
        writable(self.setup.logdir)
        # These import torch, and refuse what cannot work before any env is built.
        from .machine import settle

        warnings = (*self.setup.warnings, *self._budget_warnings())
        self.setup = replace(self.setup, warnings=warnings)
        settle(self.machine)
        if script != 'offline':
            self.setup = replace(self.setup, tasks=self.tasks)
        cut_by = ''
        if script in ('train', 'train_eval'):
            cut_by = train(
                self.agent,
                self.env,
                self.replay,
                self.logger,
                self.setup,
                evaluating=script == 'train_eval',
            )
        elif script == 'offline':
            cut_by = offline(self.agent, self.offline_replay, self.logger, self.setup)
        elif script == 'report':
            self._report()
        elif script == 'compare':
            self._compare()
        elif script == 'collect':
            cut_by = collect(self.collector, self.env, self.replay, self.logger, self.setup)
        else:
            eval_only(self.agent, self.env, self.setup, self._load, self.logger_config.fps)
        if script in ('train', 'train_eval', 'offline') and not self.ranks.number:
            self._suggest()
        return cut_by

    def _load(self, agent) -> Path:
        """Give an agent the weights of the run that is looked at."""
        try:
            return load_agent(agent, self.setup.from_checkpoint)
        except CheckpointError as error:
            logdir = runs.folder_of(self.setup.from_checkpoint)
            known = (logdir / runs.FILENAME).exists()
            words = (
                runs.unlike(logdir, self.config, agent.obs_space, agent.act_space) if known else ''
            )
            if not words:
                raise
            raise CheckpointError(f'{logdir} was made for another agent:{words}') from error

    def _report(self) -> None:
        from .report import report
        from .report.config import ReportConfig

        rows, device = self.config.replay.directory, self.config.machine.device
        place, out = self.setup.from_checkpoint, self.setup.logdir / 'report'
        size = self.config.report.build(ReportConfig)
        report(place, rows, size, out, self.config.seed, device)

    def _compare(self) -> None:
        """The policy, the behaviour clone where there is one, and random actions."""
        with contextlib.closing(self.env('eval', 0)()) as env:
            spaces = env.obs_space, env.act_space
        players = {'policy': self.agent(*spaces)}
        save = self._load(players['policy'])
        if players['policy'].world.clone is not None:
            players['clone'] = self.agent(*spaces)
            load_agent(players['clone'], save)
            players['clone'].actor_critic.start_from(players['clone'].world.clone)
        seed = derive(self.config.seed, 'agent')
        players['random'] = RandomAgent(spaces[1], seed, self.space)
        given = self.setup.eval, self.setup.driver, self.setup.tasks
        found = compare(players, self.env, *given)
        facts = {'task': self.setup.task, 'seed': self.setup.seed, 'checkpoint': str(save)}
        print(table(found))
        print(f'Written to {store(found, facts, self.setup.logdir)}.')

    def _suggest(self) -> None:
        """Say what to do with a run that has ended."""
        logdir = shlex.quote(str(self.setup.logdir))
        commands = [f'tensorboard --logdir {logdir}', f'python -m dreamer4.diagnose {logdir}']
        if self.config.task:
            evaluate = 'python -m dreamer4.main --script eval_only --from_checkpoint'
            commands.append(f'{evaluate} {logdir}')
            commands.append(f'python -m dreamer4.main --script compare --from_checkpoint {logdir}')
        commands.append(f'python -m dreamer4.main --script report --from_checkpoint {logdir}')
        print('\n'.join(['Next:', *(f'  {command}' for command in commands)]))

    @functools.cached_property
    def agent_config(self):
        """The block `agent`, checked."""
        from .agent_config import AgentConfig, check

        built = self.config.agent.build(AgentConfig)
        try:
            check(built)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return built

    @functools.cached_property
    def machine(self):
        """The block `machine`, checked against the agent that it is to carry."""
        from .machine import MachineConfig, check

        built = self.config.machine.build(MachineConfig)
        try:
            check(built, self.agent_config)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return built

    def _budget_warnings(self) -> tuple[str, ...]:
        """Sentences about budgets that this machine cannot meet."""
        from .cache import free_gb
        from .machine import find_device

        budgets, device = self.replay_config, find_device(self.machine.device)
        rows = {'replay.max_gb': budgets.max_gb}
        frames = self.machine.cache.frames_gb  # -1 is what fits
        kept = {'machine.cache.frames_gb': max(0.0, frames)}
        if device.type == 'cpu':
            found = over_memory(rows | kept, memory_gb(), 'this machine')
        else:
            found = over_memory(rows, memory_gb(), 'this machine')
            found += over_memory(kept, free_gb(device), str(device))
        if self.config.script != 'offline':  # which adds nothing to the folder
            found += over_disk('replay.disk_gb', budgets.disk_gb, self._replay_folder())
        return tuple(found)

    def agent(self, obs_space, act_space):
        from .agent import Agent

        config = self.agent_config
        # it acts, and needs no weights of a loss
        if self.config.script in (*LOOKS, 'collect'):
            config = replace(config, tokenizer=replace(config.tokenizer, lpips=0.0))
        try:
            seed = derive(self.config.seed, 'agent')
            agent = Agent(obs_space, act_space, config, self.machine, seed)
        except ValueError as error:  # settings that do not go with these spaces
            raise ConfigError(str(error)) from error
        self._keep_config()
        if self.config.script not in LOOKS and not self.ranks.number:
            runs.write_spaces(self.setup.logdir, obs_space, act_space)
        return agent

    def collector(self, obs_space, act_space):
        if self.setup.from_checkpoint is not None:
            return self.agent(obs_space, act_space)
        self._keep_config()
        return RandomAgent(act_space, derive(self.config.seed, 'agent'), self.space)

    def _keep_config(self) -> None:
        """Write config.yaml, now that the envs and the replay exist: a start that fails leaves
        no run behind.
        """
        if self.config.script not in LOOKS and not self.ranks.number:
            self.setup.logdir.mkdir(parents=True, exist_ok=True)
            self.config.save(self.setup.logdir / 'config.yaml')

    def env(self, kind: str, index: int, task: str = ''):
        """Constructor of env `index` of a kind; of one of several tasks, if it is named."""
        config, seed = self.config.env.to_dict(), derive(self.config.seed, kind, index)
        if self.space is None:
            return envs.Maker(self.config.task, config, seed)
        index, count = (0, 1) if task else (index, self.setup.run.envs * self.ranks.count)
        return envs.deal(task or self.config.task, config, self.space, index, count, seed)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of several tasks; none for one."""
        return () if self.space is None else envs.members(self.config.task)

    @functools.cached_property
    def space(self) -> TaskId | None:
        """Several tasks: those of the run that goes on or is taken up, else as a worker finds them;
        None for one task.
        """
        tasks = envs.members(self.config.task)
        for folder in filter(None, (self.setup.from_checkpoint, self.setup.logdir)):
            known = runs.read_tasks(runs.folder_of(folder))
            if known is not None and set(tasks) <= set(known.names):
                return known
        if len(tasks) < 2:
            return None
        prober = envs.prober(tasks, self.config.env.to_dict())
        driver = self.setup.driver
        parallel = driver.parallel is not False  # no renderer is to be opened beside the learner
        patience = driver.start_timeout * len(tasks)
        driver = replace(driver, parallel=parallel, start_timeout=patience)
        with contextlib.closing(Driver([prober], driver, notes=False)) as probe:
            return probe.obs_space[KEY]

    def replay(self, obs_space, act_space, meta, on_event):
        blocks = envs.blocks(self.config.task)
        number = self.ranks.number
        meta = meta | {'env': {block: self.config.env[block].to_dict() for block in blocks}}
        return Replay(
            self.replay_config,
            shard(self._replay_folder(), number, self.ranks.count),
            derive(self.config.seed, 'replay', number),
            obs_space,
            act_space,
            meta,
            on_event=on_event,
        )

    def offline_replay(self, on_event):
        folders = folders_of(self.replay_config.directory)
        obs_space, act_space = self._stored_spaces(folders[0])
        return Replay(
            self.replay_config,
            folders,
            derive(self.config.seed, 'replay', self.ranks.number),
            obs_space,
            act_space,
            read_only=True,
            on_event=on_event,
        )

    def _stored_spaces(self, folder: Path) -> tuple[Spaces, Spaces]:
        """Of the env that made the rows: as meta.json names them; without it those of the task,
        whose env is built for them alone, or what the arrays and run.actions say.
        """
        known = read_meta(folder)
        if known and known[1] and known[2]:
            return known[1], known[2]
        if self.config.task and not self.config.run.actions:
            with contextlib.closing(self.env('env', 0)()) as env:
                return env.obs_space, env.act_space
        return infer_spaces(folder, self.config.run.actions)

    def _replay_folder(self) -> Path:
        if self.replay_config.directory:
            return folder_of(self.replay_config.directory[0])
        return self.setup.logdir / 'replay'

    def logger(self, counters, on_event) -> Logger | Silent:
        if self.ranks.number:
            return Silent()
        logger = Logger(self.setup.logdir, self.logger_config, counters, on_event)
        logger.text('config', f'```yaml\n{self.config.to_yaml()}```')
        return logger
