"""The model card of an agent: what it is, what it was trained on, how well it does, what is not
known. Everything in it is read from the agent and the folder of its run.
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from embodied.config import Config
from embodied.extras import ROOT
from embodied.interval import interval
from embodied.log.jsonl import COUNTERS, read_lines

from . import __version__, runs
from .agent import Agent

FILENAME = 'README.md'
MODES = {'sample': 'sampled policy', 'mode': 'most likely actions'}
PACKAGES = ('torch', 'numpy', 'gymnasium')
EPISODES = 100  # of the newest ones of training that the card averages


def write(agent: Agent, config: Config, run: Path | None) -> str:
    """The text of README.md, in Markdown with the hub's front matter.

    Args:
        config: what the agent is and where it acts. run: its logdir; None where it is not known.
    """
    evaluation = _json(run / 'eval' / 'eval.json') if run else {}
    task = config.task or 'unknown'
    lines = [
        *_front(task, agent, evaluation),
        '',
        f'# {agent.config.world} on {task}',
        '',
        'A world model, and a policy that learned in its dreams, of [dreamer4]'
        '(https://arxiv.org/abs/2509.24527).',
        '',
        '```python',
        'import dreamer4',
        '',
        "agent = dreamer4.from_pretrained('.')  # this folder, or its name on the hub",
        'policy = dreamer4.Policy(agent)',
        'action = policy.act(obs)',
        '```',
        '',
        '## Results',
        '',
        *_results(run, evaluation),
        '',
        '## Training',
        '',
        *(f'- {name}: {value}' for name, value in _training(agent, config, run).items()),
        '',
        '## Model',
        '',
        '```',
        agent.summary(),
        '```',
        '',
        *(f'- observes `{key}`: {agent.obs_space[key]}' for key in sorted(set(agent.obs_keys))),
        *(f'- does `{key}`: {space}' for key, space in agent.act_space.items() if key != 'reset'),
        '',
        '## Limits',
        '',
        *(f'- {text}' for text in _limits(agent, config, run, evaluation)),
    ]
    return '\n'.join(lines) + '\n'


def _front(task: str, agent: Agent, evaluation: Mapping) -> list[str]:
    """YAML that the hub reads; values are JSON, which YAML contains."""
    front = {
        'library_name': 'dreamer4',
        'tags': ['reinforcement-learning', 'world-model', agent.config.world, task],
    }
    if evaluation:
        value = f'{evaluation["mean"]:.4g}'
        if evaluation.get('ci95') is not None:
            value += f' +- {evaluation["ci95"]:.2g}'
        front['model-index'] = [
            {
                'name': agent.config.world,
                'results': [
                    {
                        'task': {'type': 'reinforcement-learning'},
                        'dataset': {'name': task, 'type': task},
                        'metrics': [{'type': 'mean_reward', 'value': value}],
                    }
                ],
            }
        ]
    return ['---', *(f'{key}: {json.dumps(value)}' for key, value in front.items()), '---']


def _results(run: Path | None, evaluation: Mapping) -> list[str]:
    lines = []
    if evaluation:
        spread = evaluation.get('ci95')
        lines.append(
            f'- evaluation: return {evaluation["mean"]:.4g}'
            + (f' +- {spread:.2g} (95 % interval of the mean)' if spread is not None else '')
            + f', {evaluation["episodes"]} episodes, {MODES[evaluation.get("mode", "sample")]}'
        )
    scores = [line['score'] for line in read_lines(run / 'scores.jsonl')] if run else []
    if scores:
        newest = scores[-EPISODES:]
        half = interval(newest)
        lines.append(
            f'- training: return {sum(newest) / len(newest):.4g}'
            + (f' +- {half:.2g} (95 % interval of the mean)' if half is not None else '')
            + f', the last {len(newest)} of {len(scores):,} episodes, while the policy was learning'
        )
    return lines or ['- none: the folder of the run was not given, or holds no scores']


def _training(agent: Agent, config: Config, run: Path | None) -> dict[str, str]:
    """Facts by name, in the order of the card."""
    facts = {'task': f'`{config.task or "unknown"}`', 'updates': f'{agent.updates:,}'}
    facts['stage'] = agent.status().stage
    if run:
        last = {}
        for line in read_lines(run / 'metrics.jsonl'):
            last = {name: line[name] for name in COUNTERS if name in line}
        facts |= {name: f'{last[name]:,}' for name in ('frames', 'episodes') if name in last}
        stored = runs.read(run).flat
        facts['seed'] = str(stored.get('seed', 'unknown'))
        facts['learned from'] = _data(stored)
    facts['written by'] = ', '.join(
        [
            f'dreamer4 {__version__}',
            f'python {platform.python_version()}',
            *(f'{name} {metadata.version(name)}' for name in PACKAGES),
        ]
    )
    if commit := _commit():
        facts['written by'] += f', commit {commit}'
    return facts


def _data(stored: Mapping) -> str:
    """What the rows were that a run learned from."""
    if stored.get('script') == 'offline':
        folders = [f'`{Path(str(name)).name}`' for name in stored['replay.directory']]
        return f'the replay folder{"s" * (len(folders) > 1)} {", ".join(folders)}, offline'
    text = 'its own play'
    if stored.get('replay.demos') and stored.get('replay.demo_share'):
        text += f', and demonstrations ({stored["replay.demo_share"]:.0%} of each batch)'
    return text


def _limits(agent: Agent, config: Config, run: Path | None, evaluation: Mapping) -> list[str]:
    limits = []
    if agent.status().stage != 'policy':
        limits.append('The policy has not begun to learn: it acts as it was initialised.')
    if not evaluation:
        limits.append('Not evaluated: there is no eval/eval.json in its run.')
    elif evaluation.get('cut'):
        limits.append(f'{evaluation["cut"]} evaluation episodes were cut (eval.length).')
    limits += [
        'One seed. Runs of other seeds may differ by more than the interval says.',
        'Knows only what its own training showed: other sizes, cameras, physics or action'
        ' repeats were not tried.',
        'Dreams drift from the env the longer they are; how far, the reports of its run say'
        ' (`report/` in metrics.jsonl).',
    ]
    return limits


def _commit() -> str:
    """The commit of the checkout that this program runs from, '' outside of one."""
    if not (ROOT / 'pyproject.toml').is_file():
        return ''
    try:
        done = subprocess.run(
            ['git', 'describe', '--always', '--dirty'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= {'mean', 'episodes'} else {}
