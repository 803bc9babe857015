"""The lab for world models: a perfect model scores 1, copying has error 1, a run is measured."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import world, world_probe
from benchmarks.simulator import Simulator
from benchmarks.world_data import record, save
from benchmarks.world_measure import HORIZON, Lab, correlation, effect, parts
from benchmarks.world_probe import Probe, errors
from embodied.errors import ConfigError

TINY = [
    '--configs',
    'dmc_proprio',
    'debug',
    '--agent.schedule.tokenizer_updates',
    '3',
    '--agent.batch.size',
    '4',
    '--agent.batch.length',
    '8',
    '--agent.actor.context',
    '4',
    '--agent.batch.frames',
    '8',
]


def test_a_probe_reads_angles_on_the_circle_and_what_is_linear_exactly():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(2000, 6)).astype(np.float32))
    angle = np.arctan2(x[:, 1], x[:, 0]).numpy()
    truth = {'speed': (x @ torch.arange(6.0)).numpy(), 'turn rad': angle}
    probe = Probe(x[:1500], {k: v[:1500] for k, v in truth.items()}, steps=1000)
    found = errors(
        probe.read(x[1500:]), {k: v[1500:] for k, v in truth.items()}, np.ones(500, bool)
    )
    assert (
        found['speed']['rms'] < 0.05 * found['speed']['std'] and found['turn rad']['median'] < 0.1
    )
    noise = Probe(torch.randn(1500, 6), {k: v[:1500] for k, v in truth.items()}, steps=100)
    assert (
        errors(
            noise.read(torch.randn(500, 6)),
            {k: v[1500:] for k, v in truth.items()},
            np.ones(500, bool),
        )['speed']['rms']
        > 7
    )


def test_errors_of_angles_go_round_the_circle():
    read, truth = {'a rad': np.array([3.1, -3.1])}, {'a rad': np.array([-3.1, 3.1])}
    found = errors(read, truth, np.ones(2, bool))['a rad']
    assert found['rms'] == pytest.approx(2 * np.pi - 6.2) and found['std'] == pytest.approx(
        np.pi - 3.1
    )
    assert errors(read, truth, np.zeros(2, bool)) == {}


def test_effects_of_a_perfect_a_reversed_and_a_blind_model():
    real = np.random.default_rng(0).normal(size=(64, 2))
    near = np.arange(64) < 32
    perfect = effect(real.copy(), real, near)
    for key in ('correlation', 'near', 'slope', 'sign', 'large', 'returns'):
        assert perfect[key] == pytest.approx(1), key
    reversed_ = effect(real[:, ::-1], real, near)
    assert reversed_['correlation'] == pytest.approx(-1) and reversed_['sign'] == 0
    blind = effect(np.repeat(real.mean(1, keepdims=True), 2, 1), real, near)
    assert blind['correlation'] == 0 and blind['slope'] == 0
    assert np.isnan(effect(real, real, near & False)['near']), 'no start is near the goal'
    assert np.isnan(correlation(np.arange(20.0), np.ones(20)))


def test_the_spread_between_first_moves_is_freed_of_what_repeats_add():
    rng = np.random.default_rng(0)
    move, repeat, noise = (
        rng.normal(size=(4000, 4, 1)),
        5 * rng.normal(size=(4000, 1, 4)),
        rng.normal(size=(4000, 4, 4)),
    )
    found = parts(2 * move + repeat + 3 * noise)
    assert found['between'] == pytest.approx(2, rel=0.05) and found['within'] == pytest.approx(
        34**0.5, rel=0.05
    )
    assert parts(np.broadcast_to(repeat, (4000, 4, 4)))['between'] < 1e-6


@pytest.fixture(scope='module')
def cartpole():
    return record('dmc_cartpole_balance', 4 * 2 * 40, True, seed=0, length=40, size=16)


@pytest.fixture(
    scope='module', params=[TINY, [*TINY[:2], 'dreamerv3', *TINY[2:]]], ids=['dreamer4', 'rssm']
)
def lab(cartpole, request):
    agent = world.make(cartpole, 'proprio', request.param, 0)
    world.train(agent, cartpole, 'proprio', world.Budget(2, None, 0.3), 0)
    return Lab(agent, cartpole, Simulator.of('dmc_cartpole_balance', 2), starts=24)


@pytest.mark.dmc
def test_a_model_that_repeats_its_start_has_the_error_of_copy_last(lab, monkeypatch):
    loop = lambda *args, **kw: replace(
        found := report_loop(*args, **kw), latent=found.start.expand_as(found.latent)
    )
    report_loop = lab.view.open_loop
    monkeypatch.setattr(lab.view, 'open_loop', loop)
    assert lab.prediction()['error over copy-last'] == pytest.approx(
        {'1': 1, '4': 1, '8': 1, '15': 1}
    )


@pytest.mark.dmc
def test_the_simulator_itself_as_a_model_scores_as_perfect(lab, monkeypatch):
    """The physics replace imagination and the reward head: all measures of effects must be one."""

    def dream(from_, rows, frames, codes):
        states = from_.state[rows, frames]
        actions = lab.agent.actions.decode(codes)['action'].numpy()
        gained = torch.from_numpy(lab.simulator.rollout(states, actions))
        return torch.nn.functional.pad(gained, (1, 0))[..., None]

    monkeypatch.setattr(lab, 'imagine', dream)
    monkeypatch.setattr(lab.view, 'reward', lambda x: x[..., 0])
    for step, found in lab.effects().items():
        for key in ('correlation', 'slope', 'sign', 'large', 'returns'):
            assert found[key] == pytest.approx(1), (step, key)
    spread = lab.spread(moves=3, repeats=3)
    assert spread['imagined'] == pytest.approx(spread['real']) and spread[
        'correlation between'
    ] == pytest.approx(1)


@pytest.mark.dmc
def test_frames_stand_beside_the_states_that_they_show(lab):
    """Were latents and states one row apart, every probe would be wrong."""
    unseen = lab.unseen
    angle = lab.simulator.quantities(unseen.state.reshape(-1, 7))['hinge_1 rad']
    shown = unseen.batch.obs['position'][..., 1].numpy().ravel()
    np.testing.assert_allclose(np.cos(angle), shown, atol=1e-6)
    frames = lab.frames(unseen)
    assert all(len(x) == 24 * HORIZON for x in frames.values())
    held = unseen.context.stoch if lab.agent.config.form else unseen.context.latent
    torch.testing.assert_close(
        frames['latent'], held[:, unseen.start : -1].flatten(0, 1).flatten(1)
    )


@pytest.mark.dmc
@pytest.mark.parametrize(
    'kind, presets, alone',
    [
        ('proprio', ['dmc_proprio'], 3),
        ('image', ['dmc_vision'], 3),
        ('image', ['dmc_vision', 'dreamerv3'], 0),
    ],
)
def test_a_run_trains_measures_and_prints(
    kind, presets, alone, cartpole, tmp_path, monkeypatch, capsys
):
    save(cartpole, tmp_path / 'data')
    monkeypatch.setattr(world_probe, 'STEPS', 20)
    words = [
        '--configs',
        *presets,
        *TINY[2:],
        '--data',
        str(tmp_path / 'data'),
        '--obs',
        kind,
        '--updates',
        '2',
        '--starts',
        '16',
    ]
    monkeypatch.setattr(
        sys,
        'argv',
        ['world', *words, '--task', 'dmc_cartpole_balance', '--json', str(tmp_path / 'x.json')],
    )
    world.main()
    found = json.loads((tmp_path / 'x.json').read_text())
    assert (
        found['trained']['tokenizer']['updates'] == alone
        and found['trained']['dynamics']['updates'] == 2
    )
    assert found['probes']['imagined 8']['all']['hinge_1 rad']['rms'] > 0
    printed = capsys.readouterr().out
    assert 'error over copy-last' in printed and 'hinge_1 velocity' in printed


@pytest.mark.dmc
def test_a_budget_of_seconds_is_shared_and_mistakes_are_told(cartpole, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 1.0))
    monkeypatch.setattr(world.time, 'process_time', lambda: next(clock))
    agent = world.make(
        cartpole, 'proprio', [*TINY, '--agent.schedule.tokenizer_updates', '1000'], 0
    )
    found = world.train(agent, cartpole, 'proprio', world.Budget(None, 20.0, 0.5), 0)
    assert (
        agent.schedule.stage == 'dynamics'
        and 5 < found['tokenizer']['updates'] < 12
        and 5 < found['dynamics']['updates'] < 12
    )
    with pytest.raises(ConfigError, match='--updates or --seconds'):
        world.Budget(None, None, 0.3)
