"""How an agent acts: a world model keeps the state of every env, the policy reads its features.

Letters: N envs, M action code.
"""

from collections.abc import Mapping

import numpy as np
import torch

from embodied.tasks import KEY

from .actions import Actions
from .actor_critic import ActorCritic
from .machine import Machine
from .record import Recorder
from .worlds import World

MODES = ('train', 'sample', 'mode')
KINDS = ('explore', 'sample', 'mode')


class Player:
    """Acts for some envs at once.

    Args:
        world, actor_critic, actions: who acts. keys: of the observation that are looked at.
        machine: where it computes.
    """

    def __init__(
        self,
        world: World,
        actor_critic: ActorCritic,
        actions: Actions,
        keys: list[str],
        machine: Machine,
    ):
        self.world, self.actor_critic, self.actions = world, actor_critic, actions
        self.keys, self.machine = [*keys, 'is_first'], machine

    def begin(self, num_envs: int) -> dict[str, torch.Tensor]:
        """Carry: the state of the world model, and the code (N, M) of the last action."""
        code = torch.zeros(num_envs, self.actions.code_size, device=self.machine.device)
        return self.world.begin(num_envs) | {'action': code}

    def kind(self, mode: str, begun: bool) -> str:
        """One of KINDS for one of MODES: 'train' samples, and acts at random until the policy has
        begun to learn.

        Raises:
            ValueError: another mode.
        """
        if mode not in MODES:
            raise ValueError(f"policy: mode must be 'train', 'sample' or 'mode', got {mode!r}")
        return (
            'explore' if mode == 'train' and not begun else 'mode' if mode == 'mode' else 'sample'
        )

    def step(
        self,
        kind: str,
        carry: dict[str, torch.Tensor],
        obs: Mapping[str, np.ndarray],
        recorder: Recorder,
    ) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
        """Act on one frame of every env.

        Args:
            kind: one of KINDS: at random, by a sample of the policy, or its likeliest action.
            carry: of begin or the last call. obs: key -> (N, ...).
            recorder: of work for the device.

        Returns:
            carry, actions (N, ...).
        """
        seen = {
            f'seen/{k}': torch.from_numpy(np.ascontiguousarray(obs[k])).to(self.machine.device)
            for k in self.keys
        }
        out = recorder.run(('policy', kind), lambda flat: self.act(kind, flat), carry | seen)
        actions = {
            k.removeprefix('act/'): v.cpu().numpy() for k, v in out.items() if k.startswith('act/')
        }
        # cloned: a recording will write into the same tensors for whoever acts next
        return {k: out[k].clone() for k in carry}, actions

    def act(self, kind: str, flat: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The next carry, and under 'act/' the actions: work for the device alone.

        Args:
            flat: the carry, and under 'seen/' the observations.
        """
        seen = {k.removeprefix('seen/'): v for k, v in flat.items() if k.startswith('seen/')}
        carry = {k: v for k, v in flat.items() if not k.startswith('seen/')}
        last, task = carry.pop('action'), seen.get(KEY)
        task = None if task is None else task.long()
        with self.machine.autocast():
            carry = self.world.observe(carry, seen, last)
            if kind == 'explore':
                code = self.actor_critic.explore(last, seen['is_first'], task)
            else:
                code = self.actor_critic.act(self.world.features(carry), kind == 'mode', task)
        found = {f'act/{k}': v for k, v in self.actions.decode(code).items()}
        return carry | {'action': code} | found

    def save(self, carry: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The carry as numpy arrays."""
        return {k: v.cpu().numpy() for k, v in carry.items()}

    def load(self, tree: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Inverse of save."""
        device = self.machine.device
        return {k: torch.from_numpy(np.asarray(v).copy()).to(device) for k, v in tree.items()}
