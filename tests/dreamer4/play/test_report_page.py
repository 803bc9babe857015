"""report.html in a real browser, from disk: everything is in the file, can be seen, and fits."""

import os

import numpy as np
import pytest
from browser import find, running

from dreamer4.report import figures, page
from dreamer4.report.examine import Findings
from embodied.media import gif

PLAYER = {'mean': 1.0, 'ci95': 0.5, 'std': 1.0, 'returns': [1.0, 2.0], 'lengths': [5, 5]}
SECTIONS = {
    'compare': {
        'players': {'policy': PLAYER, 'random': PLAYER},
        'differences': {'policy - random': {'mean': 0.0, 'ci95': None}},
        'episodes': 2,
        'mode': 'sample',
    },
    'tokenizer': {
        'image': {
            'psnr': 30.0,
            'ssim': 0.9,
            'psnr_mean_frame': 20.0,
            'psnr_worst_5_percent': 25.0,
            'psnr_foreground': 22.0,
            'psnr_foreground_mean_frame': None,
            'psnr_of_frames': [29.0, 31.0],
        }
    },
    'dynamics': {
        'steps': 2,
        'horizon': {'model': [0.1, 0.2], 'shuffled actions': [0.3, 0.5]},
        'shuffle_ratio': 2.5,
        'tau': [0.0, 0.5],
        'levels': {'model': [0.5, 0.1], 'noisy frame': [2.0, 1.0]},
        'denoising_steps': {1: {'error': 0.3, 'milliseconds_a_frame': 1.0}},
    },
    'heads': {
        'behaviour': {
            'nll': [0.5, None],
            'nll_uniform': 1.1,
            'accuracy': [0.7, None],
            'calibration': {
                'confidence': [0.6],
                'accuracy': [0.7],
                'share': [1.0],
                'error': 0.1,
            },
        },
        'reward': {'correlation': [0.9, None], 'skill': [0.8, 0.5], 'points': [[0.0], [0.0]]},
        'cont': {'auc': None, 'brier': 0.1, 'brier_constant': 0.2, 'ends': 0, 'frames': 9},
    },
    'policy': {'entropy': 1.0, 'kl_to_behaviour': 0.1},
    'imagination': {
        'sequences': 2,
        'correlation': 0.7,
        'mean_imagined': 1.0,
        'mean_real': 1.0,
        'rms_error': 0.1,
        'std_real': 0.5,
        'imagined': [0.0, 1.0],
        'real': [0.0, 1.1],
    },
}


def written(folder):
    """A page of made-up numbers, and what is beside it."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 40, 300, 3), dtype=np.uint8)
    found = Findings(worst={'image': (noise[:2], noise[2:4])}, videos={'openloop/image': noise})
    (folder / 'metrics.jsonl').write_text(
        '{"frames": 0, "updates": 1, "held_out/agent": 1.0, "tokenizer/unexplained": 0.5}\n'
        '{"frames": 0, "updates": 2, "held_out/agent": 0.5, "tokenizer/unexplained": 0.4}\n'
    )
    plots = figures.draw(SECTIONS, page.history(folder))
    clips = {name: gif(video, page.FPS, width=0, seconds=0) for name, video in found.videos.items()}
    lines = ['A line & more.']
    content = page.write(found, clips, SECTIONS, plots, 'Report of <run>', lines, folder)
    (folder / 'report.html').write_bytes(content)
    return plots, content.decode()


def test_the_page_asks_for_nothing_and_says_everything(tmp_path):
    plots, text = written(tmp_path)
    assert set(plots) >= {'compare', 'tokenizer-image', 'dynamics-tau', 'reward', 'held-out-agent'}
    assert 'http' not in text.replace('http-equiv', '') and '<script' not in text
    assert 'Report of &lt;run&gt;' in text and 'nothing to measure' in text
    assert text.count('data:image/png') == len(plots) + 1 and text.count('data:image/gif') == 1
    headings = ('What works', 'Closed loop', 'Tokenizer', 'Dynamics', 'Heads', 'Imagination')
    for heading in (*headings, 'Training', 'Videos of dreams', 'nats', 'dB', 'tau'):
        assert heading in text


def test_a_browser_shows_it_whole(tmp_path):
    if find() is None:
        assert os.environ.get('REQUIRE_BROWSER') != '1', 'REQUIRE_BROWSER=1, but no Chromium'
        pytest.skip('Chromium is not installed')
    plots, _ = written(tmp_path)
    (tmp_path / 'profile').mkdir()
    with running(tmp_path / 'profile') as open_page:
        shown = open_page(f'file://{tmp_path}/report.html')
        images = 'document.images'
        shown.until(f'[...{images}].every((i) => i.complete && i.naturalWidth > 0)')
        assert shown.js(f'{images}.length') == len(plots) + 2
        for width in (1280, 390):
            shown.size(width, 900)
            wide = shown.js('document.documentElement.scrollWidth')
            assert wide <= width, f'{wide} pixels wide in a window of {width}'
            smallest = shown.js(f'Math.min(...[...{images}].map((i) => i.clientWidth))')
            assert smallest > 200, 'plots can be read'
        assert shown.js("performance.getEntriesByType('resource').length") == 0 and not shown.errors
