"""What an update needs besides the peer's own loss."""

from types import SimpleNamespace

import torch


def optimizers(
    tokenizer: torch.nn.Module, dynamics: torch.nn.Module
) -> dict[str, torch.optim.Optimizer]:
    nets = {'tokenizer': tokenizer, 'dynamics': dynamics}
    return {
        name: torch.optim.AdamW(net.parameters(), 1e-4, fused=True) for name, net in nets.items()
    }


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def video(s: SimpleNamespace) -> torch.Tensor:
    """Noise of the shape of a clip."""
    return torch.rand(s.batch, s.clip, 3, s.size, s.size, device=s.device)


def latents(s: SimpleNamespace) -> torch.Tensor:
    """Noise in (-1, 1) of the shape of packed latents."""
    shape = s.batch, s.time, s.latents // s.pack, s.pack * s.channels
    return torch.rand(*shape, device=s.device) * 2 - 1
