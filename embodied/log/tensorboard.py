"""TensorBoard's event files."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 20  # TensorBoard shows events so late


class Events:
    """TensorBoard's event file, written with its own writer and neither torch nor TensorFlow."""

    def __init__(self, logdir: Path, on_event: Callable[[str], None]):
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._make, self._proto, self._summary = EventFileWriter, event_pb2, summary_pb2.Summary
        self._tensor = tensor_pb2.TensorProto
        self._logdir, self._on_event = str(logdir), on_event
        self._writer = None
        self._failed = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Args: name -> number; frames."""
        self._add(
            [
                self._summary.Value(tag=name, simple_value=float(value))
                for name, value in values.items()
            ],
            step,
        )

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        """Args: name; PNG or GIF; its (H, W, C); frames."""
        image = self._summary.Image(
            height=shape[0], width=shape[1], colorspace=shape[2], encoded_image_string=content
        )
        self._add([self._summary.Value(tag=name, image=image)], step)

    def text(self, name: str, text: str, step: int) -> None:
        """Args: name; Markdown; frames."""
        content = self._tensor(dtype='DT_STRING', string_val=[text.encode()])
        value = self._summary.Value(tag=name, tensor=content)
        value.metadata.plugin_data.plugin_name = 'text'
        self._add([value], step)

    def resume(self, step: int) -> None:
        """Say that a run goes on after `step`: what earlier files hold beyond is no longer
        shown.
        """
        log = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(self._proto.Event(wall_time=time.time(), step=step + 1, session_log=log))

    def close(self) -> None:
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _add(self, values: list, step: int) -> None:
        if values:
            self._write(
                self._proto.Event(
                    wall_time=time.time(), step=step, summary=self._summary(value=values)
                )
            )

    def _write(self, event: Any) -> None:
        try:
            self._writer = self._writer or self._make(self._logdir, flush_secs=FLUSH_SECONDS)
            self._writer.add_event(event)  # raises what the writing thread ran into before
            self._failed = False
        except OSError as error:
            self._writer = None  # its thread has ended; the next event begins another file
            if not self._failed:
                self._on_event(
                    f'TensorBoard events cannot be written to {self._logdir}, some are lost:'
                    f' {error}'
                )
            self._failed = True
