"""Weights & Biases. Its own variables say where it writes: WANDB_PROJECT, WANDB_MODE=offline."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from ..extras import require
from .identity import identity


class WandB:
    """A run of W&B that goes on where the run in the logdir does; every chart is over frames."""

    def __init__(self, logdir: Path, on_event: Callable[[str], None]):
        require('wandb', 'wandb')
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get('WANDB_PROJECT', 'dreamer4'),
            id=identity(logdir, 'wandb'),
            name=logdir.name,
            dir=str(logdir),
            resume='allow',
        )
        self._run.define_metric('frames')
        self._run.define_metric('*', step_metric='frames')

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, 'frames': step})

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        if content.startswith(b'GIF'):
            shown = self._wandb.Video(io.BytesIO(content), format='gif')
        else:
            shown = self._wandb.Image(Image.open(io.BytesIO(content)))
        self._run.log({name: shown, 'frames': step})

    def text(self, name: str, text: str, step: int) -> None:
        self._run.config.update({name: text}, allow_val_change=True)

    def resume(self, step: int) -> None:
        """W&B keeps what lies beyond `step`: both versions are shown."""

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
