"""A model that travels: an agent as a folder that anybody can load, from disk or from the Hugging
Face hub.

    README.md           model card (card.py)
    config.yaml         what the agent is, and where it acts
    spaces/meta.json    what it observes and does
    agent.safetensors, agent.json, done.json    weights, as in a checkpoint, without optimizers

Such a folder is a run without a history, so load_policy(), `--script eval_only` and
`--from_checkpoint` take it too. Loading runs no code: tensors are safetensors, the rest is JSON and
plain YAML, and sizes and checksums are compared first.
"""

import dataclasses
import os
import re
import tempfile
from pathlib import Path

from embodied.config import Config, Value, configs_dir, parse
from embodied.errors import CheckpointError, ConfigError
from embodied.extras import require
from embodied.save import write_save

from . import card, runs
from .agent import Agent
from .agent_config import AgentConfig
from .load import restored, stored

HUB_ID = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*', re.ASCII)
LEFT_BEHIND = 'optim_'  # parts of a checkpoint that only the run itself needs
# what is sent to the hub and fetched from it; nothing else of a repository comes here
FILES = (
    card.FILENAME,
    runs.FILENAME,
    f'{runs.SPACES}/*.json',
    'agent.safetensors',
    'agent.json',
    'done.json',
)


def from_pretrained(
    place: str | Path, *, revision: str | None = None, seed: int = 0, **machine: Value
) -> Agent:
    """The agent that save_pretrained() wrote, or that of a run's newest checkpoint.

    The process stays as it is: its torch threads, precision and random numbers are left alone.

    Args:
        place: a folder, or 'user/name' of the hub where there is no such folder; the hub needs the
            extra `hub`.
        revision: branch, tag or commit, of the hub alone.
        seed: of what it draws.
        machine: keys of the block `machine`, such as device='cpu'.

    Raises:
        ConfigError: there is neither such a folder nor such a model.
        CheckpointError: it holds no agent, or a damaged one.
        EnvMissing: huggingface_hub is not installed; names the command that installs it.
    """
    folder = runs.folder_of(_folder(place, revision))
    obs_space, act_space = runs.read_spaces(folder)
    return restored(folder, stored(folder, machine), obs_space, act_space, seed)


def save_pretrained(
    agent: Agent, folder: str | Path, run: str | Path | None = None, push: str = ''
) -> Path:
    """Write an agent as a folder of its own.

    Args:
        folder: made if need be; files of the same names are replaced.
        run: the logdir that the agent comes from; its task and its scores enter the card.
        push: 'user/name' of the hub to upload the folder to; needs the extra `hub` and its login.

    Returns:
        the folder.

    Raises:
        CheckpointError: it cannot be written.
        ConfigError: `run` is none, or of another agent; `push` is no name.
    """
    if push and not HUB_ID.fullmatch(push):
        raise ConfigError(f"save_pretrained: push must be 'user/name', got {push!r}")
    run = None if run is None else runs.folder_of(run)
    config, folder = _config(agent, run), Path(folder).expanduser()
    tree = {k: v for k, v in agent.save().items() if not k.startswith(LEFT_BEHIND)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.partial-', dir=folder) as name:
            partial = Path(name)
            write_save(partial, {'agent': tree}, {'task': config.task, 'updates': agent.updates})
            config.save(partial / runs.FILENAME)
            runs.write_spaces(partial, agent.obs_space, agent.act_space)
            (partial / card.FILENAME).write_text(card.write(agent, config, run))
            for path in (path for path in sorted(partial.rglob('*')) if path.is_file()):
                target = folder / path.relative_to(partial)
                target.parent.mkdir(exist_ok=True)
                os.replace(path, target)
    except OSError as error:
        raise CheckpointError(f'{folder}: the model cannot be written: {error}') from error
    if push:
        _push(folder, push)
    return folder


def _config(agent: Agent, run: Path | None) -> Config:
    """What the agent is and where it acts: of its run, or of its own settings over the defaults."""
    if run is None:
        config = parse([], configs_dir(Path(__file__).parent))
        return config.update({'agent': dataclasses.asdict(agent.config)})
    config = stored(run, {})
    if _acting(config.agent.build(AgentConfig)) != _acting(agent.config):
        raise ConfigError(f'save_pretrained: the agent is not one of the run {run}')
    return config


def _acting(config: AgentConfig) -> AgentConfig:
    """The settings without a loss that needs downloaded weights, which load() leaves out."""
    return dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, lpips=0.0))


def _folder(place: str | Path, revision: str | None) -> Path:
    """The folder of a model, brought from the hub if need be."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if not isinstance(place, str) or not HUB_ID.fullmatch(place):
        raise ConfigError(
            "from_pretrained: expected a folder, or 'user/name' of the hub; there is no folder"
            f' {place}'
        )
    require('huggingface_hub', 'hub')
    from huggingface_hub import constants, errors, snapshot_download

    kept = Path(constants.HF_HOME) / 'dreamer4' / place / (revision or 'main')
    try:
        # real files in a folder of ours: the hub's own cache is one of links
        snapshot_download(place, revision=revision, local_dir=kept, allow_patterns=FILES)
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f'from_pretrained: there is no folder {place}, and the hub gives no such model:'
            f' {type(error).__name__}: {str(error).strip().splitlines()[0]}'
        ) from error
    return kept


def _push(folder: Path, name: str) -> None:
    require('huggingface_hub', 'hub')
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(name, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(FILES))
