"""Reads a run's metrics and says which part of the agent is the first that does not work.

    python -m dreamer4.diagnose LOGDIR

The order is the order of causes: a policy cannot be better than the value, nor that than the
rewards imagined, nor those than the dynamics, nor those than the tokenizer. Look at the first line
that is not fine; what stands below it may only be its consequence.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embodied.log.jsonl import read_lines


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
      part: what is looked at. name: metric, by the end of its name. fine: whether a value is fine.
      verdict: what a value that is not fine means; {} is the value.
      unless: what of all metrics makes it fine all the same.
      needs: names of NOTHING without which there is nothing to judge.
    """

    part: str
    name: str
    fine: Callable[[float], bool]
    verdict: str
    unless: Callable[[Mapping[str, float]], bool] = lambda values: False
    needs: tuple[str, ...] = ()


SCORE = 'episode/score'


def better_than_random(values: Mapping[str, float]) -> bool:
    """Whether returns lie well above those of the random play before the policy began, of several
    tasks in one of them: then a policy that is sure is right.
    """
    for end in [f'/{task}' for task in tasks(values)] or ['']:
        score, mean, std = (
            values.get(f'{name}{end}', math.nan)
            for name in (SCORE, 'random_play/mean', 'random_play/std')
        )
        if score > mean + 2 * std:
            return True
    return False


def tasks(values: Mapping[str, float]) -> list[str]:
    """Names of several tasks, as the metrics tell them; none for one."""
    return sorted(key.removeprefix(f'{SCORE}/') for key in values if key.startswith(f'{SCORE}/'))


# Metric that is 0 where the data give nothing to measure -> what that means; it is nobody's fault,
# or that of the env.
NOTHING = {
    'frames_vary': 'frames never change: all are black or still (does the env render?)',
    'images_vary': 'images never change: all are black or still (does the env render?)',
    'frames_move': 'frames never change within an episode',
    'actions_vary': 'actions never vary: there is one choice, or they are not recorded',
    'rewards_vary': 'rewards never change: there is nothing to predict of them',
}
LINES = 10  # of metrics.jsonl, after which a policy should be surer than at first
SEEN, PAID = ('frames_vary',), ('frames_vary', 'rewards_vary')
IMAGES, MOVES, ACTIONS = (
    (*SEEN, 'images_vary'),
    (*SEEN, 'frames_move'),
    (*SEEN, 'frames_move', 'actions_vary'),
)

CHECKS = (
    Check(
        'tokenizer',
        'tokenizer/pixel_std',
        lambda x: x > 0.003,
        'frames do not differ from each other (pixel std {:.4f}): all are black or still; does the'
        ' env render?',
        needs=IMAGES,
    ),
    Check(
        'tokenizer',
        'tokenizer/unexplained',
        lambda x: x < 0.1,
        'the tokenizer leaves {:.0%} of what differs among frames unexplained: train it longer'
        ' (schedule.tokenizer_updates) or enlarge it',
        needs=SEEN,
    ),
    Check(
        'tokenizer',
        'latent_spread',
        lambda x: x > 0.03,
        'latents hardly differ from frame to frame (std {:.3f}): the encoder has collapsed, or was'
        ' frozen on frames that show nothing',
        needs=SEEN,
    ),
    Check(
        'tokenizer',
        'tokenizer/latent_std',
        lambda x: x < 0.9,
        'the latents are saturated (std {:.2f}): lower optim.tokenizer.lr',
        needs=SEEN,
    ),
    Check(
        'tokenizer',
        'report/foreground_gain',
        lambda x: x > 3,
        'the foreground is {:.1f} dB better than the mean frame: small objects are missing from the'
        ' reconstruction',
        needs=IMAGES,
    ),
    Check(
        'latents',
        'latent/kl',
        lambda x: x > 0.05,
        'the posterior says {:.3f} nats that the prior does not know, and the decoder explains'
        ' little: it has collapsed (raise agent.rssm.free_nats)',
        unless=lambda values: (find(values, 'report/unexplained') or 0) < 0.5,
        needs=MOVES,
    ),
    Check(
        'decoder',
        'report/unexplained',
        lambda x: x < 0.5,
        'the decoder leaves {:.0%} of what differs among frames unexplained: train longer, or'
        ' enlarge it (agent.rssm.units, agent.rssm.depth)',
        needs=SEEN,
    ),
    Check(
        'dynamics',
        'error_1',
        lambda x: x < 0.7,
        'one step ahead the error is {:.2f} of repeating the last frame: the dynamics do not'
        ' predict (train longer, raise shortcut.anchor)',
        needs=MOVES,
    ),
    Check(
        'dynamics',
        'shuffle_ratio',
        lambda x: x > 1.2,
        'dynamics ignores actions: shuffle ratio {:.2f} (are they recorded in the right rows? do'
        ' they vary?)',
        # where bodies move mostly by themselves, the little that actions change may be right
        unless=lambda values: (find(values, 'action_effect') or 0) > 0.3,
        needs=ACTIONS,
    ),
    Check(
        'dynamics',
        'action_effect',
        lambda x: x > 0.1,
        'imagined actions do not matter: {:.2g} of what the model says that they change happens (1'
        ' is all of it, 0 none, less the contrary), so a policy learns nothing in it (hold random'
        ' actions longer by actor.hold, repeat actions, stack frames of pixels, train longer)',
        needs=ACTIONS,
    ),
    Check(
        'dynamics',
        'error',
        lambda x: x < 0.9,
        'open loop the error is {:.2f} of repeating the last frame: rollouts drift',
        needs=MOVES,
    ),
    Check(
        'reward',
        'reward_on_first',
        lambda x: x < 0.01,
        'rows that begin an episode hold rewards, {:.2f} times as large as all: rewards are'
        ' recorded one row late',
    ),
    Check(
        'reward',
        'reward_missed_on_last',
        lambda x: x < 7,  # e^-7: one in a thousand
        'no episode ends with a reward, where {:.0f} would if last rows were like others: rewards'
        ' are recorded one row early, or the last step never pays',
    ),
    Check(
        'reward',
        'reward/beyond',
        lambda x: x == 0,
        'a share of {:.2g} of the rewards lies beyond the outermost bin and is learned as that:'
        ' raise agent.heads.limit, or scale the rewards',
    ),
    Check(
        'reward',
        'reward_skill_real',
        lambda x: x > 0.3,
        'the reward head has skill {:.2f} on real frames: rewards are not a function of what is'
        ' seen, or too rare',
        needs=PAID,
    ),
    Check(
        'reward',
        'reward_skill',
        lambda x: x > 0.3,
        'open loop the rewards have skill {:.2f}: the model does not carry what they depend on'
        ' through the horizon',
        needs=PAID,
    ),
    Check(
        'reward',
        'return_corr',
        lambda x: x > 0.4,
        'imagined and real returns of the same actions correlate by {:.2f}',
        needs=PAID,
    ),
    Check(
        'value',
        'value/beyond',
        lambda x: x == 0,
        'a share of {:.2g} of the imagined returns lies beyond the outermost bin and is learned as'
        ' that: raise agent.heads.limit, or scale the rewards',
    ),
    Check(
        'value',
        'value/explained',
        lambda x: x > 0.2,
        'the value explains imagined returns with correlation {:.2f}: it lags behind'
        ' (optim.value.lr, value.slow) or returns do not vary',
        needs=PAID,
    ),
    Check(
        'policy',
        'policy/positive',
        lambda x: 0.05 < x < 0.95,
        '{:.0%} of the advantages are positive: signs carry no preference (value too low or too'
        ' high)',
        needs=PAID,
    ),
    Check(
        'policy',
        'policy/entropy',
        lambda x: x > 0.02,
        'the entropy is {:.3f} nats, and nothing shows that returns are better than random play:'
        ' the policy has collapsed (raise actor.entropy; did it start before the model was ready?)',
        better_than_random,
        needs=('actions_vary',),
    ),
    Check(
        'policy',
        'policy/openness',
        lambda x: x < 0.95,
        'the entropy is {:.0%} of the largest possible, and returns are no better than random play:'
        ' advantages are smaller than the bonus (lower actor.entropy, or scale the rewards)',
        better_than_random,
        needs=('actions_vary', 'rewards_vary'),
    ),
    Check(
        'policy',
        'policy/kl',
        lambda x: x < 2.0,
        'KL to the prior is {:.2f}: the policy runs away from it (lower optim.policy.lr)',
    ),
    Check('run', 'episode/score', math.isfinite, 'no episode has ended yet'),
)


def latest(path: str | Path) -> dict[str, float]:
    """Last finite value of every metric of a run: name -> value; as 'random_play/', mean and spread
    of the returns before its policy began, of several tasks those of each as well;
    'policy/openness' only where the policy has learned for LINES lines.

    Raises:
      FileNotFoundError: the folder holds no metrics.jsonl.
    """
    file = Path(path) / 'metrics.jsonl'
    if not file.exists():
        raise FileNotFoundError(
            f'{file} does not exist: expected the logdir of a run that has logged at least once'
        )
    values, began, lines = {}, math.inf, 0
    for row in read_lines(file):
        values |= {
            k: float(v)
            for k, v in row.items()
            if isinstance(v, (int, float)) and not isinstance(v, bool)
        }
        if 'policy/entropy' in row:
            began = min(began, row['frames'])
            lines += 1
    returns: dict[str, list[float]] = {}
    for row in read_lines(Path(path) / 'scores.jsonl'):
        if row['frames'] < began and row['score'] is not None:
            for end in {'', f'/{row.get("task") or ""}'.rstrip('/')}:
                returns.setdefault(end, []).append(row['score'])
    for end, scores in returns.items():
        if len(scores) > 1:
            values |= {
                f'random_play/mean{end}': statistics.fmean(scores),
                f'random_play/std{end}': statistics.stdev(scores),
            }
    if lines < LINES or 'random_play/mean' not in values:
        values.pop('policy/openness', None)  # it says nothing
    for key in [k for k in values if '/psnr/' in f'/{k}']:
        floor = values.get(key.replace('psnr/', 'psnr_mean_frame/'))
        if floor is not None:
            values['report/foreground_gain'] = values[key] - floor
    return values


def ended(path: str | Path) -> str:
    """The error that ended a run, as its events.log has it; '' for none, or if it has gone on."""
    text = file.read_text('utf8', 'replace') if (file := Path(path) / 'events.log').exists() else ''
    _, found, error = text.rpartition('Continuing ')[2].rpartition('The run ended by ')
    return (found + error).splitlines()[0] if found else ''


def find(values: Mapping[str, float], name: str) -> float | None:
    """Value of the metric called `name` or ending in '/name'; reports win over gates, gates over
    the rest. None if there is none.
    """
    names = [k for k in values if k == name or k.endswith(f'/{name}')]
    order = lambda k: (not k.startswith('report'), 'gate' not in k, len(k))
    return values[min(names, key=order)] if names else None


def diagnose(values: Mapping[str, float]) -> list[tuple[str, str, float | None, bool | None, str]]:
    """(part, metric, value, fine or None if there is nothing to judge, words) of every check, and
    of the score in each of several tasks.
    """
    rows = []
    for check in CHECKS:
        value = find(values, check.name)
        if value is None:
            rows.append((check.part, check.name, None, None, 'not measured yet'))
            continue
        good = math.isfinite(value) and (check.fine(value) or check.unless(values))
        idle = [NOTHING[name] for name in lacking(values) if name in check.needs]
        if idle and not good:
            rows.append((check.part, check.name, value, None, idle[0]))
            continue
        rows.append(
            (check.part, check.name, value, good, 'fine' if good else check.verdict.format(value))
        )
    for task in tasks(values):
        before = values.get(f'random_play/mean/{task}')
        words = 'random play is not known' if before is None else f'random play {before:.3g}'
        rows.append(('task', f'{SCORE}/{task}', values[f'{SCORE}/{task}'], None, words))
    return rows


def lacking(values: Mapping[str, float]) -> list[str]:
    """Names of NOTHING that a run's data do not have; where no frame changes, images and moves
    go without saying.
    """
    names = [name for name in NOTHING if find(values, name) == 0]
    return [
        name
        for name in names
        if 'frames_vary' not in names or name not in ('images_vary', 'frames_move')
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table; 0 if all that was measured is fine, 1 if something is not, 2 for a wrong
    folder.
    """
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.diagnose',
        description=__doc__.split('\n\n')[0],
        epilog='Exit status 0: all that was measured is fine; 1: something is not; 2: no such run.',
    )
    parser.add_argument('logdir', help='folder of a run that has logged at least once')
    logdir = parser.parse_args(argv).logdir
    try:
        values = latest(logdir)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    rows = diagnose(values)
    print(
        f'{logdir} at '
        + ', '.join(
            f'{k} {values[k]:.0f}' for k in ('frames', 'updates', 'episodes') if k in values
        )
    )
    for part, name, value, good, words in rows:
        mark = {True: 'ok', False: '!!', None: '--'}[good]
        print(f'{mark} {part:<10} {name:<24} {"" if value is None else f"{value:.3g}":>9}  {words}')
    for name in lacking(values):
        print(f'To know: {NOTHING[name]}.')
    first = next((words for *_, good, words in rows if good is False), None)
    if error := ended(logdir):
        print(f'!! {error}')
        first = error
    print(f'First cause: {first}' if first else 'Nothing wrong in what was measured.')
    return int(first is not None)


if __name__ == '__main__':
    sys.exit(main())
