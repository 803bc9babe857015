"""What the networks make of several tasks: padding teaches nothing, and the task is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import tiny

from dreamer4.actions import Actions
from dreamer4.agent import Agent
from dreamer4.report.examine import policy, uniform_nats
from dreamer4.tasks import Tasks, centred, vary, weighted_mean
from dreamer4.worlds.dreamer4 import examine
from dreamer4.worlds.dreamer4.dynamics import TextEmbedding
from dreamer4.worlds.dreamer4.moves import Moves
from dreamer4.worlds.dreamer4.scales import NumberScale, PixelScale
from dreamer4.worlds.dreamer4.tokenizer import Tokenizer
from embodied.base import FLAG, outcome
from embodied.config import parse
from embodied.tasks import join

BOX = lambda *shape: spaces.Box(-1, 1, shape, np.float32)
IMAGE = spaces.Box(0, 255, (16, 16, 3), np.uint8)
STATS = ('mean', 'variance', 'count')  # of images and numbers
CHOICE = lambda n: spaces.Discrete(n, dtype=np.int32)


def tasks(text=None):
    """One that sees an image and two numbers and has four choices; one of three numbers that has
    two choices and a real action.
    """
    return join(
        ['a', 'b'],
        [{'x': BOX(2), 'image': IMAGE}, {'x': BOX(3)}],
        [{'go': CHOICE(4), 'reset': FLAG}, {'go': CHOICE(2), 'arm': BOX(2), 'reset': FLAG}],
        [1, 1],
        text=text,
    )


@pytest.mark.parametrize('continuous', ['bins', 'normal', 'truncnormal'])
def test_a_policy_chooses_what_its_task_has_and_learns_nothing_of_the_rest(continuous):
    space = {k: s for k, s in tasks().act_space.items() if k != 'reset'}
    actions = Actions(space, continuous, 5, 0.01, tasks())
    outputs = torch.randn(300, actions.outputs, requires_grad=True)
    task = torch.arange(300) % 2
    policy = actions.policy(outputs, task)
    for code in (policy.sample(), actions.uniform(300, task=task), policy.mode()):
        found = actions.decode(code)
        assert found['go'][task == 1].max() == 1 and not found['arm'][task == 0].any()
    assert set(actions.decode(policy.sample())['go'][task == 0].tolist()) == {0, 1, 2, 3}

    first = task == 0
    total = policy.log_prob(policy.sample())[first].sum() + policy.entropy()[first].sum()
    (slope,) = torch.autograd.grad(
        total + policy.kl(actions.policy(outputs * 0, task)).sum(), outputs
    )
    assert torch.isfinite(slope).all()
    moved = slope[first].abs().sum(0) > 0
    assert moved.sum() == 4  # the choices of 'go', nothing of 'arm'
    alone = Actions({'go': CHOICE(4)}, continuous, 5, 0.01)
    logits = outputs[first][:, moved]
    own = alone.policy(logits)
    assert torch.allclose(policy.entropy()[first], own.entropy(), atol=1e-5)


def test_stored_padding_has_probability_one():
    space = {k: s for k, s in tasks().act_space.items() if k != 'reset'}
    actions = Actions(space, 'bins', 5, 0.0, tasks())
    stored = {'go': torch.tensor([1]), 'arm': torch.zeros(1, 2)}
    policy = actions.policy(torch.randn(1, actions.outputs), torch.tensor([0]))
    alone = policy.log_probs[[count for _, count in actions.groups].index(4)][0, 0, 1]
    assert torch.allclose(policy.log_prob(actions.encode(stored)), alone)


def test_means_are_over_what_is_there():
    known = Tasks(tasks().obs_space)
    present = known.present(torch.tensor([[0, 1]]))
    assert present['x'].tolist() == [[[1, 1, 0], [1, 1, 1]]]
    assert present['image'].shape == (1, 2, 1, 1, 1)
    x = torch.tensor([[[1.0, 1, 99], [2, 2, 2]]])
    assert weighted_mean(x, present['x']) == torch.tensor(8 / 5)
    assert weighted_mean(torch.ones(1, 2, 4, 4, 3), present['image']) == 1
    assert Tasks({}).present(None) == {} and Tasks({}).count == 1


def test_what_differs_between_tasks_is_not_to_be_explained():
    task = torch.tensor([[0, 1, 0, 1]])
    x = torch.tensor([[[1.0], [5.0], [1.0], [5.0]]])
    assert not centred(x, task, 3).any() and not vary(x, task, 3) and vary(x, None, 1)
    x[0, 3] = 7
    assert centred(x, task, 3).flatten().tolist() == [0, -1, 0, 1] and vary(x, task, 3)


def both(still, lively):
    """Frames (8, 50, ...) of two tasks in turn, and whose they are."""
    task = (torch.arange(8) % 2)[:, None].expand(8, 50)
    where = task.reshape(8, 50, *[1] * (still.dim() - 2))
    return torch.where(where == 0, still, lively), task


def test_numbers_are_standardised_by_task():
    x, task = both(torch.randn(8, 50, 2), 1000 + 300 * torch.randn(8, 50, 2))
    x[::2, :, 1] = 0  # padding of the first
    scale, alone = NumberScale(2, 2), NumberScale(2)
    for part, of in zip(x.split(4), task.split(4)):
        scale.measure(part, of)
        alone.measure(part[1::2])
    assert torch.allclose(scale.mean[1], alone.mean) and torch.allclose(scale.unit[1], alone.unit)
    code = scale(x, task)
    for n in (0, 1):
        assert code[task == n][:, 0].std() == pytest.approx(1 / 6, rel=0.05)
    assert not code[::2, :, 1].any()
    assert torch.allclose(scale.invert(code, task), x, atol=1e-2)


def test_images_are_standardised_by_task_and_black_ones_dilute_nothing():
    image = lambda spread: (100 + spread * torch.randn(8, 50, 4, 4, 3)).clamp(1, 255).byte()
    x, task = both(image(8.0), image(40.0))
    scale = PixelScale((4, 4, 3), 2)
    for part, of in zip(x.split(2), task.split(2)):
        scale.measure(part, of)
    for n in (0, 1):
        assert scale(x, task)[task == n].std() == pytest.approx(1, rel=0.05)
    assert torch.allclose(scale.invert(scale(x, task), task), x / 255, atol=1e-5)
    x[::2] = 0  # the first task has no such camera
    without = PixelScale((4, 4, 3), 2)
    without.measure(x, task)
    assert without.std[1] == pytest.approx(scale.std[1].item(), rel=0.02)
    seen, dark = PixelScale((4, 4, 3)), PixelScale((4, 4, 3))
    seen.measure(x[1::2])
    dark.measure(x, None, True)
    assert torch.allclose(seen.std, dark.std) and torch.allclose(seen.mean, dark.mean)


def test_of_what_is_not_reconstructed_every_task_has_its_share():
    image = lambda spread: (100 + spread * torch.randn(8, 50, 16, 16, 3)).clamp(0, 255).byte()
    x, task = both(image(8.0), image(40.0))
    acts = [{'go': CHOICE(2), 'reset': FLAG}] * 2
    seeing = Tasks(join(['a', 'b'], [{'image': IMAGE}] * 2, acts, [1, 1]).obs_space)
    tokenizer = Tokenizer({'image': IMAGE}, tiny()[0].tokenizer, 2)
    tokenizer.measure({'image': x}, task)
    first = torch.ones(8, 50, dtype=torch.bool)

    def missed(part):
        known = None, None, seeing, task[part]
        with torch.no_grad():
            losses, metrics = tokenizer.losses({'image': x[part]}, first[part], *known)
        return losses['image'].item(), metrics['unexplained'].item()

    still, lively = missed(slice(0, None, 2)), missed(slice(1, None, 2))
    # a fresh decoder shows the mean image
    assert still == pytest.approx(lively, rel=0.05) and still[1] == pytest.approx(1, rel=0.05)
    usual = tokenizer.scale['image'].std.square().mean().item()
    assert missed(slice(None))[0] == pytest.approx(usual, rel=0.05)
    alone = PixelScale((16, 16, 3))
    assert alone.alike(alone.mean, None) is alone.mean


def test_moves_of_a_still_task_and_of_a_lively_one_have_units_of_their_own():
    z, task = both(0.002 * torch.randn(8, 50, 1, 3), 0.3 * torch.randn(8, 50, 1, 3))
    first = torch.zeros(8, 50, dtype=torch.bool)
    first[3, 20] = True
    moves = Moves(1, 3, 2)
    moves.measure(z, first, task)
    moves.measure(z[1::2], first[1::2], task[1::2])
    assert moves.count.tolist() == [1, 2]
    origin = moves.origin(z, first, task)
    code = moves.encode(z, origin)[:, 1:][~first[:, 1:]]
    for n in (0, 1):
        size = code[task[:, 1:][~first[:, 1:]] == n].square().mean().sqrt()
        assert size == pytest.approx(1, rel=0.1)
    assert torch.allclose(moves.decode(moves.encode(z, origin), origin), z, atol=1e-5)
    after = moves.after(z[:, :1], task[:, :1])
    assert torch.equal(after.unit[1, 0], moves.usual[1])
    noise = (moves.blur(z, 0.9, task) - z) / 0.1
    for n in (0, 1):
        usual = moves.usual[n].square().mean().sqrt().item()
        assert noise[task == n].std() == pytest.approx(usual, rel=0.1)


def test_what_an_older_run_measured_of_all_tasks_together_is_of_each():
    old, new = Moves(2, 3), Moves(2, 3, 4)
    old.measure(torch.randn(2, 5, 2, 3), torch.zeros(2, 5, dtype=torch.bool))
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.usual, old.usual.expand(4, -1, -1)) and new.count.tolist() == [1] * 4
    again = Moves(2, 3, 4)
    again.load_state_dict(new.state_dict())
    assert torch.equal(again.square, new.square)
    with pytest.raises(RuntimeError, match='size mismatch'):
        Moves(2, 3, 5).load_state_dict(new.state_dict())


def test_a_checkpoint_of_before_tasks_were_measured_apart_is_loaded():
    made, other = (agent(tasks(), '--agent.tokenizer.kind', 'conv') for _ in range(2))
    tree = made.save()
    names = [('tokenizer', f'{part}.{x}') for part in ('scale.image', 'numbers.x') for x in STATS]
    names += [('dynamics', 'coordinates.square'), ('dynamics', 'coordinates.count')]
    for part, name in names:
        now = tree[part][name]
        tree[part][name] = np.random.default_rng(0).random(now.shape[1:]).astype(np.float32)
    other.load(tree)
    state = other.save()
    for part, name in names:
        assert np.array_equal(state[part][name], np.stack([tree[part][name]] * 2)), name


def test_a_text_reaches_the_agent_token():
    made = TextEmbedding(torch.eye(3), 8)
    assert not made(torch.tensor([0, 2])).any()
    torch.nn.init.normal_(made.project.weight)
    assert not torch.equal(made(torch.tensor(0)), made(torch.tensor(2)))


def rows(space, length, seed=0):
    """Rows (4, length) of both tasks in turn, with noise where there is padding."""
    rng, shape = np.random.default_rng(seed), (4, length)
    flags = {k: np.broadcast_to(v, shape).copy() for k, v in outcome().items()}
    return flags | {
        'x': rng.normal(size=(*shape, 3)).astype(np.float32),
        'image': rng.integers(0, 255, (*shape, 16, 16, 3), np.uint8),
        'task_id': np.tile(np.int32([0, 1, 0, 1])[:, None], (1, length)),
        'go': rng.integers(0, 2, shape, np.int32),
        'arm': np.zeros((*shape, 2), np.float32),
    }


def agent(space, *flags):
    config = parse(
        ['--configs', 'pixel', 'debug', '--machine.threads', '1', *flags],
        Path(__file__).parents[2] / 'configs',
    )
    return Agent.from_config(config, space.obs_space, space.act_space)


@pytest.mark.parametrize('kind', ['patches', 'conv'])
def test_a_tokenizer_is_not_scored_on_padding(kind):
    made = agent(tasks(), '--agent.tokenizer.kind', kind)
    tokenizer, found = made.world.tokenizer, rows(tasks(), 6)
    task = torch.from_numpy(found['task_id']).long()
    obs = {k: torch.from_numpy(found[k]) for k in ('x', 'image')}
    first = torch.zeros(4, 6, dtype=torch.bool)
    spoiled = {k: v.clone() for k, v in obs.items()}
    spoiled['x'][::2, :, 2] = 9.0  # that task 0 has not
    spoiled['image'][1::2] = 77
    latent = tokenizer.encode(obs, first).detach()
    score = lambda seen: tokenizer.losses(seen, first, None, latent, made.world.tasks, task)
    (losses, metrics), (others, told) = score(obs), score(spoiled)
    assert losses and all(torch.equal(losses[k], others[k]) for k in losses)
    assert torch.equal(metrics['unexplained'], told['unexplained'])


@pytest.mark.parametrize(
    'flags', [(), ('--agent.tokenizer.time_every', '1'), ('--agent.world', 'dreamerv3')]
)
def test_an_agent_acts_and_learns_in_both_tasks(flags):
    text = None if flags else np.eye(2, 5)
    space = tasks(text)
    made = agent(space, *flags)
    assert (made.world.tasks.text is not None) == (text is not None)
    obs = {k: v[:, 0] for k, v in rows(space, 1).items()} | {'is_first': np.ones(4, bool)}
    for mode in ('train', 'sample', 'mode'):
        _, action = made.policy(made.init_policy(4), obs, mode)
        assert action['go'][1::2].max() <= 1 and abs(action['arm'][::2]).max() < 1e-6
    batch = made.batch(rows(space, made.config.batch.length + 1))
    assert batch.task.shape == batch.shape
    plan = made.updater.plan(0, batch.shape, made.schedule)
    metrics = made.updater.carry_out(plan, batch)
    assert metrics and all(torch.isfinite(torch.as_tensor(v)).all() for v in metrics.values())


@torch.no_grad()
def test_what_a_report_says_of_actions_is_of_those_that_the_task_has():
    made = agent(tasks())
    world, batch = made.world, made.batch(rows(tasks(), 9))
    one = batch.at(torch.tensor([0, 2]))
    context = world.commit(one)
    nats, sure, _ = examine.heads(world, context, one)['behaviour'][0]
    assert torch.allclose(nats, torch.tensor(np.log(4), dtype=torch.float32))
    assert uniform_nats(world.actions, [one]) == pytest.approx(np.log(4))
    assert uniform_nats(world.actions, [batch]) > 2
    assert torch.allclose(sure, torch.tensor(0.25)) and len(sure) == len(nats), 'one choice a frame'
    torch.nn.init.normal_(world.heads.behaviour_head.parts[0].output.bias)
    made.actor_critic.start_from(world.heads.behaviour_head)
    assert policy(made, [context], [one])['kl_to_behaviour'] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('text', [None, np.eye(2, 5)])
def test_what_to_do_in_which_task_is_learned_from_the_task_alone(text):
    """Frames that look alike, in which one task goes and the other does not."""
    both = {'x': BOX(1)}, {'go': CHOICE(2), 'reset': FLAG}
    space = join(['a', 'b'], [both[0]] * 2, [both[1]] * 2, [1, 1], text=text)
    made = agent(space)
    flat = rows(space, 9) | {'x': np.zeros((4, 9, 1), np.float32)}
    batch = made.batch(flat | {'go': flat['task_id'].copy()})
    world = made.world
    optimizer = torch.optim.Adam([*world.dynamics.parameters(), *world.heads.parameters()], 3e-3)
    alone = batch.shape[1] - 1  # the last frame: no action of a past that tells the task
    for _ in range(90):
        frames = batch.cut(0, 4)  # every frame an episode of its own
        context = world.commit(frames)
        x = world.heads.inputs(context.feature, context.view)
        known = torch.ones(frames.shape, dtype=torch.bool)
        loss = world.heads.losses(x, frames, known)['behaviour']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = world.heads.behaviour(x.detach()).mode()[:, alone, 0]
    assert found.tolist() == [0, 1, 0, 1]
