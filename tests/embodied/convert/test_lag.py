"""Whether actions stand at their rows, told from what is seen: where bodies keep moving, where a
policy reacts to what it sees, from pixels and from numbers.
"""

import functools

import numpy as np
import pytest

from embodied.convert.command import main
from embodied.convert.lag import measure

SIDE = 12


def blob(place):
    """uint8 (12, 12, 3): a bright spot at (x, y)."""
    grid = np.arange(SIDE)
    far = (grid[:, None] - place[1]) ** 2 + (grid[None] - place[0]) ** 2
    return (255 * np.exp(-far / 4)).astype(np.uint8)[..., None].repeat(3, -1)


@functools.cache
def play(policy, pixels):
    """(frames, actions) of a body with inertia: action t changes frame t+1."""
    rng, episodes, steps = np.random.default_rng(0), [], 60
    for _ in range(20):
        place, speed, frames, actions = rng.uniform(4, 8, 2), np.zeros(2), [], []
        for _ in range(steps):
            frames.append(blob(place) if pixels else np.float32(place))
            noise = rng.uniform(-1, 1, 2)
            pull = np.clip((6 - place) / 3 - speed, -1, 1)
            actions.append({'random': noise, 'reacting': pull + noise / 3, 'exact': pull}[policy])
            speed = 0.9 * speed + 0.3 * actions[-1]
            place = place + speed
            speed = np.where((place > 1) & (place < 11), speed, 0)
            place = np.clip(place, 1, 11)
        episodes.append((np.stack(frames), np.float32(actions)))
    return episodes


def rows(policy, pixels, shift):
    """Rows whose action belongs `shift` rows later."""
    for frames, actions in play(policy, pixels):
        moved = np.roll(actions, -shift, 0)
        for index, frame in enumerate(frames):
            yield {
                'image': frame,
                'action': moved[index],
                'is_first': np.bool_(index == 0),
                'is_last': np.bool_(index == len(frames) - 1),
            }


@pytest.mark.parametrize(
    'policy, pixels', [('random', True), ('random', False), ('reacting', False)]
)
@pytest.mark.parametrize('shift, off', [(0, 0), (1, -1), (-1, 1)])
def test_actions_that_are_off_by_a_row_are_found(policy, pixels, shift, off):
    assert measure(rows(policy, pixels, shift), ['action']).off == off


@pytest.mark.parametrize('shift', [0, 1, -1])
def test_a_policy_without_noise_accuses_nobody(shift):
    """All that it does follows from what is seen, so no lag can be told from another."""
    assert measure(rows('exact', False, shift), ['action']).off in (None, 0)


def test_actions_that_change_nothing_show_nothing():
    rng = np.random.default_rng(0)
    shuffled = ({**row, 'action': rng.uniform(-1, 1, 2)} for row in rows('random', False, 0))
    verdict = measure(shuffled, ['action'])
    assert verdict.off is None and 'nothing is shown' in verdict.words()


def test_choices_count_as_choices():
    """Three buttons that move right, stay and left: no line through 0, 1, 2 tells of them."""
    rng, made, place = np.random.default_rng(0), [], 0.0
    for index in range(400):
        choice = rng.integers(3)
        made.append((place, choice, index % 50 == 0, index % 50 == 49))
        place = 0.0 if index % 50 == 49 else place + (1, -1, 0)[choice]
    for shift, off in ((0, 0), (1, -1)):
        found = (
            {
                'x': np.float32([place]),
                'action': np.int32(made[(index + shift) % 400][1]),
                'is_first': np.bool_(first),
                'is_last': np.bool_(last),
            }
            for index, (place, _, first, last) in enumerate(made)
        )
        assert measure(found, ['action']).off == off


@pytest.mark.parametrize('few', [[], [{'x': np.float32([0]), 'is_first': np.bool_(True)}] * 20])
def test_where_there_is_nothing_to_measure_that_is_said(few):
    verdict = measure(few, [])
    assert verdict.off is None and 'too few' in verdict.words()


@pytest.mark.parametrize('flags, status', [([], 0), (['--time', 'led'], 1)])
def test_the_command_refuses_a_contradiction_unless_told(tmp_path, capsys, flags, status):
    (tmp_path / 'source').mkdir()
    for number, (frames, actions) in enumerate(play('random', False)):
        np.savez(tmp_path / 'source' / f'{number:02}.npz', x=frames, action=actions)
    command = ['npz', str(tmp_path / 'source'), str(tmp_path / 'out'), '--check', *flags]
    assert main(command) == status
    out = capsys.readouterr().out
    assert (tmp_path / 'out').exists() == (status == 0)
    if status:
        assert 'Try --time taken' in out and 'Nothing is converted' in out
        assert main([*command, '--anyway']) == 0
        assert (tmp_path / 'out').exists()
    else:
        assert 'actions stand where they are said to stand' in out
