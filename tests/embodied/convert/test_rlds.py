"""RLDS episodes in TFRecord files: messages made by protobuf, records by TensorBoard's writer."""

import io
import json

import numpy as np
import pytest
from convert_sources import count, hundredths, part
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from embodied.convert import tfrecord
from embodied.errors import ReplayError


@pytest.fixture(scope='module')
def message():
    """tf.train.Example, as protobuf knows it."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name='example.proto', package='tf', syntax='proto3')
    for name, kind in (
        ('BytesList', types.TYPE_BYTES),
        ('FloatList', types.TYPE_FLOAT),
        ('Int64List', types.TYPE_INT64),
    ):
        one = file.message_type.add(name=name)
        one.field.add(name='value', number=1, type=kind, label=types.LABEL_REPEATED)
    feature = file.message_type.add(name='Feature')
    feature.oneof_decl.add(name='kind')
    for number, name in enumerate(('bytes_list', 'float_list', 'int64_list'), 1):
        kind = f'.tf.{name.title().replace("_", "")}'
        feature.field.add(
            name=name, number=number, type=types.TYPE_MESSAGE, type_name=kind, oneof_index=0,
            label=types.LABEL_OPTIONAL,
        )  # fmt: skip
    features = file.message_type.add(name='Features')
    entry = features.nested_type.add(name='FeatureEntry')
    entry.options.map_entry = True
    entry.field.add(name='key', number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(
        name='value', number=2, type=types.TYPE_MESSAGE, type_name='.tf.Feature',
        label=types.LABEL_OPTIONAL,
    )  # fmt: skip
    features.field.add(
        name='feature', number=1, type=types.TYPE_MESSAGE, label=types.LABEL_REPEATED,
        type_name='.tf.Features.FeatureEntry',
    )  # fmt: skip
    example = file.message_type.add(name='Example')
    example.field.add(
        name='features', number=1, type=types.TYPE_MESSAGE, type_name='.tf.Features',
        label=types.LABEL_OPTIONAL,
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName('tf.Example'))


def encoded(message, features):
    """The bytes of an example of lists of bytes, floats and integers."""
    made = message()
    for key, values in features.items():
        kind = {bytes: 'bytes_list', float: 'float_list', int: 'int64_list'}[type(values[0])]
        getattr(made.features.feature[key], kind).value.extend(values)
    return made.SerializeToString()


def parsed(content):
    return tfrecord.example(tfrecord.Span(io.BytesIO(content), 0, len(content)))


def tensor(dtype, *shape, encoding='none'):
    dimensions = {'dimensions': [str(size) for size in shape]} if shape else {}
    return {'tensor': {'shape': dimensions, 'dtype': dtype, 'encoding': encoding}}


def group(**parts):
    return {'featuresDict': {'features': parts}}


STEP = group(
    observation=group(
        image_0={'image': {'shape': {'dimensions': ['16', '16', '3']}, 'encodingFormat': 'png'}},
        state=tensor('float32', 3),
        packed=tensor('float64', 2, encoding='zlib'),
        gripper=tensor('bool'),
    ),
    action=tensor('float32', 2),
    reward=tensor('float32'),
    discount=tensor('float32'),
    is_first=tensor('bool'),
    is_last=tensor('bool'),
    is_terminal=tensor('bool'),
    language_instruction={'text': {}},
    reached=tensor('bfloat16'),
    points=tensor('float32', -1, 3),
)


def png(frame):
    out = io.BytesIO()
    Image.fromarray(frame).save(out, 'png')
    return out.getvalue()


def episode(frames, number, reward):
    import zlib

    packed = [zlib.compress(np.full(2, step, np.float64).tobytes()) for step in range(5)]
    return {
        'steps/observation/image_0': [png(frame + number) for frame in frames],
        'steps/observation/state': np.arange(15, dtype=float).tolist(),
        'steps/observation/packed': packed,
        'steps/observation/gripper': [0, 1, 0, 1, 0],
        'steps/action': np.float64(count(5, 10 * number)).ravel().tolist(),
        'steps/reward': [float(value) for value in reward],
        'steps/discount': [1.0] * 5,
        'steps/is_first': [1, 0, 0, 0, 0],
        'steps/is_last': [0, 0, 0, 0, 1],
        'steps/is_terminal': [0, 0, 0, 0, number],
        'steps/reached': [0.0, 0.25, 0.5, 0.75, 1.0],
        'steps/points/ragged_flat_values': [0.0] * 9,
        'steps/points/ragged_row_lengths_0': [1, 0, 2, 0, 0],
        'steps/language_instruction': [b'push\x00'] * 5,
        'episode_metadata/file_path': [b'x'],
    }


@pytest.fixture
def source(tmp_path, message, frames):
    folder = tmp_path / 'thing' / '1.0.0'
    folder.mkdir(parents=True)
    steps = {'sequence': {'feature': STEP, 'length': '-1'}}
    (folder / 'features.json').write_text(json.dumps(group(steps=steps)))
    splits = [{'name': 'train', 'shardLengths': ['1', '1']}]
    (folder / 'dataset_info.json').write_text(json.dumps({'name': 'thing', 'splits': splits}))
    for number, reward in enumerate(([1, 2, 3, 4, 0], [0, 0, 0, 0, 1])):
        with open(folder / f'thing-train.tfrecord-0000{number}-of-00002', 'wb') as file:
            RecordWriter(file).write(encoded(message, episode(frames, number, reward)))
    return tmp_path / 'thing'


def test_episodes_become_rows_without_the_action_of_the_last_step(converted, source, frames):
    one, two = converted('rlds', source).episodes
    assert (one['image'] == frames).all() and (two['image'] == frames + 1).all()
    assert hundredths(two['action'][:, 0]) == [10, 11, 12, 13, 0]
    assert one['reward'].tolist() == [0, 1, 2, 3, 4] and not one['is_terminal'].any()
    assert two['reward'].tolist() == [0, 0, 0, 0, 1], 'that of the last step is not lost'
    assert two['is_terminal'].tolist() == [False] * 4 + [True]
    assert one['state'][:, 0].tolist() == [0, 3, 6, 9, 12]
    assert one['packed'].tolist() == [[step, step] for step in range(5)]
    assert one['reached'].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert not [key for key in one if key.startswith('points')]
    assert one['gripper'].tolist() == [False, True, False, True, False]
    assert converted.archive.meta['dataset'] == 'thing'


def test_every_number_that_a_message_can_hold_is_read(message):
    features = {
        'ints': [0, 1, -1, 2**63 - 1, -(2**63), 300],
        'floats': [0.5, -1e30],
        'bytes': [b'', b'a\x00', b'\xff' * 200],
    }
    found = parsed(encoded(message, features))
    assert found['ints'].whole().tolist() == features['ints']
    assert list(found['bytes'].parts()) == features['bytes']
    assert found['floats'].whole().tolist() == np.float32(features['floats']).tolist()
    empty = message()
    empty.features.feature['nothing'].int64_list.SetInParent()
    assert len(parsed(empty.SerializeToString())['nothing'].whole()) == 0


def test_lists_of_numbers_longer_than_a_block_are_whole(message, monkeypatch):
    """Numbers of 1 to 10 bytes, so that some lie across two blocks."""
    monkeypatch.setattr(tfrecord, 'BLOCK', 7)
    ints = [sign * (1 << bits) for bits in range(63) for sign in (1, -1)]
    found = parsed(encoded(message, {'ints': ints, 'floats': [float(bits) for bits in range(63)]}))
    assert found['ints'].whole().tolist() == ints
    assert found['floats'].whole().tolist() == list(range(63))


def test_numbers_that_are_not_packed_are_read():
    """As writers of old do: each number is a field of its own."""
    of = lambda name, kind, items: part(1, part(1, name) + part(2, part(kind, items)))
    content = part(1, of(b'i', 3, b'\x08\x05\x08\x81\x01') + of(b'f', 2, b'\x0d\0\0\x80?' * 2))
    found = parsed(content)
    assert found['i'].whole().tolist() == [5, 129] and found['f'].whole().tolist() == [1, 1]


def test_a_record_that_is_cut_off_is_named_and_those_before_it_are_kept(converted, source, capsys):
    path = source / '1.0.0' / 'thing-train.tfrecord-00001-of-00002'
    path.write_bytes(path.read_bytes()[:-10])
    converted('rlds', source, status=2)
    assert 'tfrecord-00001-of-00002: ends within a record' in capsys.readouterr().err
    assert len(converted.episodes) == 1


def test_bytes_that_are_no_example_are_refused():
    for content in (b'\x0a\xff', b'\x0a\x05abc', b'\x0b'):
        with pytest.raises(ReplayError, match='is no tf.train.Example'):
            parsed(content)


def test_which_version_is_meant_must_be_clear(converted, source, capsys):
    (source / '2.0.0').mkdir()
    (source / '2.0.0' / 'features.json').write_text('{}')
    converted('rlds', source, status=2)
    assert '1.0.0, 2.0.0' in capsys.readouterr().err
    converted('rlds', source / '2.0.0', status=2)
    assert 'describes no steps' in capsys.readouterr().err


def test_a_set_of_array_records_is_named(converted, source, capsys):
    for path in (source / '1.0.0').glob('*.tfrecord-*'):
        path.rename(str(path).replace('tfrecord', 'array_record'))
    converted('rlds', source, status=2)
    assert 'no .tfrecord in it, but .array_record' in capsys.readouterr().err


def test_observations_of_different_lengths_are_refused(converted, source, message, frames, capsys):
    features = episode(frames, 0, [0] * 5)
    features['steps/observation/state'] = features['steps/observation/state'][:-3]
    with open(source / '1.0.0' / 'thing-train.tfrecord-00000-of-00002', 'wb') as file:
        RecordWriter(file).write(encoded(message, features))
    converted('rlds', source, status=2)
    assert 'there are 4 of state, and more of others' in capsys.readouterr().err
