"""The picture on the README's front: a learning curve per task, beside what is known of the task.

python -m benchmarks.picture          # writes benchmarks/results/front.png
"""

import argparse
from pathlib import Path

import numpy as np

from .learning import BOUNDS, RESULTS
from .pages import FRONT_FILES, frames_of, read


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(
        draw(
            [run for name in FRONT_FILES for run in read(name).get('runs', [])],
            RESULTS / 'front.png',
        )
    )


def draw(runs: list[dict], path: Path) -> Path:
    """A panel per task: training return of each seed over frames, and its reference lines."""
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(run['task'] for run in runs))
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(3 * len(tasks), 2.6), squeeze=False)
    for axis, task in zip(axes[0], tasks):
        mine = [run for run in runs if run['task'] == task]
        for run in mine:
            frames = np.array(run['curve']['frames']) / 1000
            goal = ', goal .5' if '0.5' in run.get('flags', []) else ''
            axis.plot(frames, run['curve']['score'], label=f'seed {run["seed"]}{goal}')
        for label, style, x, y in references(task, max(map(frames_of, mine))):
            axis.plot(np.array(x) / 1000, y, style, color='gray', label=label)
        axis.set_title(task, fontsize=9)
        axis.set_xlabel('thousand frames', fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
    axes[0][0].set_ylabel('training return', fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def references(task: str, frames: int) -> list[tuple[str, str, list, list]]:
    """(label, line style, frames, returns) of what a curve of so many frames is compared with."""
    if task in BOUNDS:
        low, high = BOUNDS[task]
        return [
            ('optimal', '--', [0, frames], [high] * 2),
            ('uniform play', ':', [0, frames], [low] * 2),
        ]
    played = read('baselines')['tasks'][task]
    curve = read('published_dmc_proprio')['methods']['DreamerV3'][task]
    shown = [i for i, at in enumerate(curve['frames']) if at <= frames]
    return [
        ('DreamerV3, published', '--')
        + tuple([curve[key][i] for i in shown] for key in ('frames', 'score')),
        ('uniform play', ':', [0, frames], [played['uniform']['mean']] * 2),
        ('no action', '-.', [0, frames], [played['zero']['mean']] * 2),
    ]


if __name__ == '__main__':
    main()
