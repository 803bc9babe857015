"""Writes the tables of the pages from the committed results, so that every number was measured.

python -m benchmarks.pages            # rewrite the tables between <!-- NAME --> and <!-- /NAME -->
python -m benchmarks.pages --check    # only report whether the pages are up to date
"""

import argparse
import json
import re
import sys
import textwrap

import numpy as np

from . import ablate, learning
from . import attention as attention_kernels
from . import chaos as chaos_runs
from . import many as several
from . import peers as peer_code
from . import plan as plans
from .speed import HEAD, line

RESULTS, ROOT = learning.RESULTS, learning.ROOT
PAGES = (
    'README.md',
    'docs/runtime.md',
    'docs/speed.md',
    'docs/scale.md',
    'docs/worlds.md',
    'benchmarks/peers.md',
    'benchmarks/results/README.md',
)


def read(name: str) -> dict:
    """A file of results; empty if that was not measured yet."""
    path = RESULTS / f'{name}.json'
    return json.loads(path.read_text()) if path.exists() else {}


# files of results from state, and of pixels -> the presets that made them
STATE = {
    'proprio': 'dmc_proprio',
    'proprio_sooner': 'dmc_proprio --agent.actor.openness 0.9 0.5 --agent.schedule.anneal 2000',
}
FRONT_FILES = STATE | {'learning_pixel': 'pixel'}
STATE_METHODS = ('DreamerV3', 'MPO', 'DDPG')  # of published_dmc_proprio.json
FRONT = (
    '| preset, task | return after training, per seed (95 % interval) | zero action | uniform play'
    ' | for comparison | frames | minutes |\n|---|---|---|---|---|---|---|'
)


def front() -> str:
    """What each preset reaches, beside play without learning and what is known of the task."""
    played = read('baselines')['tasks']
    lines = [FRONT]
    for name, preset in FRONT_FILES.items():
        runs = read(name).get('runs', [])
        for task in dict.fromkeys(run['task'] for run in runs):
            lines.append(front_row(preset, task, [r for r in runs if r['task'] == task], played))
    return '\n'.join(lines)


def front_row(preset: str, task: str, runs: list[dict], played: dict) -> str:
    if task in learning.BOUNDS:
        low, high = learning.BOUNDS[task]
        zero, uniform, known = '', f'{low:.3g}', f'optimal {high:.3g}'
    else:
        zero, uniform = (f'{played[task][player]["mean"]:.0f}' for player in ('zero', 'uniform'))
        known = 'published: ' + ', '.join(
            f'{method} {published_state(method, task, frames_of(runs[0])):.0f}'
            for method in STATE_METHODS
        )
    scores = ', '.join(f'{r["eval"]["mean"]:.3g} +- {r["eval"]["ci95"]:.2g}' for r in runs)
    frames, minutes = max(map(frames_of, runs)), max(run['seconds'] for run in runs) / 60
    return (
        f'| `{preset}` `{task}` | {scores} | {zero} | {uniform} | {known} | {frames:,} |'
        f' {minutes:.0f} |'
    )


def frames_of(run: dict) -> int:
    """Frames of a whole run: what it was given, or else the end of its curve."""
    return run.get('frames', run['curve']['frames'][-1])


def published_state(method: str, task: str, frames: int) -> float:
    """Mean return of a published run from state at so many frames."""
    curve = read('published_dmc_proprio')['methods'][method][task]
    return float(np.interp(frames, curve['frames'], curve['score']))


def proprio() -> str:
    """Returns from state over seeds, beside play without learning and published runs."""
    files, played = [f for f in map(read, STATE) if f], read('baselines')['tasks']
    lines = [
        '| task | seed | evaluation (95 % interval, episodes) | zero action | uniform play | '
        + ', '.join(STATE_METHODS)
        + ', published | frames | minutes |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for run in (run for found in files for run in found['runs']):
        task, scored, frames = run['task'], run['eval'], frames_of(run)
        known = ', '.join(f'{published_state(m, task, frames):.0f}' for m in STATE_METHODS)
        zero, uniform = (
            '{mean:.2g} +- {ci95:.2g} ({episodes})'.format(**played[task][player])
            for player in ('zero', 'uniform')
        )
        lines.append(
            f'| `{task}` | {run["seed"]} | {scored["mean"]:.0f} +- {scored["ci95"]:.0f}'
            f' ({scored["episodes"]}) | {zero} | {uniform} | {known} | {frames:,} |'
            f' {run["seconds"] / 60:.1f} |'
        )
    return '\n'.join([*lines, *(line for found in files for line in ('', origin(found)))])


def pixel() -> str:
    """Returns of the pixel tasks over seeds."""
    found = read('learning_pixel')
    lines = [
        (
            '| task | random | optimal | return after training, per seed (100 episodes, 95 %'
            ' interval) | share of the way | frames | minutes |'
        ),
        '|---|---|---|---|---|---|---|',
    ]
    for task in learning.PIXEL:
        low, high = learning.BOUNDS[task]
        runs = [run for run in found['runs'] if run['task'] == task]
        cells = [
            [f'{run["eval"]["mean"]:.3g} +- {run["eval"]["ci95"]:.2g}' for run in runs],
            [f'{learning.share(task, run["eval"]["mean"]):.0%}' for run in runs],
            [f'{run["curve"]["frames"][-1]:,}' for run in runs],
            [f'{run["seconds"] / 60:.1f}' for run in runs],
        ]
        lines.append(
            f'| `{task}` | {low:.3g} | {high:.3g} | '
            + ' | '.join(', '.join(cell) for cell in cells)
            + ' |'
        )
    return '\n'.join([*lines, '', origin(found)])


def dmc() -> str:
    """Returns on the control suite beside DreamerV3's at equal frames."""
    found = read('learning_dmc')
    if not found:
        return 'Not measured yet.'
    lines = [
        (
            '| task | seed | random play | return after training (95 % interval, episodes) |'
            ' DreamerV3, published, at these frames | frames | minutes | flags |'
        ),
        '|---|---|---|---|---|---|---|---|',
    ]
    for run in found['runs']:
        frames, scored = run['curve']['frames'][-1], run['eval']
        random = run['random']
        played = f'{random["mean"]:.0f}' if random['episodes'] else '-'
        lines.append(
            f'| `{run["task"]}` | {run["seed"]} | {played} ({random["episodes"]} episodes) |'
            f' {scored["mean"]:.0f} +- {scored["ci95"]:.0f} ({scored["episodes"]}) |'
            f' {learning.published_cell(run["task"], frames)} | {frames:,} |'
            f' {run["seconds"] / 60:.0f} | `{" ".join(run["flags"])}` |'
        )
    return '\n'.join([*lines, '', origin(found)])


def ablation() -> str:
    """What each choice does on the pixel tasks."""
    found = read('ablate')
    return (
        f'{ablate.table(found["runs"])}\n\nMachine: {machine(found)}.'
        if found
        else 'Not measured yet.'
    )


def broken() -> str:
    """What diagnose says of runs that were broken on purpose."""
    found = read('broken')
    if not found:
        return 'Not measured yet.'
    return '\n'.join(
        ['| fault | first cause that diagnose finds |', '|---|---|']
        + [f'| {name} | {case["first cause"]} |' for name, case in found['cases'].items()]
    )


def chaos() -> str:
    """What kills and faults did, at every commit that was measured; the newest first."""
    lines = [line for name in ('chaos', 'chaos_first') for line in chaos_runs.lines(read(name))]
    return '\n'.join(lines) or 'Not measured yet.'


def runtime() -> str:
    """Driver and replay beside their peers."""
    found = read('runtime')
    if not found:
        return 'Not measured yet.'
    base = found['driver']['AsyncVectorEnv, shared memory']['steps_per_second']
    lines = [
        (
            '| 16 envs, 64x64x3 and eight small keys | steps/s | to AsyncVectorEnv | late after a'
            ' pause of 150 ms |'
        ),
        '|---|---|---|---|',
    ]
    lines += [
        f'| {name} | {one["steps_per_second"]:,.0f} | {one["steps_per_second"] / base:.2f} |'
        f' {one["late_ms"]:.2f} ms |'
        for name, one in found['driver'].items()
    ]
    lines += ['', '| replay, rows of 64x64x3 | |', '|---|---|']
    lines += [
        f'| {one["name"]} | {one["value"]:,.{1 if one["value"] >= 100 else 3}f} {one["unit"]} |'
        for one in found['replay']
    ]
    return '\n'.join([*lines, '', f'Machine: {machine(found)}. Commit {found["commit"]}.'])


def peers() -> str:
    """Our training steps and generation beside public code."""
    found = read('peers')
    return (
        f'{peer_code.table(found)}\n\nMachine: {machine(found)}; {found["threads"]} thread. Commit'
        f' {found["commit"]}.'
        if found
        else 'Not measured yet.'
    )


def speed() -> str:
    """Parts of an update, a table for every file of benchmarks/speed.py: they may come from
    different machines and settings.
    """
    tables = []
    for path in sorted(RESULTS.glob('speed*.json')):
        found = json.loads(path.read_text())
        flags = f' `{" ".join(found["flags"])}`' if found['flags'] else ''
        rows = '\n'.join(line(name, one) for name, one in found['runs'].items())
        tables.append(
            f'**{path.stem}**{flags}\n\n{HEAD}\n{rows}\n\nMachine: {machine(found)}. Commit'
            f' {found["commit"]}.'
        )
    return '\n\n'.join(tables) or 'Not measured yet.'


def attention() -> str:
    """Kernels of attention on the shapes in use, a table for every file: another machine chooses
    another kernel.
    """
    tables = []
    for path in sorted(RESULTS.glob('attention*.json')):
        found = json.loads(path.read_text())
        tables.append(
            f'{attention_kernels.table(found)}\n\nMachine: {machine(found)}; {found["threads"]}'
            f' thread. Commit {found["commit"]}.'
        )
    return '\n\n'.join(tables) or 'Not measured yet.'


def worlds() -> str:
    """Every suite once: made, checked, trained for a moment."""
    found = read('worlds')
    if not found:
        return ''
    rows = [
        '| task | package | made | contract | debug run (`--configs`) | frames/s | in words |',
        '|---|---|---|---|---|---|---|',
    ]
    for task, row in found['tasks'].items():
        made, losses = row.get('made'), row.get('losses')
        debug = f'{row["updates"]} updates, {losses} finite losses' if row.get('trained') else 'no'
        cells = [
            f'`{task}`',
            f'{row["package"]} {row["version"]}'.strip() or 'built in',
            'yes' if made else 'no',
            ('yes' if not row['contract'] else 'no') if made else '',
            f'{debug} (`{row["presets"]} debug`)' if made else '',
            f'{row["fps"]:,.0f}' if made else '',
            '; '.join(filter(None, [row.get('contract'), row.get('words'), row.get('note')])),
        ]
        rows.append(f'| {" | ".join(cells)} |'.replace('  ', ' '))
    return '\n'.join(rows) + f'\n\n{machine(found)}'


def together(name: str) -> str:
    """Agents of several tasks or cameras, of a file of benchmarks/many.py."""
    found = read(name)
    return f'{several.table(found["runs"])}\n\n{origin(found)}' if found else 'Not measured yet.'


def curves(name: str) -> str:
    """Returns of a suite, of a file of benchmarks/learning.py."""
    found = read(name)
    return f'{learning.table(found["runs"])}\n\n{origin(found)}' if found else 'Not measured yet.'


def origin(found: dict) -> str:
    """Machine and commits of a file of runs."""
    return (
        f'Machine: {machine(found)}. Commits:'
        f' {", ".join(sorted({run["commit"] for run in found["runs"]}))}.'
    )


def machine(found: dict) -> str:
    it = found['machine']
    return f'{it["device"]}, {it["cpus"]} logical CPUs, torch {it["torch"]}' + (
        f'; {it["note"]}' if 'note' in it else ''
    )


MAKERS = {
    'front': front,
    'proprio': proprio,
    'pixel': pixel,
    'dmc': dmc,
    'ablation': ablation,
    'broken': broken,
    'chaos': chaos,
    'runtime': runtime,
    'peers': peers,
    'speed': speed,
    'attention': attention,
    'plan': lambda: plans.memory_table(read('plan')),
    'plan_ratio': lambda: plans.ratio_table(read('plan')),
    'worlds': worlds,
    'cameras': lambda: together('cameras'),
    'many': lambda: together('many_pixel'),
    'minigrid': lambda: curves('learning_minigrid'),
    'crafter': lambda: curves('learning_crafter'),
}


def wrapped(text: str) -> str:
    """The same with every line that is no row of a table broken at 100 columns."""
    return '\n'.join(
        line if line.startswith('|') else textwrap.fill(line, 100, subsequent_indent=indent(line))
        for line in text.split('\n')
    )


def indent(line: str) -> str:
    return '  ' if line.startswith('- ') else ''


TABLES = {name: lambda make=make: wrapped(make()) for name, make in MAKERS.items()}


def rendered(text: str) -> str:
    """The page with every table between its marks made anew."""
    for name, make in TABLES.items():
        pattern = rf'(<!-- {name} -->\n).*?(<!-- /{name} -->)'
        if re.search(pattern, text, re.S):
            table = make()
            text = re.sub(pattern, lambda found: f'{found[1]}{table}\n{found[2]}', text, flags=re.S)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='change nothing; status 1 if stale')
    args, stale = parser.parse_args(), []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        if rendered(text) != text:
            stale.append(page)
            if not args.check:
                path.write_text(rendered(text))
    print('rewritten: ' + ', '.join(stale) if stale else 'all pages are up to date')
    sys.exit(bool(stale) and args.check)


if __name__ == '__main__':
    main()
