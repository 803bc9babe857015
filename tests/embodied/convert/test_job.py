"""A conversion is continued where it was interrupted, overwrites nothing, and names what is
wrong.
"""

import json

import numpy as np
import pytest
from convert_sources import count, hundredths

from embodied.convert import job
from embodied.convert.command import main
from embodied.convert.ledger import Ledger
from embodied.replay import meta as metas


@pytest.fixture
def source(tmp_path, frames):
    """Four episodes whose actions tell which they are."""
    folder = tmp_path / 'source'
    folder.mkdir()
    for number in range(4):
        columns = {'frames': frames + number, 'action': count(5, 10 * number)}
        np.savez(folder / f'{number}.npz', reward=np.arange(5.0), **columns)
    return folder


def damage(source, number):
    path = source / f'{number}.npz'
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path, content


def which(converted):
    return [hundredths(episode['action'][:, 0])[0] for episode in converted.episodes]


def test_the_same_command_again_adds_only_what_is_new(converted, source, capsys, frames):
    converted('npz', source)
    assert '4 episodes (4 new), 20 rows' in capsys.readouterr().out
    np.savez(source / 'later.npz', frames=frames, action=count(5, 90), reward=np.zeros(5))
    converted('npz', source)
    assert '5 episodes (1 new), 25 rows' in capsys.readouterr().out
    assert which(converted) == [0, 10, 20, 30, 90]


def test_nothing_is_overwritten(converted, source, tmp_path, capsys):
    converted('npz', source)
    converted('npz', source, '--size', '8', status=2)
    assert "options {'key': 'image'} there" in capsys.readouterr().err
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    assert main(['npz', str(source), str(tmp_path / 'mine')]) == 2
    assert 'nothing is overwritten' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['thesis.txt']


def test_a_damaged_episode_is_named_and_those_before_it_are_kept(converted, source, capsys):
    path, content = damage(source, 2)
    converted('npz', source, status=2)
    error = capsys.readouterr().err
    assert '2.npz' in error and error.count('\n') == 1
    assert which(converted) == [0, 10]
    path.write_bytes(content)
    converted('npz', source)
    assert which(converted) == [0, 10, 20, 30]


def test_damaged_episodes_can_be_left_out(converted, source, capsys):
    damage(source, 0)
    damage(source, 2)
    converted('npz', source, '--skip')
    out, error = capsys.readouterr()
    assert '2 episodes (2 new), 10 rows' in out and '2 episodes left out' in out
    assert error.count('left out') == 2 and which(converted) == [10, 30]


@pytest.mark.parametrize('save_bytes', [1, 1e9])
def test_killed_in_the_middle_of_an_episode_the_next_try_has_every_row_once(
    converted, source, monkeypatch, save_bytes
):
    """Rows of the unfinished episode have reached the disk, as the worst moment would have it."""

    def killed(self, sound):
        self.replay.close()
        raise KeyboardInterrupt

    added = []

    def add(self, row, actions):
        added.append(row)
        if len(added) == 13:
            raise KeyboardInterrupt
        return before(self, row, actions)

    before = Ledger.add
    with monkeypatch.context() as patch:
        patch.setattr(job, 'SAVE_BYTES', save_bytes)
        patch.setattr(Ledger, 'close', killed)
        patch.setattr(Ledger, 'add', add)
        converted('npz', source, status=130)
    assert converted.archive.streams.rows == 12
    converted('npz', source)
    assert which(converted) == [0, 10, 20, 30]
    assert [len(episode['reward']) for episode in converted.episodes] == [5] * 4
    assert not (converted.dest / 'unlisted').exists()


def test_meta_names_spaces_that_hold_what_was_found(converted, source, frames):
    np.savez(source / 'z.npz', frames=frames, action=2 * count(5, 90), reward=np.zeros(5))
    schema, obs_space, act_space, facts = metas.read(converted('npz', source).dest)
    assert obs_space['image'].shape == (16, 16, 3) and set(obs_space) == {
        'image', 'reward', 'is_first', 'is_last', 'is_terminal'
    }  # fmt: skip
    space = act_space['action']
    assert np.allclose(space.high, [1.86, 0]) and np.allclose(space.low, [0, -1.86])
    assert facts['source']['format'] == 'npz'


@pytest.mark.parametrize(
    'actions, kind, dtype',
    [
        (np.linspace(-1, 1, 5, dtype=np.float64)[:, None], 'Box', np.float32),
        (np.arange(5), 'Discrete', np.int32),
        (np.arange(10).reshape(5, 2), 'MultiDiscrete', np.int32),
        (np.arange(10).reshape(5, 2) % 3 > 0, 'MultiBinary', np.int8),
    ],
)
def test_the_kind_of_an_action_follows_from_its_dtype(
    converted, tmp_path, frames, actions, kind, dtype
):
    np.savez(tmp_path / 'a.npz', frames=frames, action=actions, reward=np.zeros(5))
    schema, _, act_space, _ = metas.read(converted('npz', tmp_path / 'a.npz').dest)
    assert type(act_space['action']).__name__ == kind and act_space['action'].dtype == dtype
    assert schema == type(schema).from_spaces(*metas.read(converted.dest)[1:3])


def test_options_choose_rename_and_resize_observations(converted, tmp_path, frames):
    np.savez(
        tmp_path / 'a.npz',
        frames=frames,
        a=np.eye(5),
        secret=np.zeros(5),
        joints=np.ones((5, 3)),
        is_terminal=np.arange(5) == 4,
        reward=np.zeros(5),
    )
    flags = ['--action', 'a', '--onehot', '--size', '4', '--timed', '--keys', 'eye', 'joints']
    converted('npz', tmp_path / 'a.npz', *flags, '--key', 'eye', '--rename', 'joints=arm/joints')
    (episode,) = converted.episodes
    assert set(episode) - {'reward', 'is_first', 'is_last', 'is_terminal'} == {
        'a', 'eye', 'arm/joints'
    }  # fmt: skip
    assert episode['eye'].shape == (5, 4, 4, 3) and episode['a'].tolist() == [0, 1, 2, 3, 0]
    assert not episode['is_terminal'].any()


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['nps', '.', 'out'], "no format 'nps'; nearest: npz"),
        (['nps', 'nowhere', '/'], "no format 'nps'; nearest: npz"),
        (['npz', 'nowhere', '/'], 'no such file or folder'),
        (['npz', 'nowhere', 'out'], 'no such file or folder'),
        (['npz', '.', 'out'], 'there is no file .npz in it'),
        (['npz', '.'], 'FORMAT SOURCE DEST are needed'),
        (['npz', '.', 'out', '--rename', 'a'], '--rename takes OLD=NEW'),
    ],
)
def test_requests_that_make_no_sense_are_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1 and not list(tmp_path.iterdir())


def test_the_list_names_every_format(capsys):
    assert main(['--list']) == 0
    assert 'vijayabhaskar' in capsys.readouterr().out


def test_the_line_of_progress_says_how_far_it_is():
    progress = job.Progress(4)
    for _ in range(10):
        progress.row(1000)
    progress.episode(2)
    assert progress.words(2.0) == (
        '[##########..........] 2 of 4 episodes, 10 rows, 0.00 GB, 5 rows/s'
    )


def test_a_ledger_that_is_damaged_is_named(converted, source, capsys):
    converted('npz', source)
    (converted.dest / 'convert' / 'ledger.json').write_text('{')
    converted('npz', source, status=2)
    assert 'ledger.json: cannot be read' in capsys.readouterr().err
    (converted.dest / 'convert' / 'ledger.json').write_text(json.dumps({'request': {}}))
    converted('npz', source, status=2)


def test_a_folder_without_an_episode_may_be_filled_by_another_request(converted, source, capsys):
    """The first try failed, since its flags were wrong."""
    converted('npz', source, '--rename', 'image=reward', status=2)
    assert "image cannot be renamed: rows have a column 'reward'" in capsys.readouterr().err
    converted('npz', source)
    assert which(converted) == [0, 10, 20, 30] and converted.archive.streams.rows == 20
