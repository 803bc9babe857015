"""Does an environment keep the contract of base.py? For tests, and for those who write one:

    python -m embodied.checks --task gym_CartPole-v1 [--steps 500]

Exit status 0: nothing found; 1: findings, in words; 2: the environment cannot be made.
"""

import argparse
import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .base import OUTCOME, Env, RandomAgent, Values
from .contract import Guard, space_faults
from .errors import EmbodiedError, EnvContractError, EnvNonFinite
from .pictures import readings
from .tasks import names_of
from .wrappers import env_name

LINE = 400  # characters of what an env says that raised


def check_env(
    make: Callable[[int], Env], steps: int = 300, on_note: Callable[[str], None] = print
) -> list[str]:
    """Findings about an environment, one sentence each; an empty list if there are none.

    Args:
      make: seed -> a new environment; it is made three times.
      steps: to take in each of them.
      on_note: receives what is worth knowing and no fault: values beyond a declared box,
          observations that are left out.
    """
    env = make(0)
    try:
        if findings := space_faults(env):
            return findings
        guard = Guard(env.obs_space, env_name(env))
        rows, findings = walk(env, actions(env, steps), guard)
        for note in dict((*guard.take(), *env.notes())).values():
            on_note(note)
    except BaseException:
        with contextlib.suppress(Exception):  # it would hide the first one
            env.close()
        raise
    if findings := findings + check_close(env):
        return findings
    return (
        check_order(rows)
        + check_reset(make)
        + check_seed(make, steps, rows)
        + check_state(make, steps)
    )


def check_close(env: Env) -> list[str]:
    """What closing raises."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        return [f'close() raised {raised(error)}']
    return []


def raised(error: BaseException) -> str:
    """An exception in a few lines."""
    return f'{type(error).__name__}: {error!s:.{LINE}}'.rstrip(': ')


def actions(env: Env, steps: int) -> list[Values]:
    """Random actions; the first one asks for a reset."""
    agent = RandomAgent(env.act_space, 0)
    drawn = [agent.policy({}, {'is_first': np.zeros(1)})[1] for _ in range(steps)]
    return [
        {**{key: value[0] for key, value in action.items()}, 'reset': np.bool_(i == 0)}
        for i, action in enumerate(drawn)
    ]


def walk(
    env: Env, chosen: list[Values], guard: Guard | None = None
) -> tuple[list[Values], list[str]]:
    """Rows of some actions, and what was wrong with a single one of them."""
    rows, copies, findings = [], [], []
    guard = guard or Guard(env.obs_space, env_name(env))
    for number, action in enumerate(chosen):
        try:
            row = env.step(action)
        except (EnvContractError, EnvNonFinite) as error:
            return rows, [f'step {number}: {error}']
        except (Exception, SystemExit) as error:  # whatever the environment raises is a finding
            return rows, [f'step {number} with {action} raised {raised(error)}']
        if missing := sorted(env.obs_space.keys() - row.keys()):
            return rows, [f'step {number} returned no {missing}, which obs_space names.']
        if unknown := sorted(
            key for key in row.keys() - env.obs_space.keys() if not key.startswith('log/')
        ):
            return rows, [f'step {number} returned {unknown}, which obs_space does not name.']
        for key in env.obs_space:
            try:
                guard(key, np.asarray(row[key]) if key in OUTCOME else row[key])
            except (EnvContractError, EnvNonFinite) as error:
                return rows, [f'step {number}: {error}']
        rows.append(row)
        copies.append({key: np.array(value) for key, value in row.items()})
    for number, (row, copy) in enumerate(zip(rows, copies)):
        for key in copy:
            if not same(row[key], copy[key]):
                return rows, [
                    f'the array {key!r} returned by step {number} changed afterwards: return a'
                    ' copy, not a buffer that is reused.'
                ]
    return rows, findings


def check_order(rows: list[Values]) -> list[str]:
    """Flags and rewards against the row table."""
    findings, ended = [], True
    for number, row in enumerate(rows):
        first, last, terminal = (bool(row[key]) for key in ('is_first', 'is_last', 'is_terminal'))
        if first != ended:
            findings.append(
                f'step {number}: is_first is {first}, but '
                + (
                    'an episode begins here: the last one has ended or a reset was asked for.'
                    if ended
                    else 'the episode is still going on.'
                )
            )
        if first and row['reward'] != 0:
            findings.append(
                f'step {number}: the reward of a first row must be 0, it is {row["reward"]}: no'
                ' action has earned it.'
            )
        if first and last:
            findings.append(
                f'step {number}: a row is first and last at once; an episode needs at least one'
                ' decision.'
            )
        if terminal and not last:
            findings.append(
                f'step {number}: is_terminal without is_last: what is terminal ends the episode.'
            )
        ended = last
        if len(findings) > 4:
            return findings + ['... and perhaps more; these were the first.']
    return findings


def check_reset(make: Callable[[int], Env]) -> list[str]:
    """A reset in the middle of an episode begins a new one."""
    env = make(0)
    try:
        chosen = actions(env, 4)
        chosen[2] = {**chosen[2], 'reset': np.bool_(True)}
        rows, findings = walk(env, chosen)
        if not findings and not rows[2]['is_first']:
            findings.append(
                "action['reset'] in the middle of an episode did not begin a new one (is_first is"
                ' false).'
            )
        return findings
    finally:
        env.close()


def check_seed(make: Callable[[int], Env], steps: int, before: list[Values]) -> list[str]:
    """Equal seeds and actions give equal rows."""
    env = make(0)
    try:
        rows, findings = walk(env, actions(env, steps))
    finally:
        env.close()
    for number, (row, other) in enumerate(zip(before, rows)):
        for key in other:
            if not key.startswith('log/') and not same(row[key], other[key]):
                return findings + [
                    f'step {number}: {key!r} differs between two environments of the same seed and'
                    ' actions.'
                ]
    return findings


def check_state(make: Callable[[int], Env], steps: int) -> list[str]:
    """What load() takes up goes on exactly as what save() left."""
    with contextlib.closing(make(0)) as env:
        chosen = actions(env, min(steps, 40))
        half = len(chosen) // 2
        walk(env, chosen[:half])
        state = env.save()
        if state is None:
            return []
        rows, _ = walk(env, chosen[half:])
    # one after another: some simulators run once in a process
    with contextlib.closing(make(1)) as other:
        other.load(state)
        again, _ = walk(other, chosen[half:])
    for number, (row, copy) in enumerate(zip(rows, again)):
        for key in row:
            if not same(row[key], copy[key]):
                return [
                    f'{key!r} differs {number + 1} steps after load(): save() misses a part of'
                    ' the state.'
                ]
    return []


def same(a, b) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == 'f')


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    from . import envs
    from .config import configs_dir, parse

    parser = argparse.ArgumentParser(
        prog='python -m embodied.checks', description='Check an environment against the contract.'
    )
    parser.add_argument('--task', required=True, help='as for training, such as pixel_catch')
    parser.add_argument(
        '--steps', type=int, default=300, help='to take in each of three environments'
    )
    args = parser.parse_args(argv)
    config = parse([], configs_dir(Path(__file__).parents[1] / 'dreamer4')).env.to_dict()
    try:
        env = envs.make(args.task, config, 0)
        if names := names_of(env.obs_space):
            print(f'{len(names)} tasks, an episode of each in turn: {", ".join(names)}')
        print('\n'.join(readings(env.obs_space, env.act_space)))
        check_close(env)  # said below
        findings = check_env(
            lambda seed: envs.make(args.task, config, seed),
            args.steps,
            lambda note: print(f'note: {note}'),
        )
    except EmbodiedError as error:
        print(f'{args.task}: {error}', file=sys.stderr)
        return 2
    except (Exception, SystemExit) as error:  # whatever the env's own code raises while it is made
        print(traceback.format_exc())
        place = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f'- {args.task} cannot be made: {place.filename}, line {place.lineno}, raised'
            f' {type(error).__name__}: {error}'
        )
        return 1
    print('\n'.join(f'- {finding}' for finding in findings) or f'{args.task} keeps the contract.')
    return int(bool(findings))


if __name__ == '__main__':
    sys.exit(main())
