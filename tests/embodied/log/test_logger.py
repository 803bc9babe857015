"""The logger: strict lines that survive kills, resumptions and full disks, pictures, and a
terminal line.
"""

import io
import itertools
import json
import math
import resource
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboard.summary.writer import event_file_writer

from embodied.base import Status
from embodied.errors import CheckpointError, ConfigError
from embodied.log import Logger, LoggerConfig
from embodied.log.jsonl import JsonLines
from embodied.media import gif, png

QUIET = LoggerConfig(('terminal', 'jsonl'), videos=2, fps=10)
LOUD = LoggerConfig(('terminal', 'jsonl', 'tensorboard'), videos=2, fps=10)


class Counters(dict):
    def __call__(self):
        return dict(self)


@pytest.fixture
def counters():
    return Counters(step=10, frames=20, updates=3, episodes=1)


def lines(path):
    def refuse(token):
        raise ValueError(f'{token} is not JSON')

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def without_seconds(path):
    return [
        {name: value for name, value in line.items() if name != 'seconds'} for line in lines(path)
    ]


def events_of(logdir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(logdir), size_guidance={'scalars': 0, 'images': 0})
    accumulator.Reload()
    return accumulator


def test_a_line_holds_the_counters_and_all_scalars_since_the_last(tmp_path, counters):
    logger = Logger(tmp_path, QUIET, counters)
    logger.add({'loss': 1.5})
    logger.add({'loss': np.float32(2.5), 'count': 3}, prefix='train')
    logger.write()
    counters['step'] = 12
    logger.write()  # nothing to say
    logger.add({'loss': 1})
    logger.write()
    assert without_seconds(tmp_path / 'metrics.jsonl') == [
        {
            'step': 10,
            'frames': 20,
            'updates': 3,
            'episodes': 1,
            'loss': 1.5,
            'train/loss': 2.5,
            'train/count': 3.0,
        },
        {'step': 12, 'frames': 20, 'updates': 3, 'episodes': 1, 'loss': 1.0},
    ]


def test_points_of_the_pretraining_advance_with_the_updates(tmp_path, counters):
    """No env moves meanwhile: over frames all of them would stand at one place."""
    logger = Logger(tmp_path, LOUD, counters)
    for counters['updates'], pretraining in ((5, True), (9, True), (12, False)):
        logger.add({'loss': 1.0})
        logger.write(pretraining)
    logger.close()
    events = events_of(tmp_path)
    assert [point.step for point in events.Scalars('pretrain/loss')] == [5, 9]
    assert [point.step for point in events.Scalars('loss')] == [20]
    assert all('loss' in line for line in lines(tmp_path / 'metrics.jsonl'))


def test_a_score_is_a_line_at_once(tmp_path, counters):
    logger = Logger(tmp_path, QUIET, counters)
    logger.score(np.float32(1.5), 7)
    assert lines(tmp_path / 'scores.jsonl') == [
        {'frames': 20, 'step': 10, 'score': 1.5, 'length': 7}
    ]


def test_what_is_not_finite_is_null_and_named(tmp_path, counters):
    logger = Logger(tmp_path, LOUD, counters)
    logger.add({'a': math.nan, 'b': 1.0, 'c': -math.inf})
    logger.write()
    logger.score(math.inf, 2)
    logger.close()
    assert (
        lines(tmp_path / 'metrics.jsonl')[0]
        | {
            'b': 1.0,
            'a': None,
            'c': None,
            'nonfinite': ['a', 'c'],
        }
        == lines(tmp_path / 'metrics.jsonl')[0]
    )
    assert lines(tmp_path / 'scores.jsonl')[0]['nonfinite'] == ['score']
    JsonLines(tmp_path / 'x.jsonl', print).append({'a': math.nan})
    assert lines(tmp_path / 'x.jsonl') == [{'a': None, 'nonfinite': ['a']}]


@pytest.mark.parametrize('name, value', [('step', 1.0), ('nonfinite', 1.0)])
def test_names_that_every_line_has_are_refused(tmp_path, counters, name, value):
    with pytest.raises(ValueError, match=name):
        Logger(tmp_path, QUIET, counters).add({name: value})


CHANGES = [{'videos': -1}, {'fps': 0}, {'outputs': ('terminal',)}, {'outputs': ('jsonl', 'wand')}]


@pytest.mark.parametrize('change', CHANGES)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        LoggerConfig(**{'outputs': ('jsonl',), 'videos': 1, 'fps': 1, **change})


def test_a_torn_last_line_is_removed_at_the_start(tmp_path, counters):
    whole = b'{"step": 1}\n' + b'{"x": "' + b'y' * 10_000 + b'"}\n'
    (tmp_path / 'metrics.jsonl').write_bytes(whole + b'{"step": 2, "lo' + b'z' * 5000)
    (tmp_path / 'scores.jsonl').write_bytes(b'{"fra')
    logger = Logger(tmp_path, QUIET, counters)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == whole and (
        tmp_path / 'scores.jsonl'
    ).read_bytes() == b''
    logger.score(1.0, 2)
    assert len(lines(tmp_path / 'scores.jsonl')) == 1


def run(logger, counters, steps, save_at=None):
    """Some work: an episode every 3 steps, a line every 4; the state after the work of step
    `save_at`.
    """
    state = None
    for counters['step'] in steps:
        counters['frames'] = 2 * counters['step']
        logger.add({'loss': 1 / counters['step']})
        if counters['step'] % 3 == 0:
            logger.score(counters['step'], 3)
        if counters['step'] % 4 == 0:
            logger.write()
        if counters['step'] == save_at:
            state = json.loads(json.dumps(logger.save()))
    return state


@pytest.mark.parametrize('save_at', [5, 8, 9])
def test_files_of_a_resumed_run_equal_those_of_an_uninterrupted_one(tmp_path, counters, save_at):
    run(Logger(tmp_path / 'whole', QUIET, counters), counters, range(1, 20))
    first = Logger(tmp_path / 'part', QUIET, counters)
    state = run(first, counters, range(1, 15), save_at)
    first.write()  # as a run does that ends in an orderly way, after its last save
    with open(tmp_path / 'part' / 'scores.jsonl', 'a') as file:
        file.write('{"torn')
    second = Logger(tmp_path / 'part', QUIET, counters)
    second.load(state)
    run(second, counters, range(save_at + 1, 20))
    for name in ('metrics.jsonl', 'scores.jsonl'):
        assert without_seconds(tmp_path / 'part' / name) == without_seconds(
            tmp_path / 'whole' / name
        )


def test_seconds_go_on_where_the_run_was_saved(tmp_path, counters):
    logger = Logger(tmp_path, QUIET, counters)
    logger.load(logger.save() | {'seconds': 100.0})
    logger.add({'x': 1})
    logger.write()
    assert 100 <= lines(tmp_path / 'metrics.jsonl')[0]['seconds'] < 110


def test_files_that_somebody_shortened_are_cut_by_their_counters(tmp_path, counters):
    first = Logger(tmp_path, QUIET, counters)
    state = run(first, counters, range(1, 20), save_at=10)
    path = tmp_path / 'scores.jsonl'
    kept = path.read_text().splitlines(keepends=True)
    path.write_text(''.join(kept[2:]))  # steps 9, 12, ...: longer than 10 bytes, but cut elsewhere
    state['bytes'] = {'metrics': 10**6, 'scores': 10**6}
    Logger(tmp_path, QUIET, counters).load(state)
    assert [line['step'] for line in lines(path)] == [9]
    assert [line['step'] for line in lines(tmp_path / 'metrics.jsonl')] == [4, 8]
    (tmp_path / 'scores.jsonl').unlink()
    Logger(tmp_path, QUIET, counters).load(state)


def test_a_state_of_something_else_is_refused(tmp_path, counters):
    with pytest.raises(CheckpointError, match='logger'):
        Logger(tmp_path, QUIET, counters).load({'scalars': {}})


def test_a_full_disk_ends_nothing_and_loses_no_line(tmp_path, counters, capfd):
    events = []
    logger = Logger(tmp_path, QUIET, counters, events.append)
    for score in range(3):
        logger.score(score, 1)
    size = (tmp_path / 'scores.jsonl').stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))  # room for half a line
    try:
        for score in range(3, 6):
            logger.score(score, 1)
        logger.add({'video': np.zeros((3, 64, 64, 3), np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / 'scores.jsonl').stat().st_size == size
    logger.score(6, 1)
    assert [line['score'] for line in lines(tmp_path / 'scores.jsonl')] == list(range(7))
    assert (
        len(events) == 3
        and 'cannot be written' in events[0]
        and 'video' in events[1]
        and 'nothing is missing' in events[2]
    )
    assert not list((tmp_path / 'videos').iterdir())


def test_tensorboard_gets_scalars_images_and_videos_by_frames(tmp_path, counters):
    logger = Logger(tmp_path, LOUD, counters)
    image = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    logger.add({'loss': 0.5, 'nan': math.nan, 'image': image, 'video': np.stack([image, image])})
    logger.write()
    logger.close()
    events = events_of(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [(20, 0.5)]
    assert 'nan' not in events.Tags()['scalars']
    stored = events.Images('image')[0]
    assert (stored.height, stored.width) == (8, 6)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(stored.encoded_image_string))), image
    )
    # equal frames are joined
    assert Image.open(io.BytesIO(events.Images('video')[0].encoded_image_string)).n_frames == 1


def test_a_score_is_no_curve_of_its_own_in_tensorboard(tmp_path, counters):
    """The mean over a window is logged as episode/score; single episodes are noise beside it."""
    logger = Logger(tmp_path, LOUD, counters)
    for counters['frames'], score in ((10, -1.0), (20, 1.0)):
        logger.score(score, 5)
    logger.add({'score': 0.0}, 'episode')
    logger.write()
    logger.close()
    curve = [(event.step, event.value) for event in events_of(tmp_path).Scalars('episode/score')]
    assert curve == [(20, 0.0)]


def test_texts_reach_tensorboard(tmp_path, counters):
    logger = Logger(tmp_path, LOUD, counters)
    logger.text('config', '```yaml\nseed: 0\n```')
    logger.close()
    (event,) = events_of(tmp_path).Tensors('config')
    assert event.tensor_proto.string_val[0] == b'```yaml\nseed: 0\n```'
    Logger(tmp_path / 'quiet', QUIET, counters).text('config', 'nowhere to go')


def test_tensorboard_hides_what_lies_beyond_a_resumption(tmp_path, counters, monkeypatch):
    # one process names files of one second by a counter, and they are read by name: .10 before .9
    clock = types.SimpleNamespace(time=itertools.count(1_700_000_000).__next__)
    monkeypatch.setattr(event_file_writer, 'time', clock)
    first = Logger(tmp_path, LOUD, counters)
    state = run(first, counters, range(1, 15), save_at=8)
    first.close()
    second = Logger(tmp_path, LOUD, counters)
    second.load(state)
    run(second, counters, range(9, 13))
    second.close()
    assert [event.step for event in events_of(tmp_path).Scalars('loss')] == [8, 16, 24]


def test_tensorboard_that_fails_ends_nothing(tmp_path, counters):
    events = []
    logger = Logger(tmp_path / 'run', LOUD, counters, events.append)
    logger._services['tensorboard']._logdir = '/proc/nowhere'
    for value in range(3):
        logger.add({'x': value})
        logger.write()
    logger.close()
    assert (
        len(events) == 1
        and 'TensorBoard' in events[0]
        and len(lines(tmp_path / 'run' / 'metrics.jsonl')) == 3
    )


def test_without_tensorboard_there_are_no_event_files(tmp_path, counters):
    logger = Logger(tmp_path, QUIET, counters)
    logger.add({'loss': 1.0, 'image': np.zeros((4, 4, 1), np.uint8)})
    logger.write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['metrics.jsonl']


def test_videos_are_gifs_of_which_the_newest_are_kept(tmp_path, counters):
    logger = Logger(tmp_path, QUIET, counters)
    frames = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    for counters['frames'] in (9, 10, 100):
        logger.add({'open/loop': frames}, 'report')
    names = sorted(path.name for path in (tmp_path / 'videos').iterdir())
    assert names == ['000000000010-report-open-loop.gif', '000000000100-report-open-loop.gif']
    with Image.open(tmp_path / 'videos' / names[0]) as video:
        assert video.n_frames == 4 and video.size == (256, 256)


@pytest.mark.parametrize(
    'count, fps, width, duration, drawn',
    [
        (4, 10, 8, 250, 256),
        (13, 15, 32, 80, 256),
        (30, 15, 100, 70, 300),
        (30, 20, 300, 50, 300),
        (1, 15, 7, 1000, 259),
    ],
)
def test_a_video_lasts_a_second_and_is_wide_enough_to_see(count, fps, width, duration, drawn):
    frames = np.zeros((count, 6, width, 3), np.uint8)
    frames += np.arange(count, dtype=np.uint8)[:, None, None, None]  # equal ones would be joined
    with Image.open(io.BytesIO(gif(frames, fps))) as video:
        assert video.size[0] == drawn and video.n_frames == count
        assert video.info['duration'] == duration and count * duration >= 1000


@pytest.mark.parametrize('channels, width', [(2, 12), (4, 24), (119, 48)])
def test_channels_that_are_no_colours_are_shown_side_by_side(tmp_path, counters, channels, width):
    frames = np.arange(2 * 4 * 6 * channels, dtype=np.uint8).reshape(2, 4, 6, channels)
    assert Image.open(io.BytesIO(png(frames[0]))).size == (width, 4)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(png(frames[0]))))[:, 6:12], frames[0, :, :, 1]
    )
    logger = Logger(tmp_path, LOUD, counters)
    logger.add({'open/loop': frames, 'open/frame': frames[0]}, 'report')
    with Image.open(next((tmp_path / 'videos').iterdir())) as video:
        times = -(-256 // width)
        assert video.n_frames == 2 and video.size == (times * width, times * 4)


@pytest.mark.parametrize(
    'value',
    [
        np.zeros(3),
        np.zeros((2, 4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((1, 2, 70000, 3), np.uint8),
    ],
)
def test_what_cannot_be_shown_is_said_once_and_ends_nothing(tmp_path, counters, value):
    events = []
    logger = Logger(tmp_path, QUIET, counters, events.append)
    for _ in range(2):
        logger.add({'picture': value, 'loss': 1.0}, 'report')
    logger.write()
    assert len(events) == 1 and 'report/picture cannot be shown' in events[0]
    assert json.loads((tmp_path / 'metrics.jsonl').read_text())['report/loss'] == 1.0


@pytest.mark.parametrize('channels', [1, 3])
def test_pictures_are_what_was_given(channels):
    frames = np.zeros((2, 4, 6, channels), np.uint8)
    frames[1, 0] = 255
    back = np.asarray(Image.open(io.BytesIO(png(frames[1]))))
    np.testing.assert_array_equal(back.reshape(4, 6, channels), frames[1])
    assert Image.open(io.BytesIO(gif(frames, 5))).n_frames == 2


def test_where_nothing_is_redrawn_the_line_is_a_plain_one_and_printed_if_forced(
    tmp_path, counters, capsys
):
    logger = Logger(tmp_path, QUIET, counters)
    logger.line(0.1)
    assert capsys.readouterr().out == ''
    logger.score(1.25, 3)
    status = Status('policy', 'waits', metrics=('loss',))
    logger.line(0.1, status, {'loss': 0.5, 'other': 1.0}, force=True)
    text = capsys.readouterr().out
    assert text.startswith('policy waits | return 1.25 ') and text.count('\n') == 1
    assert 'loss 0.5' in text and 'other' not in text


def test_on_a_terminal_the_line_is_drawn_over_itself(tmp_path, counters, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, 'stdout', Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '40')
    logger = Logger(tmp_path, QUIET, counters)
    logger.line(0.1)
    logger.line(0.1)  # too soon
    logger.line(0.1, force=True)
    text = sys.stdout.getvalue()
    assert (
        text.count('\r') == 2
        and '\n' not in text
        and all(len(part) == 39 for part in text.split('\r')[1:])
    )
    logger.close()
    logger.close()
    assert sys.stdout.getvalue().count('\n') == 1
