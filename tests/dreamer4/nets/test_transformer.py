"""The transformer: causality, episode borders and the agreement of cached and full passes."""

import pytest
import torch

from dreamer4.nets.layout import Layout
from dreamer4.nets.memory import Beside, Cache
from dreamer4.nets.transformer import Transformer, View, causal_mask

B, T, N, D = 2, 6, 5, 16
LAYOUT = Layout(body=4, agent=1)
SEES = lambda q, k: k != 'agent' or q == 'agent'
SPACE, BARE = LAYOUT.mask(SEES), LAYOUT.without('agent').mask(SEES)


def network(**changes):
    torch.manual_seed(0)
    settings = dict(width=D, depth=3, heads=4, kv_heads=2, time_every=2, softcap=0.0) | changes
    return Transformer(**settings).double()


def run(net, x, is_first, **kw):
    return net(x, SPACE, View(causal_mask(is_first), torch.arange(x.shape[1])[None]), **kw)


def test_layout_masks_follow_the_rule_over_names():
    layout = Layout(a=2, b=0, c=1)
    assert layout.size == 3
    assert layout.mask(lambda q, k: q == k or q == 'c').tolist() == [
        [1, 1, 0],
        [1, 1, 0],
        [1, 1, 1],
    ]


def test_a_layout_without_its_last_slot_keeps_the_places_of_the_others():
    layout = Layout(a=2, b=0, c=1)
    assert layout.without('c').slots == {'a': slice(0, 2), 'b': slice(2, 2)}
    assert layout.without('c').size == 2
    with pytest.raises(ValueError, match='only the last slot, c, can be left out; got a'):
        layout.without('a')


def test_causal_mask_of_a_sequence_with_a_border_written_out():
    mask = causal_mask(torch.tensor([[True, False, True, False]]))[0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_the_future_has_exactly_no_gradient_on_the_past():
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double, requires_grad=True)
    out, _ = run(net, x, torch.zeros(B, T, dtype=torch.bool))
    out[:, 2].sum().backward()
    assert x.grad[:, 3:].abs().max() == 0
    assert x.grad[:, :3].abs().amax((0, 2, 3)).min() > 0, 'the past and the present must have some'


def test_another_episode_has_exactly_no_gradient():
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double, requires_grad=True)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 3] = True
    run(net, x, first)[0][:, 4].sum().backward()
    assert x.grad[:, :3].abs().max() == 0


def test_masked_tokens_have_exactly_no_gradient_on_the_others():
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double, requires_grad=True)
    run(net, x, torch.zeros(B, T, dtype=torch.bool))[0][:, :, :4].sum().backward()
    assert x.grad[:, :, 4].abs().max() == 0, (
        'the agent token leaked into the others through space or time'
    )
    assert x.grad[:, :, :4].abs().min() > 0


def test_frame_by_frame_with_a_cache_equals_the_full_pass():
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double)
    first = torch.zeros(B, T, dtype=torch.bool)
    full, _ = run(net, x, first)
    _, present = run(net, x[:, :3], first[:, :3])
    cache = Cache(present, T - 3)
    for t in range(3, T):
        mask = (torch.arange(T) <= t)[None, None]
        scratch, _ = net(
            torch.randn(B, 1, N - 1, D, dtype=torch.double),
            BARE,
            View(mask, torch.tensor([[t]]), cache),
        )
        # the commit overwrites the provisional keys
        out, _ = net(x[:, t : t + 1], SPACE, View(mask, torch.tensor([[t]]), cache))
        cache.advance()
        assert torch.allclose(out[:, 0], full[:, t], atol=1e-10), t


def test_frames_beside_their_own_committed_sequence_equal_the_full_pass():
    """Denoising frames that happen to equal the committed ones must give what the committed pass
    gave.
    """
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[1, 2] = True
    full, present = run(net, x, first)
    eye = torch.eye(T, dtype=torch.bool).expand(B, -1, -1)
    mask = torch.cat([causal_mask(first) & ~eye, eye], -1)
    out, _ = net(x, SPACE, View(mask, torch.arange(T)[None], Beside(present)))
    assert torch.allclose(out, full, atol=1e-10)


def test_leaving_the_last_token_out_changes_nothing_for_the_others():
    net, x = network(), torch.randn(B, T, N, D, dtype=torch.double)
    first = torch.zeros(B, T, dtype=torch.bool)
    full, _ = run(net, x, first)
    out, _ = net(x[:, :, :4], BARE, View(causal_mask(first), torch.arange(T)[None]))
    assert torch.allclose(out, full[:, :, :4], atol=1e-10)


def test_reading_some_tokens_gives_what_they_are_among_all():
    for depth in (2, 3):
        net, x = network(depth=depth), torch.randn(B, T, N, D, dtype=torch.double)
        first = torch.zeros(B, T, dtype=torch.bool)
        full, present = run(net, x, first)
        part, same = run(net, x, first, read=slice(1, 3))
        assert torch.allclose(part, full[:, :, 1:3], atol=1e-10)
        assert all(
            torch.equal(a, b) for one, other in zip(present, same) for a, b in zip(one, other)
        ), 'keys of all tokens are kept'


def test_reading_some_frames_gives_what_they_are_among_all_whichever_layers_look_back():
    for settings in (dict(depth=3), dict(depth=2), dict(depth=4), dict(depth=2, time_every=0)):
        net, x = network(**settings), torch.randn(B, T, N, D, dtype=torch.double)
        first = torch.zeros(B, T, dtype=torch.bool)
        first[1, 2] = True
        full, present = run(net, x, first)
        for frames in (slice(-1, None), slice(1, 3), slice(0)):
            part, same = run(net, x, first, read=slice(1, 3), frames=frames)
            assert (
                torch.allclose(part, full[:, frames, 1:3], atol=1e-10)
                and part.shape[1] == full[:, frames].shape[1]
            )
            assert all(
                torch.equal(a, b) for one, other in zip(present, same) for a, b in zip(one, other)
            ), 'keys of all frames are kept'
