"""Episodes in .npz files and chunks, each in the convention of those who write them."""

import numpy as np
import pytest
from convert_sources import count, hundredths

from embodied.convert import arrays
from embodied.errors import ReplayError
from embodied.replay import Replay
from embodied.replay.config import unlimited


def test_vijayabhaskar_actions_are_taken_at_their_frame_and_earn_the_reward(
    converted, tmp_path, frames
):
    np.savez_compressed(
        tmp_path / 'a.npz',
        frames=np.stack([frames, frames + 1]),
        actions=np.stack([count(5), count(5, 10)]),
        rewards=np.float32([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]),
        dones=np.float32([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]),
    )
    one, two = converted('vijayabhaskar', tmp_path / 'a.npz').episodes
    assert hundredths(one['action'][:, 0]) == [0, 1, 2, 3, 0]
    assert one['reward'].tolist() == [0, 1, 2, 3, 4] and not one['is_terminal'].any()
    assert (one['image'] == frames).all()
    assert hundredths(two['action'][:, 0]) == [10, 11, 12, 13, 14, 0]
    assert two['reward'].tolist() == [0, 1, 2, 3, 4, 5] and two['is_terminal'][-1]
    assert (two['image'][:5] == frames + 1).all() and (two['image'][5] == frames[4] + 1).all()


def test_vijayabhaskar_sets_made_from_others_hold_actions_that_led(converted, tmp_path, frames):
    np.savez(tmp_path / 'a.npz', frames=frames[None], actions=count(5)[None])
    (episode,) = converted('vijayabhaskar', tmp_path / 'a.npz', '--time', 'led').episodes
    assert hundredths(episode['action'][:, 0]) == [1, 2, 3, 4, 0]
    assert episode['unlabeled_reward'].all()


def test_only_one_episode_at_a_time_is_read_from_a_large_npz(tmp_path, frames):
    np.savez(tmp_path / 'a.npz', frames=np.stack([frames + n for n in range(9)]))
    with arrays.opened(tmp_path / 'a.npz') as columns:
        assert (columns['frames'].rows(1, 1)[0] == frames + 1).all()
        assert (columns['frames'].rows(7, 2)[1] == frames + 8).all()


@pytest.mark.parametrize('content', [b'nothing', b'PK\x03\x04' + 50 * b'x'])
def test_what_is_no_npz_is_named(tmp_path, content):
    (tmp_path / 'a.npz').write_bytes(content)
    with pytest.raises(ReplayError, match='a.npz: cannot be read'):
        arrays.whole(tmp_path / 'a.npz')


def test_pickles_in_an_npz_are_left_alone(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.arange(3), b=np.array([{}, []], object))
    assert list(arrays.whole(tmp_path / 'a.npz')) == ['a']


def torch_episode(frames, onehot=False):
    """As dreamerv3-torch and V-D4RL (64px) write it: row 0 holds zeros, the action of a row led to
    its frame."""
    return {
        'image': frames,
        'action': np.eye(5)[[0, 4, 3, 2, 1]] if onehot else count(5),
        'reward': np.float32([0, 1, 2, 3, 4]),
        'discount': np.float32([1, 1, 1, 1, 0]),
        'is_first': np.arange(5) == 0,
        'is_terminal': np.arange(5) == 4,
        'logprob': np.zeros(5),
    }


@pytest.mark.parametrize('form', ['dreamerv3-torch', 'vd4rl'])
def test_dreamerv3_torch_actions_led_to_their_frame(converted, tmp_path, frames, form):
    np.savez_compressed(tmp_path / '20240101T000000-aa-5.npz', **torch_episode(frames))
    (episode,) = converted(form, tmp_path).episodes
    assert hundredths(episode['action'][:, 0]) == [1, 2, 3, 4, 0]
    assert episode['reward'].tolist() == [0, 1, 2, 3, 4] and episode['is_terminal'][-1]
    assert 'discount' not in episode and 'logprob' not in episode


def test_onehot_codes_of_dreamerv3_torch_become_choices(converted, tmp_path, frames):
    np.savez_compressed(tmp_path / 'a-5.npz', **torch_episode(frames, onehot=True))
    (episode,) = converted('dreamerv3-torch', tmp_path, '--onehot').episodes
    assert episode['action'].tolist() == [4, 3, 2, 1, 0]


def test_a_discount_of_zero_ends_an_episode_where_nothing_else_tells(converted, tmp_path, frames):
    columns = torch_episode(frames)
    del columns['is_terminal']
    np.savez_compressed(tmp_path / 'a-5.npz', **columns)
    assert converted('dreamerv3-torch', tmp_path).episodes[0]['is_terminal'][-1]


def test_a_file_of_several_episodes_is_refused(converted, tmp_path, frames, capsys):
    columns = torch_episode(frames) | {'is_first': np.arange(5) % 3 == 0}
    np.savez_compressed(tmp_path / 'a-5.npz', **columns)
    converted('dreamerv3-torch', tmp_path, status=2)
    assert 'several episodes in one file' in capsys.readouterr().err


def test_dreamerv3_chunks_are_followed_over_their_borders(converted, tmp_path):
    """Three chunks of one worker and one of another; episodes of 6, 6 and 4 rows, the last cut
    off. Rows hold latents and ids that nobody here reads, and no meta.json stands beside."""
    time, ids = '20240101T00000{}F000000', [letter * 22 for letter in 'abcd']
    steps = np.arange(16)
    columns = {
        'image': np.repeat(steps, 48).reshape(16, 4, 4, 3).astype(np.uint8),
        'action': count(16),
        'reward': (steps % 6).astype(np.float32),
        'is_first': steps % 6 == 0,
        'is_last': steps % 6 == 5,
        'is_terminal': steps == 5,
        'stepid': np.zeros((16, 20), np.uint8),
        'dyn/deter': np.zeros((16, 8), np.float32),
    }
    parts = [(0, 0, 4, 'b'), (1, 4, 11, 'c'), (2, 11, 16, '0')]
    for index, start, stop, successor in parts:
        name = f'{time.format(index)}-{ids[index]}-{successor * 22}-{stop - start}.npz'
        np.savez_compressed(tmp_path / name, **{k: v[start:stop] for k, v in columns.items()})
    name = f'{time.format(3)}-{ids[3]}-{"0" * 22}-6.npz'
    np.savez_compressed(tmp_path / name, **{k: v[:6] for k, v in columns.items()})
    found = converted('dreamerv3', tmp_path).episodes
    assert [episode['image'][:, 0, 0, 0].tolist() for episode in found] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
        [12, 13, 14, 15],
        [0, 1, 2, 3, 4, 5],
    ]
    assert hundredths(found[1]['action'][:, 0]) == [6, 7, 8, 9, 10, 0]
    assert found[1]['reward'].tolist() == [0, 1, 2, 3, 4, 5]
    assert [episode['is_terminal'].any() for episode in found] == [True, False, False, True]
    assert all(episode['is_last'][-1] for episode in found), 'also of the one that was cut off'
    assert 'dyn/deter' not in found[0]


def test_our_own_folder_keeps_its_spaces_and_its_labels(converted, tmp_path):
    replay = Replay(unlimited(0.1), tmp_path / 'own', 0)
    for step in range(4):
        flags = {key: np.bool_(step == at) for key, at in (('is_first', 0), ('is_last', 3))}
        replay.add(
            {
                'image': np.full((4, 4, 3), step, np.uint8),
                'action': np.int32(step),
                'reward': np.float32(step),
                'is_terminal': np.bool_(False),
                'unlabeled_action': np.bool_(step == 1),
                **flags,
            }
        )
    replay.close()
    (episode,) = converted('dreamerv3', tmp_path / 'own', '--size', '2').episodes
    assert episode['image'].shape == (4, 2, 2, 3)
    assert episode['unlabeled_action'].tolist() == [False, True, False, False]


def test_columns_in_the_names_of_another_layout_are_no_observations(
    converted, tmp_path, frames, capsys
):
    """As TorchWM collects them; nothing in the file tells the times of its actions and rewards."""
    np.savez(tmp_path / 'a.npz', frames=frames, actions=count(5), rewards=np.zeros(5))
    converted('npz', tmp_path / 'a.npz', status=2)
    assert 'actions, rewards would be observations' in capsys.readouterr().err
    (episode,) = converted('npz', tmp_path / 'a.npz', '--keys', 'image').episodes
    assert (episode['image'] == frames).all() and 'actions' not in episode


def test_a_done_in_the_middle_of_a_vijayabhaskar_row_ends_an_episode(converted, tmp_path, frames):
    """What follows is seen after a reset, which no action led to."""
    np.savez(
        tmp_path / 'a.npz',
        frames=np.stack([frames, frames + 1]),
        actions=np.stack([count(5), count(5, 10)]),
        rewards=np.ones((2, 5), np.float32),
        dones=np.float32([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]),
    )
    one, two, three = converted('vijayabhaskar', tmp_path / 'a.npz').episodes
    assert hundredths(one['action'][:, 0]) == [0, 1, 2, 0] and one['is_terminal'][-1]
    assert (two['image'] == frames[3:]).all() and not two['is_terminal'].any()
    assert hundredths(two['action'][:, 0]) == [3, 0]
    assert hundredths(three['action'][:, 0]) == [10, 11, 12, 13, 0]
