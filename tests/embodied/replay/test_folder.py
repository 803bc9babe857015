"""The folder of a replay: one writer, entries of any kind, chunks set aside within the budget,
chunks taken back.
"""

import gc
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_replay import ROW_BYTES, check, chunk_files, fill, make, truncate

from embodied.errors import FolderInUse
from embodied.replay.chunk import ChunkName, new_uuid

FILE_BYTES = 3000  # of a chunk of ten rows, roughly
OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_replay
replay = test_replay.make(Path(sys.argv[2]), read_only=sys.argv[3] == 'read_only')
replay.load(None)
print(len(replay), flush=True)
sys.stdin.read()
"""


def process(folder, mode):
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', OPEN, str(Path(__file__).parent), str(folder), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# One writer


def test_a_second_process_may_read_a_folder_but_not_write_to_it(tmp_path):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.save()
    second = process(tmp_path, 'writing')
    assert 'FolderInUse' in second.communicate()[1]
    reader = process(tmp_path, 'read_only')
    assert reader.stdout.readline() == '20\n'
    reader.communicate()
    replay.close()
    third = process(tmp_path, 'writing')
    assert third.stdout.readline() == '20\n'
    with pytest.raises(FolderInUse, match='choose another folder'):
        make(tmp_path)
    third.communicate()
    make(tmp_path).close()


def test_a_replay_that_nobody_holds_any_more_holds_no_folder(tmp_path):
    replay = make(tmp_path)
    fill(replay, 5)
    del replay
    gc.collect()
    assert process(tmp_path, 'writing').communicate('')[0] == '0\n'


# Entries of any kind


def chunk_name(number=0):
    return f'20260101T000000F00000{number}-{new_uuid()}-{new_uuid()}-3.npz'


def pipe(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path.name)


def dangling(path):
    path.symlink_to('/nowhere/at/all')


def sock(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket must be short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize('kind', [os.mkdir, pipe, loop, dangling, sock])
def test_what_has_the_name_of_a_chunk_and_is_no_file_is_named_and_left_alone(tmp_path, kind):
    replay = make(tmp_path)
    fill(replay, 30)
    manifest = replay.save()
    replay.close()
    odd = tmp_path / chunk_name()
    kind(odd)
    for given in (None, manifest):
        events = []
        again = make(tmp_path, events=events)
        again.load(given)
        check(again.sample(20, 12))
        again.close()
        assert (
            len(again) == 30
            and len(events) == 1
            and odd.name in events[0]
            and 'left alone' in events[0]
        )
        assert os.path.lexists(odd)


def test_names_that_are_no_text_and_chunks_of_impossible_times_are_named_and_left_alone(
    tmp_path, capsys
):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.close()
    names = [
        b'\xff\xfe.npz',
        b'new\nline',
        b'\x1b[2J.npz',
        f'99991231T235959F999999-{new_uuid()}-{new_uuid()}-3.npz'.encode(),
    ]
    for name in names:
        with open(os.fsencode(tmp_path) + b'/' + name, 'wb'):
            pass
    events = []
    again = make(tmp_path, events=events)
    again.load(None)
    assert len(again) == 20 and len(events) == 1 and events[0].isprintable()
    print(events[0])
    for text in ('\\udcff\\udcfe.npz', 'new\\nline', '\\x1b[2J.npz', '99991231'):
        assert text in events[0]


@pytest.mark.parametrize('kind', [os.mkdir, pipe, loop, dangling])
def test_a_meta_json_that_is_no_file_is_set_aside_with_a_word(tmp_path, kind):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.close()
    (tmp_path / 'meta.json').unlink()
    kind(tmp_path / 'meta.json')
    events = []
    again = make(tmp_path, events=events)
    again.load(None)
    assert (
        len(again) == 20
        and (tmp_path / 'meta.json').is_file()
        and 'meta.json.aside now' in events[0]
    )


def test_what_stands_where_a_subfolder_should_is_set_aside(tmp_path):
    replay = make(tmp_path)
    fill(replay, 30)
    replay.close()
    truncate(chunk_files(tmp_path)[1])
    (tmp_path / 'broken').touch()
    events = []
    again = make(tmp_path, events=events)
    again.load(None)
    for _ in range(10):
        check(again.sample(8, 5))
    assert len(list((tmp_path / 'broken').iterdir())) == 1 and (tmp_path / 'broken.aside').is_file()


# What is set aside


def aside(folder, name='unlisted'):
    return (
        sorted(path.name for path in (folder / name).iterdir()) if (folder / name).is_dir() else []
    )


def restarted(folder, manifest, begin, rows, events, **changes):
    """What a run leaves that went on from a checkpoint and was killed."""
    replay = make(folder, events=events, **changes)
    replay.load(manifest)
    fill(replay, rows, begin=begin)
    replay.close()


def test_what_is_set_aside_counts_in_the_disk_budget_and_goes_first_from_the_oldest_on(tmp_path):
    replay = make(tmp_path)
    fill(replay, 20)
    manifest = replay.save()
    replay.close()
    events, budget = [], 12 * FILE_BYTES
    for _ in range(3):
        restarted(tmp_path, manifest, 20, 50, events, disk_gb=budget / 1e9)
        total = sum(path.stat().st_size for path in tmp_path.rglob('*.npz'))
        assert total <= budget
    names = aside(tmp_path)
    assert 0 < len(names) < 10, 'there were ten, of which the oldest are deleted'
    assert all(name in ' '.join(events) for name in names)
    again = make(tmp_path, events=events, disk_gb=budget / 1e9)
    again.load(manifest)
    assert again.stats()['disk_gb'] * 1e9 == sum(
        path.stat().st_size for path in tmp_path.rglob('*.npz')
    )
    newest = aside(tmp_path)[-1]
    fill(again, 50, begin=20)
    again.save()
    assert len(again) == 70 and again.stats()['rows_evicted'] == 0, (
        'rows stay as long as there is anything else to delete'
    )
    assert newest in aside(tmp_path) and sum('oldest files' in event for event in events) >= 1
    fill(again, 200, begin=70)
    again.save()
    assert not aside(tmp_path) and again.stats()['disk_gb'] * 1e9 <= budget
    again.close()
    assert 'had been set aside were deleted for the disk budget' in events[-1]


def test_only_what_has_the_name_of_a_chunk_is_deleted_there(tmp_path):
    (tmp_path / 'broken').mkdir()
    mine = tmp_path / 'broken' / 'my notes.txt'
    mine.write_bytes(bytes(100_000))
    numbered = tmp_path / 'broken' / f'{chunk_name()}.1'
    numbered.write_bytes(bytes(100_000))
    events = []
    replay = make(tmp_path, events=events, disk_gb=12 * FILE_BYTES / 1e9)
    replay.load(None)
    fill(replay, 20)
    assert mine.exists() and not numbered.exists() and len(replay) == 20


def saved_and_went_on(tmp_path):
    """A folder of 40 rows that were saved and 20 later ones; returns the manifest of the save."""
    replay = make(tmp_path)
    fill(replay, 40)
    manifest = replay.save()
    fill(replay, 20, begin=40)
    replay.close()
    return manifest


def test_the_end_of_a_run_counts_what_was_moved(tmp_path):
    manifest = saved_and_went_on(tmp_path)
    truncate(chunk_files(tmp_path)[1])
    events = []
    again = make(tmp_path, events=events)
    again.load(manifest)
    for _ in range(10):
        again.sample(8, 5)
    again.close()
    assert (
        events[-1]
        == f'{tmp_path}: in this run 1 chunks were moved to broken, 2 chunks were moved to'
        ' unlisted.'
    )
    quiet = []
    last = make(tmp_path, events=quiet)
    last.load(None)
    last.close()
    assert not quiet


# Rows that are gone


def turned_over(tmp_path):
    """A folder whose small budget turned over between the last save and the kill. Returns that
    save's manifest.
    """
    small = dict(disk_gb=5 * FILE_BYTES / 1e9)
    replay = make(tmp_path, **small)
    fill(replay, 40)
    manifest = replay.save()
    fill(replay, 100, begin=40)
    replay.save()
    replay.close()
    assert not {name for stream in manifest['streams'] for name in stream['chunks']} & {
        path.name for path in chunk_files(tmp_path)
    }
    return manifest, small


def test_where_the_rows_of_the_checkpoint_are_gone_later_ones_take_their_place(tmp_path):
    manifest, small = turned_over(tmp_path)
    held, events = len(chunk_files(tmp_path)), []
    assert held >= 4
    again = make(tmp_path, events=events, **small)
    again.load(manifest)
    assert len(again) == 10 * held and not aside(tmp_path)
    assert '4 chunks of the checkpoint with 40 rows are not there' in events[0]
    assert (
        f'{held} chunks with {10 * held} rows that the checkpoint does not name take their place'
        in events[1]
    )
    check(again.sample(20, 12))
    assert again.draws == manifest['draws'] + 1, 'the counters are those of the checkpoint'
    fill(again, 25, begin=40)
    check(again.sample(50, 12))
    second = again.save()
    again.close()
    last = make(tmp_path, events=events, **small)
    last.load(second)
    assert len(last) == len(again) and len(events) == 2, 'from here on all is as ever'
    check(last.sample(50, 12))
    assert {path.name for path in chunk_files(tmp_path)} == {
        name for stream in second['streams'] for name in stream['chunks']
    }


def test_where_a_part_of_the_rows_is_gone_the_rest_and_the_later_ones_are_used(tmp_path):
    manifest = saved_and_went_on(tmp_path)
    chunk_files(tmp_path)[1].unlink()
    events = []
    again = make(tmp_path, events=events)
    again.load(manifest)
    assert len(again) == 50 and not aside(tmp_path)
    fill(again, 20, begin=40)
    for _ in range(20):
        check(again.sample(8, 12))


def test_rows_that_were_set_aside_earlier_come_back_if_nothing_else_is_left(tmp_path):
    """As runs of earlier versions left them: all good chunks in `unlisted`, none listed."""
    manifest, _ = turned_over(tmp_path)
    files = chunk_files(tmp_path)
    (tmp_path / 'unlisted').mkdir()
    for path in files:
        shutil.move(path, tmp_path / 'unlisted' / path.name)
    older = ChunkName.parse(files[0].name)
    shutil.copy(
        tmp_path / 'unlisted' / files[0].name,
        tmp_path / 'unlisted' / str(older._replace(time='20200101T000000F000000')),
    )
    events = []
    again = make(tmp_path, events=events)
    again.load(manifest)
    assert len(again) == 10 * len(files) and [path.name for path in chunk_files(tmp_path)] == [
        path.name for path in files
    ]
    assert len(aside(tmp_path)) == 1, 'of two with one id the newest came back'
    check(again.sample(20, 12))


def test_where_every_row_is_gone_there_are_none_and_this_is_said(tmp_path):
    manifest, small = turned_over(tmp_path)
    shutil.rmtree(tmp_path)
    events = []
    again = make(tmp_path, events=events, **small)
    again.load(manifest)
    assert len(again) == 0 and 'are not there any more' in events[0]
    fill(again, 20, begin=40)
    check(again.sample(5, 12))


def test_a_folder_that_is_deleted_under_a_run_is_made_again(tmp_path, monkeypatch, wait_until):
    monkeypatch.setattr('embodied.replay.writer.RETRY', 0.01)
    events = []
    replay = make(tmp_path / 'replay', events=events, max_gb=1000 * ROW_BYTES / 1e9)
    replay.load(None)
    fill(replay, 20)
    replay.save()
    shutil.rmtree(tmp_path / 'replay')
    fill(replay, 25, begin=20)
    manifest = replay.save()
    wait_until(lambda: not replay.stats()['chunks_waiting'])
    again = make(tmp_path / 'replay', events=[])
    again.load(manifest)
    assert len(again) == 25 and (tmp_path / 'replay' / 'meta.json').exists()
    check(again.sample(5, 12))
