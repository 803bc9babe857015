"""What the agent is made of and what an update costs, in numbers counted from the model."""

from torch import nn


def parameters(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for m in modules for p in m.parameters())


def matmul_parameters(*modules: nn.Module) -> int:
    """Parameters of linear layers: each costs 2 FLOPs per token forward and 4 backward."""
    return sum(
        m.weight.numel() for root in modules for m in root.modules() if isinstance(m, nn.Linear)
    )


def update_flops(agent) -> dict[str, float]:
    """Estimated FLOPs of one update by kind of work: 2 per weight and use, 6 with backward."""
    c, ours = agent.config.imagination, agent.actor_critic
    heads = matmul_parameters(ours.policy_head, ours.value_head)
    decisions = c.starts * c.horizon / c.every
    return agent.world.summary().flops | {
        'actor critic': (2 + 6 * c.epochs) * decisions * heads,
    }


def describe(agent) -> str:
    """A table in plain text."""
    ours = agent.actor_critic
    count = parameters(ours.policy_head, ours.value_head)
    rows = [
        *agent.world.summary().rows,
        ('actor critic', count, f'actions {agent.actions.describe()}'),
    ]
    flops = update_flops(agent)
    frames, whole = agent.config.batch.frames_per_update, agent.frames_per_update
    share = '' if frames == whole else f', the share of one process in {whole}'
    lines = [f'{name:<12} {count / 1e6:8.2f}M  {text}' for name, count, text in rows]
    lines.append(f'{"total":<12} {sum(r[1] for r in rows) / 1e6:8.2f}M  on {agent.device}')
    lines.append(
        f'{sum(flops.values()) / 1e9:.1f} GFLOPs per update of {frames} frames{share}: '
        + ', '.join(f'{k} {v / 1e9:.1f}' for k, v in flops.items())
    )
    return '\n'.join(lines)
