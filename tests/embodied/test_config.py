"""Config: strict types from the defaults, presets and flags in their order, errors of one line
that name the culprit.
"""

import copy
import pickle
import re
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied.config import (
    Config,
    configs_dir,
    diff,
    expand_timestamp,
    help_text,
    parse,
    read_folder,
)
from embodied.errors import ConfigError
from embodied.yaml_tree import parse_yaml

DEFAULTS = """\
# The header of the file is nobody's help.

task: ''                # suite and name
run:                    # how long
  steps: 1e10           # decisions
  ratio: 32.0
  # above the key
  debug: false
  names: [a, b]         # list of words,
                        # continued below
  sizes: [1, 2]
  rates: []
net:
  width: 64             # units
  inner: {width: 32, lr: 3e-4}
parallel: auto          # any scalar
workers: auto           # {auto|int} processes
empty: {}
"""
PRESETS = """\
small:
  net: {width: 8, inner.width: 4}
  run.steps: 1e3
wide:
  '.*\\.width': 512
  net: {inner: {lr: 1}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'defaults.yaml').write_text(DEFAULTS)
    (tmp_path / 'presets.yaml').write_text(PRESETS)
    return tmp_path


def error_of(*argv, folder):
    with pytest.raises(ConfigError) as info:
        parse(argv, folder)
    assert '\n' not in str(info.value)
    return str(info.value)


def test_defaults_are_typed_by_how_they_are_written(folder):
    config = parse([], folder)
    assert config.run.steps == 10**10 and type(config.run.steps) is int
    assert type(config.run.ratio) is float and config.net.inner.lr == 3e-4
    assert config.run.names == ('a', 'b') and config.run.rates == () and config.run.debug is False
    assert config['run.steps'] == config['run']['steps'] == config.run['steps']
    assert (
        'run.steps' in config
        and 'run.step' not in config
        and list(config.net) == ['width', 'inner']
    )


def test_flags_override_presets_which_overlay_in_order(folder):
    assert parse(['--configs', 'small', 'wide'], folder).net.width == 512
    assert parse(['--configs', 'wide', 'small'], folder).net.width == 8
    assert parse(['--configs=wide,small'], folder).net.inner.width == 4
    config = parse(['--net.width', '7', '--configs', 'small', '--run.debug=True'], folder)
    assert (config.net.width, config.run.steps, config.run.debug) == (7, 1000, True)
    assert parse(['--net.width=1', '--net.width=2'], folder).net.width == 2


def test_regular_expressions_set_every_key_that_they_match_as_a_whole(folder):
    config = parse([r'--.*\.width', '3'], folder)
    assert (config.net.width, config.net.inner.width) == (3, 3)
    assert parse([r'--net\.w.*=3'], folder).net.inner.width == 32
    assert parse(['--configs', 'wide'], folder).net.inner.lr == 1.0
    assert 'no key matches' in error_of(r'--.*\.height', '3', folder=folder)
    assert 'regular expression' in error_of('--net.(', '3', folder=folder)


@pytest.mark.parametrize(
    'flag, value, expected',
    [
        ('run.steps', '1e6', 10**6),
        ('run.steps', '12', 12),
        ('run.steps', '-3', -3),
        ('run.steps', '64.0', 64),
        ('run.ratio', '2', 2.0),
        ('run.ratio', '1e-3', 1e-3),
        ('run.ratio', 'inf', float('inf')),
        ('run.debug', 'true', True),
        ('run.debug', 'FALSE', False),
        ('task', 'true', 'true'),
        ('task', '12', '12'),
        ('task', '', ''),
        ('run.names', 'x,y', ('x', 'y')),
        ('run.names', '[x, y]', ('x', 'y')),
        ('run.names', "['x']", ('x',)),
        ('run.names', '[]', ()),
        ('run.sizes', '1,1e2', (1, 100)),
        ('run.sizes', '5', (5,)),
        ('run.rates', '1,a,true', (1, 'a', True)),
        ('parallel', 'true', True),
        ('parallel', '3', 3),
        ('parallel', '2.0', 2.0),
        ('parallel', 'cpu', 'cpu'),
        ('workers', 'auto', 'auto'),
        ('workers', '1e1', 10),
    ],
)
def test_text_is_read_as_the_type_of_the_key(folder, flag, value, expected):
    read = parse([f'--{flag}', value], folder)[flag]
    assert read == expected and type(read) is type(expected)


@pytest.mark.parametrize(
    'flag, value, expected',
    [
        ('run.steps', '2.5', 'int'),
        ('run.steps', 'many', 'int'),
        ('run.steps', '1e30', 'int'),
        ('run.steps', '1e999999999', 'int'),
        ('run.ratio', 'true', 'float'),
        ('run.ratio', 'nan', 'float'),
        ('run.debug', '1', 'bool'),
        ('run.debug', 'yes', 'bool'),
        ('run.sizes', '1,x', 'list of int'),
        ('workers', 'many', 'auto or int'),
        ('workers', '1.5', 'auto or int'),
    ],
)
def test_a_value_of_the_wrong_type_names_flag_type_and_value(folder, flag, value, expected):
    text = error_of(f'--{flag}', value, folder=folder)
    assert f'--{flag}' in text and f'expected {expected}' in text and value.split(',')[-1] in text


def test_unknown_names_get_the_nearest_known_one(folder):
    assert 'nearest: run.steps' in error_of('--run.step', '1', folder=folder)
    assert 'nearest: net.inner.lr' in error_of('--lr', '1', folder=folder)
    assert 'nearest: run.steps' in error_of('--net.steps', '1', folder=folder)
    assert 'nearest: small' in error_of('--configs', 'smal', folder=folder)
    assert 'run.steps' in error_of('--run', '1', folder=folder)
    assert 'needs a value' in error_of('--run.steps', folder=folder)
    assert 'Expected a flag' in error_of('run.steps', '1', folder=folder)
    assert 'expected one value, got 2' in error_of('--task', 'a', 'b', folder=folder)
    assert parse(['--run.sizes', '3', '4'], folder).run.sizes == (3, 4)


def test_errors_in_presets_name_the_preset(folder):
    (folder / 'bad.yaml').write_text(
        'typo: {run: {step: 3}}\nkind: {run: {debug: 3}}\nnothing: {task: null}\n'
    )
    assert "preset 'typo': unknown key 'run.step'" in error_of('--configs', 'typo', folder=folder)
    assert "preset 'kind': run.debug: expected bool, got 3" in error_of(
        '--configs', 'kind', folder=folder
    )
    assert 'expected str, got None' in error_of('--configs', 'nothing', folder=folder)


def test_a_preset_lies_over_those_that_it_builds_on(folder):
    (folder / 'more.yaml').write_text(
        'tiny: {builds_on: small, net.width: 2}\nmost: {builds_on: tiny, run.ratio: 1}\n'
    )
    config = parse(['--configs', 'wide', 'most'], folder)
    assert (config.net.width, config.net.inner.width, config.run.ratio) == (2, 4, 1)
    assert config.net.inner.lr == 1 and 'builds_on' not in config.flat


def test_a_preset_that_belongs_behind_others_is_not_undone_in_silence(folder):
    (folder / 'more.yaml').write_text(
        'task: {net.width: 32}\nother: {run.ratio: 9}\ntiny: {behind: true, net.width: 2}\n'
        'tinier: {behind: true, net.width: 1}\n'
    )
    assert parse(['--configs', 'task', 'tiny'], folder).net.width == 2
    assert parse(['--configs', 'tinier', 'tiny', 'other'], folder).net.width == 2
    assert 'behind' not in parse(['--configs', 'tiny'], folder).flat
    text = error_of('--configs', 'tiny', 'other', 'task', folder=folder)
    assert 'task would undo 1 settings of tiny, such as net.width;' in text
    assert text.endswith('--configs task tiny.')


@pytest.mark.parametrize(
    'more, text',
    [
        ('odd: {builds_on: smal}', "'odd' builds on 'smal', which is none; nearest: small"),
        ('a: {builds_on: b}\nodd: {builds_on: a}\nb: {builds_on: a}', 'builds on itself'),
        ('odd: {builds_on: odd}', 'builds on itself'),
    ],
)
def test_a_preset_that_builds_on_none_or_on_itself_is_refused(folder, more, text):
    (folder / 'more.yaml').write_text(more)
    assert text in error_of('--configs', 'odd', folder=folder)


def test_a_preset_that_stands_twice_or_is_no_block_is_refused(folder):
    (folder / 'more.yaml').write_text('small: {task: x}\n')
    assert 'more.yaml and in presets.yaml' in error_of(folder=folder)
    (folder / 'more.yaml').write_text('flat: 3\n')
    assert 'more.yaml' in error_of(folder=folder)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a: 1\na: 2\n', 'line 2.*twice'),
        ('a: [1\n', 'not valid YAML'),
        ('[1, 2]', 'keys and values'),
        ('a: !!python/object:os.system x', 'tag'),
        ('? [a]\n: 1', 'a key must be a word'),
        ('a: .nan', 'not a number'),
        ('a: &x [*x]', 'levels'),
        ('a: ' + '[' * 5000, 'YAML|levels'),
        (
            'a: &a [1,1,1,1,1,1,1,1,1]\n'
            + ''.join(
                f'{y}: &{y} [{",".join([f"*{x}"] * 9)}]\n' for x, y in zip('abcdefg', 'bcdefgh')
            ),
            'values',
        ),
    ],
)
def test_malformed_and_explosive_yaml_is_refused(text, expected):
    with pytest.raises(ConfigError, match=expected) as info:
        parse_yaml(text, 'x.yaml')
    assert 'x.yaml' in str(info.value)


def answer_of(*argv, folder, capsys):
    """What a question such as --help prints before the process ends, in order."""
    with pytest.raises(SystemExit) as info:
        parse(argv, folder)
    assert info.value.code == 0
    return capsys.readouterr().out


def test_help_lists_every_key_with_value_type_and_comment(folder, capsys):
    text = answer_of('--help', folder=folder, capsys=capsys)
    for expected in (
        r'--run\.steps 10000000000  \(int\) +decisions\n',
        r"--task ''  \(str\) +suite and name\n",
        r'--run\.debug false  \(bool\) +above the key\n',
        r'\nrun: how long\n',
        r'small wide',
        r'--run\.names \[a, b\]  \(list of str\) +list of words, continued below\n',
        r'--workers auto  \(auto or int\) +processes\n',
    ):
        assert re.search(expected, text), (expected, text)
    assert 'header' not in text and '; default' not in text
    assert all(f'--{key} ' in text for key in parse([], folder).flat)


def test_help_shows_what_presets_and_flags_make_of_a_key_beside_its_default(folder, capsys):
    argv = ['--help', '--configs', 'small', '--run.ratio', '2']
    text = answer_of(*argv, folder=folder, capsys=capsys)
    for expected in (
        '--run.steps 1000  (int; default 10000000000)',
        '--net.width 8  (int; default 64)',
        '--run.ratio 2.0  (float; default 32.0)',
        '--net.inner.lr 0.0003  (float)',
    ):
        assert expected in text, (expected, text)


@pytest.mark.parametrize(
    'topics, keys',
    [
        (['net'], ['net.width', 'net.inner.width', 'net.inner.lr']),
        (['net.inner'], ['net.inner.width', 'net.inner.lr']),
        (['task', 'run.debug'], ['task', 'run.debug']),
        (['.*width'], ['net.width', 'net.inner.width']),
    ],
)
def test_help_of_a_topic_shows_its_keys_alone(folder, capsys, topics, keys):
    text = answer_of('--configs', 'small', '--help', *topics, folder=folder, capsys=capsys)
    assert re.findall(r'^  --([\w.]+)', text, re.M) == keys


def test_help_of_an_unknown_topic_names_the_nearest(folder):
    assert 'nearest: net' in error_of('--help', 'nett', folder=folder)
    assert error_of('--help', '(', folder=folder)


def test_printed_config_is_the_one_that_a_run_would_save(folder, tmp_path, capsys):
    argv = ['--configs', 'small', '--workers', '3', '--run.names', 'x,y']
    printed = tmp_path / 'run' / 'config.yaml'
    printed.parent.mkdir()
    printed.write_text(answer_of(*argv, '--print_config', folder=folder, capsys=capsys))
    assert (
        Config.load(printed)
        == parse(argv, folder)
        == parse([*argv, '--print_config'], folder, answer=False)
    )
    assert 'takes no value' in error_of('--print_config', 'x', folder=folder)


def test_saved_and_loaded_is_the_same(folder, tmp_path):
    config = parse(
        ['--task', '1e6', '--run.ratio', '1e16', '--run.rates', 'x,2,true', '--parallel', 'true'],
        folder,
    )
    config.save(tmp_path / 'config.yaml')
    loaded = Config.load(tmp_path / 'config.yaml')
    assert loaded == config and diff(config, loaded) == {}
    assert [type(value) for value in loaded.flat.values()] == [
        type(value) for value in config.flat.values()
    ]


def test_diff_lists_changed_added_and_removed_keys():
    old, new = Config({'a': 1, 'b': {'c': 2, 'd': 3}}), Config({'a': 1, 'b': {'c': 5, 'e': 3}})
    assert diff(old, new) == {'b.c': (2, 5), 'b.d': (3, None), 'b.e': (None, 3)}


def test_a_config_cannot_be_changed_and_can_be_copied(folder):
    config = parse(['--workers', '3'], folder)
    with pytest.raises(TypeError):
        config.task = 'x'
    with pytest.raises(TypeError):
        config.run.steps = 3
    with pytest.raises(TypeError):
        del config.task
    assert config.update({'run': {'steps': '5'}}, task='x').flat | {} != config.flat
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)).update(workers='auto').workers == 'auto'
    with pytest.raises(ConfigError, match='run.steps'):
        config.run.update(steps='x', source='run.steps')
    with pytest.raises(AttributeError, match="no key 'nope'"):
        config.run.nope


@pytest.mark.parametrize(
    'values',
    [
        {'update': 1},
        {'a b': 1},
        {'a': None},
        {'a': [[1]]},
        {'a': float('nan')},
        {'a': {1: 2}},
        {'a': object()},
    ],
)
def test_keys_and_values_that_a_config_cannot_hold_are_refused(values):
    with pytest.raises(ConfigError):
        Config(values)


@dataclass(frozen=True)
class InnerConfig:
    width: int
    lr: float


@dataclass(frozen=True)
class NetConfig:
    width: int
    inner: InnerConfig


@dataclass(frozen=True)
class ListConfig:
    pair: tuple[int, float]
    many: tuple[str, ...]
    mode: Literal['a', 'b']
    parallel: str | bool
    rest: dict


def test_build_makes_nested_dataclasses(folder):
    assert parse([], folder).net.build(NetConfig) == NetConfig(64, InnerConfig(32, 3e-4))
    values = {'pair': [1, 2], 'many': ['x'], 'mode': 'b', 'parallel': True, 'rest': {'x': 1}}
    built = Config(values).build(ListConfig)
    assert (
        built == ListConfig((1, 2.0), ('x',), 'b', True, {'x': 1}) and type(built.pair[1]) is float
    )


@pytest.mark.parametrize(
    'changes, expected',
    [
        ({'width': 'x'}, 'net.width: NetConfig expects int'),
        ({'inner': 3}, 'net.inner: NetConfig expects InnerConfig'),
        ({'inner': {'width': 1}}, "no key 'lr' at 'net.inner', which InnerConfig needs"),
        ({'widht': 1}, "no field 'widht'.*nearest: width"),
        ({'width': True}, 'expects int, got True'),
        ({'width': 1.5}, 'expects int, got 1.5'),
    ],
)
def test_build_names_the_field_that_does_not_fit(changes, expected):
    values = {'width': 1, 'inner': {'width': 1, 'lr': 1.0}, **changes}
    with pytest.raises(ConfigError, match=expected):
        Config({'net': values}).net.build(NetConfig)


def test_build_checks_lengths_words_and_unions():
    values = {'pair': [1, 2], 'many': ['x'], 'mode': 'b', 'parallel': 'auto', 'rest': {}}
    for key, value in (('pair', [1]), ('many', [1]), ('mode', 'c'), ('parallel', 3), ('rest', 3)):
        with pytest.raises(ConfigError, match=key):
            Config({**values, key: value}).build(ListConfig)


def test_timestamp_is_expanded_to_the_millisecond():
    text = expand_timestamp('logdir/{timestamp}/x', now=1_700_000_000.25)
    assert re.fullmatch(r'logdir/2023111[45]T\d{6}F250/x', text) and expand_timestamp('a') == 'a'


def test_configs_are_found_inside_and_beside_a_package(tmp_path):
    with pytest.raises(ConfigError, match='incomplete'):
        configs_dir(tmp_path / 'package')
    for place in ('configs', 'package/configs'):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / 'defaults.yaml').touch()
        assert configs_dir(tmp_path / 'package') == tmp_path / place


SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=('Cs', 'Cc')))
)
KEYS = st.from_regex(r'[a-z_]{1,6}', fullmatch=True).filter(lambda key: not hasattr(Config, key))
TREES = st.recursive(
    SCALARS | st.lists(SCALARS, max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)
FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_any_config_survives_a_round_trip(tmp_path, tree):
    config = Config(tree)
    config.save(tmp_path / 'x.yaml')
    loaded = Config.load(tmp_path / 'x.yaml')
    assert loaded.flat == config.flat
    assert [type(value) for value in loaded.flat.values()] == [
        type(value) for value in config.flat.values()
    ]


@FUZZ
@given(text=st.text(st.sampled_from('ab01.:-[]{}#&*!|>\'"\\,? \n\t%@<'), max_size=60))
def test_any_text_is_a_tree_or_a_config_error(text):
    try:
        parse_yaml(text, 'fuzz')
    except ConfigError as error:
        assert '\n' not in str(error)


@FUZZ
@given(
    argv=st.lists(
        st.text(max_size=12)
        | st.sampled_from(
            ['--run.steps', '--net', '--configs', 'small', '--.*', '--run.names=', '--(a+)+']
        ),
        max_size=5,
    )
)
def test_any_command_line_is_a_config_or_a_config_error(folder, argv):
    try:
        parse(argv, folder, answer=False)
    except ConfigError as error:
        assert '\n' not in str(error)


def test_help_of_the_own_configs_can_be_made():
    folder = configs_dir('dreamer4')
    assert '--run.steps' in help_text(parse([], folder), *read_folder(folder))
