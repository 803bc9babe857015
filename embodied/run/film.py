"""Frames of an episode in bounded memory: a long one becomes a time lapse."""

import numpy as np

MOST_FRAMES = 1200  # of a film
MOST_BYTES = 64 << 20  # likewise


class Film:
    """Every n-th frame, and the last; n doubles whenever there are too many."""

    def __init__(self):
        self._frames, self._stride, self._count, self._last = [], 1, 0, None

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame (H, W, C); it is copied, since a view would keep the frames of all
        envs alive.
        """
        self._last = np.array(frame)
        if self._count % self._stride == 0:
            self._frames.append(self._last)
        self._count += 1
        if (
            len(self._frames) > MOST_FRAMES
            or len(self._frames) > 2
            and len(self._frames) * frame.nbytes > MOST_BYTES
        ):
            self._frames, self._stride = self._frames[::2], 2 * self._stride

    def frames(self) -> np.ndarray:
        """The kept frames, (T, H, W, C)."""
        ends = self._frames[-1] is self._last
        return np.stack(self._frames if ends else [*self._frames, self._last])
