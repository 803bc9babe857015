"""report.html: one file that needs nothing beside it and asks no other host for anything.

Pictures and videos stand in it as data. What a number means, and what is good, stands beside it.
"""

import base64
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from embodied.log.jsonl import read_lines
from embodied.media import png

from .. import diagnose
from ..video import DREAMT, PLAIN, page, panel_size, rgb
from .examine import Findings, Numbers

FPS = 8  # of the videos
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2933; background: #f7f8fa; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 4px; border-bottom: 1px solid #cbd2d9; padding-bottom: 6px; }
p { max-width: 78ch; margin: 8px 0; }
.about { color: #52606d; }
nav { display: flex; flex-wrap: wrap; gap: 2px 16px; }
nav a { color: #2266cc; text-decoration: none; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr));
  gap: 16px; margin: 14px 0; }
figure { background: #fff; border: 1px solid #e4e7eb; border-radius: 8px; margin: 0;
  padding: 12px; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figure.wide { grid-column: 1 / -1; }
.pixels { image-rendering: pixelated; }
figcaption { color: #52606d; font-size: 14px; margin-top: 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: #fff; font-size: 14px; margin: 14px 0; }
th, td { border: 1px solid #e4e7eb; padding: 5px 10px; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok, .bad { white-space: nowrap; }
.ok { color: #2f855a; } .bad { color: #c53030; font-weight: 600; } .none { color: #7b8794; }
"""
ABOUT = {
    'compare': (
        'Closed loop',
        'Episodes in the environment, each player on the same seeds. Differences are those of pairs'
        ' of episodes with the same seed; one whose interval does not hold 0 is more than chance.',
    ),
    'tokenizer': (
        'Tokenizer',
        'Every frame is encoded and decoded, nothing is dropped. PSNR (dB) and SSIM (at most 1) are'
        ' better when higher, LPIPS when lower. A tokenizer that always shows the mean frame has'
        ' the PSNR of the red line. Foreground are the pixels that differ from the mean frame by'
        ' more than a tenth: small bodies hardly count elsewhere.',
    ),
    'dynamics': (
        'Dynamics',
        'From some real frames on, the model predicts the others with the actions that were really'
        ' taken. Errors are squared errors of latents in shares of that of the mean frame: 0 is'
        ' perfect, 1 knows nothing. The model should stay below repeating the last frame, and well'
        ' below itself with the actions of another sequence: the gap is what it makes of actions.',
    ),
    'heads': (
        'Heads',
        'What is read from real frames: offset 0 is the action taken at the frame and the reward'
        ' received with it, offset n those of n frames later. Later offsets are less likely by'
        ' nature: less is decided. The continue head speaks of its own frame alone.',
    ),
    'imagination': (
        'Imagination',
        'Discounted rewards of a dream against those that were received, on the same actions from'
        ' the same frame. Points on the line are right; a policy that learns in dreams is only as'
        ' good as they agree.',
    ),
    'tasks': (
        'Tasks',
        'Each task alone, where one agent learns several. Returns are discounted and those of the'
        ' sequences, on the same actions in the dream and really, in the units of the task.',
    ),
    'held-out': (
        'Training',
        'What each stage was to lower, on episodes that nothing learned from: lower is better.',
    ),
}
CAPTIONS = {
    'dynamics-horizon': 'Model below "repeat the last frame": it predicts. Gap to shuffled actions:'
    ' it listens to actions.',
    'dynamics-tau': 'At tau = 0 the frame is pure noise and must be predicted from the past alone.',
    'dynamics-steps': 'More steps than are needed only cost time.',
    'behaviour-nll': 'Below the dashed line the clone knows more than a uniform choice.',
    'behaviour-calibration': 'On the diagonal the clone is as sure as it is right; larger points'
    ' hold more frames.',
    'reward': 'Skill weighs rare rewards more than their number; 0 is a constant guess.',
}


def write(
    findings: Findings,
    clips: Mapping[str, bytes],
    sections: Mapping[str, Numbers],
    plots: Mapping[str, bytes],
    title: str,
    lines: Iterable[str],
    folder: Path,
) -> bytes:
    """The page, and its pictures and videos as files of the folder.

    Args:
        findings: with pictures. clips: its videos as GIFs. sections: its numbers, and those of a
            comparison. plots: name -> PNG. title, lines: of the top. folder: of the run, whose
            metrics are judged.
    """
    parts = {}
    if checks := judged(folder):
        parts['judged'] = ('What works', checks)
    for section, (heading, words) in ABOUT.items():
        body = figures(section, plots) + worst_frames(findings.worst, section)
        table = tables(section, sections)
        if body or table:
            inside = f'<p class="about">{html.escape(words)}</p>{table}'
            parts[section] = heading, f'{inside}<div class="figures">{body}</div>'
    if clips:
        shown = ''.join(map(video, clips.items()))
        words = (
            'Blue border: the model saw the frame and reconstructs it. Orange: it dreams, knowing'
            ' only the actions. Grey: the episode is over, and the next one cannot be known.'
        )
        inside = f'<p class="about">{words}</p><div class="figures">{shown}</div>'
        parts['videos'] = 'Videos of dreams', inside
    links = ''.join(f'<a href="#{key}">{heading}</a>' for key, (heading, _) in parts.items())
    body = ''.join(
        f'<section id="{key}"><h2>{heading}</h2>{inside}</section>'
        for key, (heading, inside) in parts.items()
    )
    about = ''.join(f'<p class="about">{html.escape(line)}</p>' for line in lines)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f'<style>{STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>{about}'
        f'<nav>{links}</nav>{body}</main></body></html>\n'
    ).encode()


def figures(section: str, plots: Mapping[str, bytes]) -> str:
    """The plots of a section."""
    owners = {'behaviour': 'heads', 'reward': 'heads'}
    out = ''
    for name, content in plots.items():
        owner = 'held-out' if name.startswith('held-out') else name.partition('-')[0]
        if owners.get(owner, owner) == section:
            out += figure(picture(content, name), CAPTIONS.get(name, ''))
    return out


def figure(inside: str, caption: str, kind: str = '') -> str:
    words = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
    return f'<figure class="{kind}">{inside}{words}</figure>'


def picture(content: bytes, name: str, kind: str = 'png', style: str = '') -> str:
    data = base64.b64encode(content).decode()
    return f'<img class="{style}" alt="{html.escape(name)}" src="data:image/{kind};base64,{data}">'


def video(item: tuple[str, bytes]) -> str:
    """An open-loop video, which repeats without end."""
    name, content = item
    return figure(picture(content, name, 'gif'), f'{name}, {FPS} frames a second', 'wide')


def worst_frames(worst: Mapping[str, tuple], section: str) -> str:
    """The frames that the tokenizer reconstructs worst."""
    if section != 'tokenizer':
        return ''
    pictures = {key: png(drawn(key, *pair)) for key, pair in worst.items()}
    words = 'the worst of all, the very worst on the left'
    return ''.join(
        figure(picture(content, f'worst frames of {key}'), f'Frames of "{key}": {words}', 'wide')
        for key, content in pictures.items()
    )


def drawn(key: str, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Frames above their reconstructions and the difference, uint8 (height, width, 3)."""
    truth, guess = rgb(truth), rgb(guess)
    error = ((guess.astype(np.int16) - truth + 255) // 2).astype(np.uint8)
    rows = [
        (name, images, [PLAIN] * len(images))
        for name, images in (('real', truth), ('model', guess), ('error', error))
    ]
    return page(f'{key}: worst reconstructions', DREAMT, rows, panel_size(*truth.shape[1:3]))


def tables(section: str, sections: Mapping[str, Numbers]) -> str:
    """The numbers of a section that are no curve."""
    numbers = sections.get(section)
    if numbers is None:
        return ''
    if section == 'tokenizer':
        return tokenizer_table(numbers)
    if section == 'dynamics':
        rows = [
            (f'K = {count}', found['error'], found['milliseconds_a_frame'])
            for count, found in numbers['denoising_steps'].items()
        ]
        told = table(['denoising steps', 'open-loop error', 'ms a frame (all sequences)'], rows)
        loop = sections.get('open_loop', {})
        known = [
            ('error one frame ahead / of repeating the last frame', loop.get('error_1')),
            ('error of all frames / of repeating the last frame', loop.get('error')),
            ('error under shuffled actions / error (1: ignored)', numbers['shuffle_ratio']),
            ('share of an imagined effect of actions that happens', loop.get('action_effect')),
        ]
        return table(['measure', 'value'], known) + told
    if section == 'heads':
        return head_table(numbers, sections.get('policy', {}))
    if section == 'compare':
        return compare_table(numbers)
    if section == 'tasks':
        return task_table(numbers)
    keys = {
        'sequences': 'sequences',
        'correlation': 'correlation of imagined and real returns',
        'mean_imagined': 'mean imagined return',
        'mean_real': 'mean real return',
        'rms_error': 'root mean square error',
        'std_real': 'standard deviation of real returns',
    }
    return table(['measure', 'value'], [(keys[k], numbers[k]) for k in keys if k in numbers])


def tokenizer_table(numbers: Numbers) -> str:
    heads = {
        'psnr': 'PSNR (dB)',
        'psnr_worst_5_percent': 'worst 5 % below (dB)',
        'psnr_mean_frame': 'of the mean frame (dB)',
        'psnr_foreground': 'foreground (dB)',
        'psnr_foreground_mean_frame': 'its mean frame (dB)',
        'ssim': 'SSIM',
        'lpips': 'LPIPS',
    }
    rows = [
        (key, *(found.get(k, 'not installed') for k in heads))
        for key, found in numbers.items()
        if isinstance(found, dict)
    ]
    return table(['image', *heads.values()], rows) if rows else ''


def head_table(numbers: Numbers, policy: Numbers) -> str:
    behaviour, reward, cont = (numbers[key] for key in ('behaviour', 'reward', 'cont'))
    calibration = behaviour['calibration'] or {}
    rows = [
        ('behaviour: negative log-likelihood at offset 0 (nats)', behaviour['nll'][0]),
        ('behaviour: of a uniform choice (nats)', behaviour['nll_uniform']),
        ('behaviour: likeliest action taken (share)', behaviour['accuracy'][0]),
        ('behaviour: expected calibration error', calibration.get('error')),
        ('reward: correlation at offset 0', reward['correlation'][0]),
        ('reward: skill at offset 0', reward['skill'][0]),
        (f'continue: AUC ({cont["ends"]} ends in {cont["frames"]:,} frames)', cont['auc']),
        ('continue: Brier score', cont['brier']),
        ('continue: Brier score of a constant', cont['brier_constant']),
        ('policy: entropy (nats)', policy.get('entropy')),
        ('policy: KL to the behaviour clone (nats)', policy.get('kl_to_behaviour')),
    ]
    return table(['measure', 'value'], rows)


def task_table(numbers: Numbers) -> str:
    """A row per task; images have a column each."""
    images = [k for k in next(iter(numbers.values()), {}) if k.startswith('psnr/')]
    heads = {
        'sequences': 'sequences',
        **{key: f'PSNR of {key.removeprefix("psnr/")} (dB)' for key in images},
        'behaviour_nll': 'clone: negative log-likelihood (nats)',
        'reward_correlation': 'reward: correlation',
        'return_correlation': 'return: correlation',
        'mean_imagined': 'mean imagined return',
        'mean_real': 'mean real return',
    }
    rows = [(name, *(found.get(key) for key in heads)) for name, found in numbers.items()]
    return table(['task', *heads.values()], rows) if rows else ''


def compare_table(numbers: Numbers) -> str:
    rows = []
    for task, part in {**numbers.get('tasks', {}), '': numbers}.items():
        where = f'{task}: ' if task else 'all tasks: ' if rows else ''
        for name, found in {**part['players'], **part['differences']}.items():
            rows.append((where + name, interval(found), found.get('std', '')))
    return table(['player', 'mean return, 95 % interval', 'standard deviation'], rows)


def interval(found: Numbers) -> str:
    """Mean and interval in words."""
    half = found['ci95']
    if half is None:
        return f'{found["mean"]:.4g}'
    return f'{found["mean"]:.4g} ({found["mean"] - half:.4g} to {found["mean"] + half:.4g})'


def table(heads: Iterable[str], rows: Iterable[tuple]) -> str:
    """Numbers to four digits; None says that there is nothing to measure."""
    cells = lambda row: ''.join(map(cell, row))
    top = ''.join(f'<th>{html.escape(head)}</th>' for head in heads)
    body = ''.join(f'<tr>{cells(row)}</tr>' for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def cell(value: object) -> str:
    if value is None:
        return '<td class="none">nothing to measure</td>'
    if isinstance(value, (int, float)):
        return f'<td class="number">{value:,.4g}</td>'
    return f'<td>{html.escape(str(value))}</td>'


def judged(folder: Path) -> str:
    """The table of dreamer4.diagnose, of what a run has logged."""
    if not (folder / 'metrics.jsonl').exists():
        return ''
    kinds = {True: ('ok', 'fine'), False: ('bad', 'not fine'), None: ('none', '')}
    rows = ''
    for part, name, value, good, words in diagnose.diagnose(diagnose.latest(folder)):
        if value is None:
            continue
        kind, mark = kinds[good]
        words = '' if words == 'fine' else words
        rows += (
            f'<tr><td>{part}</td><td>{name}</td>{cell(value)}<td class="{kind}">{mark}</td>'
            f'<td>{html.escape(words)}</td></tr>'
        )
    heads = ''.join(
        f'<th>{head}</th>' for head in ('part', 'measure', 'last value', 'judged', 'why')
    )
    words = 'The order is that of causes: look at the first line that is not fine.'
    return (
        f'<p class="about">{words}</p><div class="scroll"><table><tr>{heads}</tr>{rows}'
        '</table></div>'
        if rows
        else ''
    )


def history(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Stage -> (updates, held-out measure) of what a run has logged."""
    out: dict[str, tuple[list[float], list[float]]] = {}
    path = folder / 'metrics.jsonl'
    for row in read_lines(path) if path.exists() else ():
        for key, value in row.items():
            if key.startswith('held_out/') and isinstance(value, (int, float)):
                x, y = out.setdefault(key.removeprefix('held_out/'), ([], []))
                x.append(row['updates'])
                y.append(value)
    return {name: points for name, points in out.items() if len(points[0]) > 1}
