"""The plots of a report, as PNG: one function each, numbers in, bytes out."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from embodied.extras import require

from .examine import Numbers

INK, SOFT, GRID = '#1f2933', '#7b8794', '#e4e7eb'
BLUE, ORANGE, GREEN, RED = '#2266cc', '#e07b00', '#2f855a', '#c53030'
COLOURS = {'model': BLUE, 'shuffled actions': ORANGE, 'repeat the last frame': RED}
HELD_OUT = {  # stage -> its held-out measure and unit, see Agent._score
    'tokenizer': 'variance unexplained (share)',
    'dynamics': 'error / repeating the last frame',
    'agent': 'loss of the heads (nats)',
    'policy': 'reward of a dream, negative',
}
SIZE, DPI = (5.6, 3.3), 144  # inches, dots an inch
STYLE = {
    'font.size': 10,
    'axes.edgecolor': SOFT,
    'axes.labelcolor': INK,
    'axes.titlesize': 11,
    'axes.titlelocation': 'left',
    'axes.titlecolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': GRID,
    'xtick.color': INK,
    'ytick.color': INK,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'lines.linewidth': 2,
}


class Plot:
    """One pair of axes with a title and units; a context manager.

    Attributes:
        axes: of matplotlib. png: bytes, once it is left.
    """

    def __init__(self, title: str, x: str, y: str):
        require('matplotlib', 'report')
        import matplotlib

        matplotlib.use('agg')
        from matplotlib import pyplot

        self._pyplot, self._style, self.png = pyplot, pyplot.rc_context(STYLE), b''
        self._labels = title, x, y

    def __enter__(self):
        self._style.__enter__()
        self._figure, self.axes = self._pyplot.subplots(figsize=SIZE, dpi=DPI)
        title, x, y = self._labels
        self.axes.set(title=title, xlabel=x, ylabel=y)
        self.axes.set_axisbelow(True)
        self.axes.margins(y=0.12)
        self.axes.ticklabel_format(useOffset=False)
        return self

    def __exit__(self, kind, error, trace):
        out = io.BytesIO()
        if kind is None:
            if self.axes.get_legend_handles_labels()[0]:
                self.axes.legend()
            self._figure.tight_layout()
            self._figure.savefig(out, format='png')
            self.png = out.getvalue()
        self._pyplot.close(self._figure)
        self._style.__exit__(kind, error, trace)


def draw(sections: Mapping[str, Numbers], history: Mapping[str, Sequence]) -> dict[str, bytes]:
    """File name without ending -> PNG, for whatever the sections hold.

    Args:
        sections: of examine.Findings and of the comparison. history: see page.history().
    """
    out = {}
    for key, numbers in sections.get('tokenizer', {}).items():
        if isinstance(numbers, dict):
            out[f'tokenizer-{key}'] = quality(key, numbers)
    if 'dynamics' in sections:
        out |= dynamics(sections['dynamics'])
    if 'heads' in sections:
        out |= heads(sections['heads'])
    if sections.get('imagination', {}).get('sequences'):
        out['imagination'] = returns(sections['imagination'])
    if 'compare' in sections:
        out['compare'] = comparison(sections['compare'])
    for name, (x, y) in history.items():
        out[f'held-out-{name}'] = curve(name, x, y)
    return out


def quality(key: str, numbers: Numbers) -> bytes:
    """How well the frames of an image are reconstructed."""
    values = np.array(numbers['psnr_of_frames'])
    with Plot(f'Reconstruction of "{key}"', 'PSNR of a frame (dB)', 'frames') as plot:
        plot.axes.hist(values, bins=24, color=BLUE, alpha=0.85)
        mean, still = numbers['psnr'], numbers['psnr_mean_frame']
        plot.axes.axvline(mean, color=INK, label=f'mean {mean:.1f} dB')
        plot.axes.axvline(still, color=RED, linestyle='--', label=f'mean frame {still:.1f} dB')
    return plot.png


def dynamics(numbers: Numbers) -> dict[str, bytes]:
    """Error over the horizon, over tau and over the number of denoising steps."""
    out, share = {}, 'error (1 = mean frame)'
    with Plot('Open-loop error of the dynamics', 'frames ahead', share) as plot:
        for name, values in numbers['horizon'].items():
            style = dict(color=COLOURS.get(name, SOFT), linestyle='-' if name == 'model' else '--')
            plot.axes.plot(1 + np.arange(len(values)), values, label=name, **style)
        plot.axes.set_ylim(bottom=0)
        whole_numbers(plot.axes)
    out['dynamics-horizon'] = plot.png
    words = 'error (1 = guess zero)'
    with Plot('Error of the clean frame that is guessed', 'signal level tau', words) as plot:
        for name, values in numbers['levels'].items():
            colour = {'model': BLUE}.get(name, SOFT)
            plot.axes.plot(numbers['tau'], values, 'o-', ms=4, color=colour, label=name)
        plot.axes.set_yscale('log')
    out['dynamics-tau'] = plot.png
    counts = list(numbers['denoising_steps'])
    errors = [numbers['denoising_steps'][count]['error'] for count in counts]
    with Plot('Denoising steps a frame', 'K (steps a frame)', f'open-loop {share}') as plot:
        plot.axes.plot([int(count) for count in counts], errors, 'o-', color=BLUE)
        plot.axes.axvline(
            numbers['steps'], color=SOFT, linestyle='--', label=f'in use: {numbers["steps"]}'
        )
        plot.axes.set_xscale('log', base=2)
        plot.axes.set_xticks([int(count) for count in counts], labels=[str(c) for c in counts])
        plot.axes.set_ylim(bottom=0)
    out['dynamics-steps'] = plot.png
    return out


def heads(numbers: Numbers) -> dict[str, bytes]:
    """Behaviour and reward over the offsets of multi-token prediction; calibration."""
    out, behaviour = {}, numbers['behaviour']
    ahead = 'offset n (frames ahead)'
    with Plot('Behaviour clone', ahead, 'negative log-likelihood (nats)') as plot:
        plot.axes.plot(known(behaviour['nll']), 'o-', color=BLUE, label='behaviour head')
        if behaviour['nll_uniform'] is not None:
            plot.axes.axhline(
                behaviour['nll_uniform'], color=RED, linestyle='--', label='uniform choice'
            )
        plot.axes.set_ylim(bottom=min(0, *known(behaviour['nll'])))
        plot.axes.margins(y=0.1)
        whole_numbers(plot.axes)
    out['behaviour-nll'] = plot.png
    if calibration := behaviour['calibration']:
        title = f'Calibration of the clone (error {calibration["error"]:.3f})'
        with Plot(title, 'confidence in the likeliest action', 'how often it is taken') as plot:
            plot.axes.plot([0, 1], [0, 1], color=SOFT, linestyle='--', label='calibrated')
            area = 20 + 300 * np.array(calibration['share'])
            plot.axes.plot(calibration['confidence'], calibration['accuracy'], color=BLUE)
            plot.axes.scatter(
                calibration['confidence'], calibration['accuracy'], area, color=BLUE, label='bins'
            )
            plot.axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        out['behaviour-calibration'] = plot.png
    with Plot('Reward head on real frames', ahead, 'correlation, skill (1 = exact)') as plot:
        reward = numbers['reward']
        plot.axes.plot(known(reward['correlation']), 'o-', color=BLUE, label='correlation')
        plot.axes.plot(known(reward['skill']), 'o--', color=GREEN, label='skill')
        plot.axes.set_ylim(top=1.02)
        whole_numbers(plot.axes)
    out['reward'] = plot.png
    return out


def returns(numbers: Numbers) -> bytes:
    """Imagined against real returns."""
    real, imagined = np.array(numbers['real']), np.array(numbers['imagined'])
    title = f'Returns of dreams on the same actions (correlation {numbers["correlation"]:.2f})'
    with Plot(title, 'real return (discounted reward)', 'imagined return') as plot:
        low, high = min(real.min(), imagined.min()), max(real.max(), imagined.max())
        plot.axes.plot([low, high], [low, high], color=SOFT, linestyle='--', label='equal')
        plot.axes.scatter(real, imagined, 14, color=BLUE, alpha=0.6, label='sequences')
    return plot.png


def comparison(numbers: Numbers) -> bytes:
    """Returns of players on the same seeds, with 95 % intervals."""
    players = numbers['players']
    with Plot('Closed loop, same seeds', '', 'return of an episode') as plot:
        for place, found in enumerate(players.values()):
            plot.axes.bar(place, found['mean'], 0.6, color=BLUE if not place else SOFT)
            plot.axes.errorbar(place, found['mean'], found['ci95'] or 0, color=INK, capsize=5)
        plot.axes.set_xticks(range(len(players)), labels=list(players))
        plot.axes.grid(axis='x', visible=False)
        each = 'each of every task' if 'tasks' in numbers else 'each'
        plot.axes.set_xlabel(
            f'{numbers["episodes"]} episodes {each}, bars: 95 % interval of the mean'
        )
    return plot.png


def curve(name: str, x: Sequence[float], y: Sequence[float]) -> bytes:
    """A held-out measure over updates."""
    with Plot(f'Held-out measure, stage {name}', 'updates', HELD_OUT.get(name, name)) as plot:
        plot.axes.plot(x, y, color=BLUE)
    return plot.png


def known(values: list[float | None]) -> list[float]:
    """Values with gaps as matplotlib wants them."""
    return [np.nan if value is None else value for value in values]


def whole_numbers(axes) -> None:
    """Ticks of x at whole numbers alone."""
    axes.xaxis.get_major_locator().set_params(integer=True)
