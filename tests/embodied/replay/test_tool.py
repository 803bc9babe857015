"""python -m embodied.replay: what inspect reports and export writes, checked against rows known
exactly.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embodied.replay import Replay, ReplayConfig, npz
from embodied.replay.tool import main

ROOT = Path(__file__).parents[3]
CONFIG = ReplayConfig(
    directory=(),
    shares=(),
    max_gb=1.0,
    disk_gb=1.0,
    chunk_rows=8,
    uniform=1.0,
    recent=0.0,
    newest=0.0,
    recent_rows=100,
    resume='manifest',
    demos='',
    demo_share=0.0,
    video='',
    video_share=0.0,
    held_out=0.0,
    relevant=0.0,
    relevance='demos',
    prefetch=True,
)


def row(step, length, terminal=False, cut=False):
    last = step == length - 1
    return {
        'image': np.full((8, 8, 3), 10 * step % 256, np.uint8),
        'grey': np.full((6, 6, 1), step % 256, np.uint8),
        'action': np.float32([step]),
        'reward': np.float32(step),
        'is_first': np.bool_(step == 0),
        'is_last': np.bool_(last and not cut),
        'is_terminal': np.bool_(last and terminal),
    }


@pytest.fixture
def folder(tmp_path):
    """Episodes of 5 (terminal), 7 (time limit), 3 (cut) and 4 (open) rows in one stream, 2
    (terminal) in another.
    """
    replay = Replay(CONFIG, tmp_path / 'replay', 0, meta={'task': 'made_up'})
    for length, options in [
        (5, {'terminal': True}),
        (7, {}),
        (3, {'cut': True}),
        (4, {'cut': True}),
    ]:
        for step in range(length):
            replay.add(row(step, length, **options), 0)
    for step in range(2):
        replay.add(row(step, 2, terminal=True), 1)
    replay.close()
    return tmp_path / 'replay'


def report(folder, capsys):
    assert main(['inspect', str(folder), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_counts_episodes_returns_lengths_and_bytes(folder, capsys):
    found = report(folder, capsys)
    assert [(item['length'], item['score'], item['ends']) for item in found['list']] == [
        (5, 10, 'terminal'),
        (7, 21, 'truncated'),
        (3, 3, 'cut'),
        (4, 6, 'open'),
        (2, 1, 'terminal'),
    ]
    assert (
        found['rows'] == 21
        and found['chunks'] == 4
        and found['streams'] == 2
        and found['complete'] == 3
    )
    assert found['returns'] == {'mean': 32 / 3, 'min': 1, 'max': 21, 'last': 1}
    assert found['bytes'] == sum(path.stat().st_size for path in folder.glob('*.npz'))
    assert found['schema']['image'] == {'dtype': 'uint8', 'shape': [8, 8, 3]} and found['meta'] == {
        'task': 'made_up'
    }


def test_the_logdir_above_the_rows_is_understood(folder, tmp_path, capsys):
    assert report(folder.parent, capsys) == report(folder, capsys)
    out = tmp_path / 'episode.npz'
    assert main(['export', str(folder.parent), '--episode', '1', '--out', str(out)]) == 0
    assert len(np.load(out)['frames']) == 7


def test_inspect_names_broken_and_foreign_files_and_changes_nothing(folder, capsys):
    victim = sorted(folder.glob('*.npz'))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    (folder / 'foreign.txt').touch()
    before = sorted(folder.iterdir())
    found = report(folder, capsys)
    assert list(found['broken']) == [victim.name] and 'damaged' in found['broken'][victim.name]
    assert 'foreign.txt' in found['notes'][0] and found['rows'] == 13
    assert not found['list'][0]['whole'], 'its first rows were in the broken file'
    assert sorted(folder.iterdir()) == before


def test_verify_finds_a_flipped_bit_in_a_large_file_that_a_quick_look_does_not(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(npz, 'READ_WHOLE', 0)
    victim = sorted(folder.glob('*.npz'))[1]
    content = bytearray(victim.read_bytes())
    content[content.index(b'image.npy') + 200] ^= 1
    victim.write_bytes(content)
    assert not report(folder, capsys)['broken'] and report(folder, capsys)['unverified'] == 4
    assert (
        main(['inspect', str(folder)]) == 0
        and '4 large files were not read whole, which --verify does' in capsys.readouterr().out
    )
    assert main(['inspect', str(folder), '--verify']) == 1
    assert f"broken files: 1\n  {victim}: column 'image' is damaged" in capsys.readouterr().out
    victim.unlink()
    assert main(['inspect', str(folder), '--verify']) == 0


def test_the_command_prints_a_table(folder):
    result = subprocess.run(
        [sys.executable, '-m', 'embodied.replay', 'inspect', str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    for part in (
        '21 rows in 4 chunks and 2 streams',
        'returns  mean 10.6667',
        'truncated',
        'broken files: 0',
        'image',
        'made_up',
    ):
        assert part in result.stdout


def test_export_writes_the_frames_of_an_episode(folder, tmp_path, capsys):
    frames = np.stack([row(step, 7)['image'] for step in range(7)])
    assert main(['export', str(folder), '--episode', '1', '--out', str(tmp_path / 'e.npz')]) == 0
    assert (np.load(tmp_path / 'e.npz')['frames'] == frames).all()
    assert (
        main(
            [
                'export',
                str(folder),
                '--episode',
                '-1',
                '--out',
                str(tmp_path / 'g.npz'),
                '--key',
                'grey',
            ]
        )
        == 0
    )
    assert np.load(tmp_path / 'g.npz')['frames'].shape == (2, 6, 6, 1)
    assert '7 frames' in capsys.readouterr().out


def test_export_writes_gif_and_numbered_png(folder, tmp_path):
    image = pytest.importorskip('PIL.Image', reason='pillow is optional')
    assert main(['export', str(folder), '--episode', '1', '--out', str(tmp_path / 'e.gif')]) == 0
    with image.open(tmp_path / 'e.gif') as gif:
        assert gif.n_frames == 7 and gif.size == (8, 8)
    assert (
        main(
            [
                'export',
                str(folder),
                '--episode',
                '1',
                '--out',
                str(tmp_path / 'e.png'),
                '--key',
                'grey',
            ]
        )
        == 0
    )
    assert [path.name for path in sorted(tmp_path.glob('*.png'))] == [
        f'e-{step:04}.png' for step in range(7)
    ]
    with image.open(tmp_path / 'e-0003.png') as png:
        assert np.asarray(png).tolist() == np.full((6, 6, 3), 3).tolist()


def test_export_writes_mp4_that_reads_back(folder, tmp_path):
    video = pytest.importorskip('imageio.v3')
    pytest.importorskip('imageio_ffmpeg')
    assert main(['export', str(folder), '--episode', '1', '--out', str(tmp_path / 'e.mp4')]) == 0
    assert video.imread(tmp_path / 'e.mp4').shape == (7, 8, 8, 3)


def test_a_missing_package_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imageio', None)
    assert main(['export', str(folder), '--episode', '1', '--out', str(tmp_path / 'e.mp4')]) == 2
    error = capsys.readouterr().err
    assert "'imageio'" in error and '[video]' in error and error.count('\n') == 1


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--episode', '5', '--out', 'x.gif'], 'holds 5, numbered from 0'),
        (['--episode', '0', '--out', 'x.avi'], 'must end in one of'),
        (['--episode', '0', '--out', 'x.gif', '--key', 'no'], "no column 'no'"),
        (['--episode', '0', '--out', 'x.gif', '--key', 'action'], 'Images must be uint8'),
    ],
)
def test_wrong_requests_end_in_one_line_and_status_2(
    folder, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(['export', str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_missing_or_holds_no_chunk_is_named(tmp_path, capsys):
    for directory, message in (
        (tmp_path / 'none', 'no such folder'),
        (tmp_path, 'holds no readable chunk'),
    ):
        assert main(['inspect', str(directory)]) == 2
        assert message in capsys.readouterr().err


CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np
from embodied.replay import Replay, ReplayConfig
from test_tool import CONFIG, row
folder, note = Path(sys.argv[1]), Path(sys.argv[2])
replay = Replay(CONFIG, folder, 0)
state = json.loads(note.read_text()) if note.exists() else {'next': 0, 'manifest': None}
if state['manifest']:
    replay.load(state['manifest'])
assert len(replay) == state['next'], (len(replay), state['next'])
print('ready', flush=True)
while True:
    for step in range(state['next'], state['next'] + 30):
        replay.add(row(step, 10 ** 6) | {'reward': np.float32(step)}, 0)
    state = {'next': state['next'] + 30, 'manifest': replay.save()}
    note.with_suffix('.tmp').write_text(json.dumps(state))
    os.replace(note.with_suffix('.tmp'), note)
"""


def saved(note):
    return json.loads(note.read_text())['next'] if note.exists() else 0


def test_killed_at_any_moment_every_restart_has_exactly_the_rows_of_its_checkpoint(
    tmp_path, wait_until
):
    folder, note = tmp_path / 'replay', tmp_path / 'note.json'
    for pause in np.random.default_rng(0).uniform(0.0, 0.2, 3):
        child = subprocess.Popen(
            [sys.executable, '-c', CHILD, str(folder), str(note)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                'PYTHONPATH': f'{ROOT}{os.pathsep}{Path(__file__).parent}',
                'PYTHONWARNINGS': 'ignore',
            },
        )
        assert child.stdout.readline() == 'ready\n', child.stderr.read()
        before = saved(note)
        wait_until(lambda before=before: saved(note) != before)
        time.sleep(pause)
        child.kill()
        assert not child.communicate()[1]
    state = json.loads(note.read_text())
    replay = Replay(CONFIG, folder, 0, on_event=lambda text: None)
    replay.load(state['manifest'])
    assert len(replay) == state['next'] > 0
    sample = replay.sample(1, state['next'])
    assert (sample['reward'][0] == np.arange(state['next'])).all(), (
        'one stream, no row lost or doubled, over all restarts'
    )
