"""How an open-loop prediction is drawn: real frames, predicted ones and their error, with titles
and a border that tells what the model was given. Letters: B sequences, T time.
"""

import numpy as np
from PIL import Image, ImageDraw

from embodied.pictures import displayable

WIDTH = 256  # pixels of a video, at least
PANEL = 96  # pixels of the shorter side of a frame, at least, and
LARGEST = 256  # of the longer one, at most
BORDER, GAP, LABELS, HEADER = 3, 3, 44, 18  # pixels
INK, PAPER = (235, 235, 235), (20, 20, 20)
SEEN, DREAMT, LOST, PLAIN = (80, 160, 255), (255, 150, 0), (110, 110, 110), (60, 60, 60)


def open_loop_video(
    name: str, truth: np.ndarray, guess: np.ndarray, start: int, valid: np.ndarray
) -> np.ndarray:
    """Draw a prediction beside what happened.

    Args:
      name: of the image.
      truth, guess: uint8 (B, T, H, W, C); channels that are no colours stand side by side.
      start: the last frame that the model was given; later ones are dreamt.
      valid: bool (B, T); false from where another episode begins, which no model can foresee.

    Returns:
      uint8 (T, height, width, 3), at least WIDTH wide. The border of a predicted frame is blue
      where the model saw the real one, orange where it dreams, grey behind the episode's end.
    """
    truth, guess = rgb(truth), rgb(guess)
    error = ((guess.astype(np.int16) - truth + 255) // 2).astype(np.uint8)
    size = panel_size(*truth.shape[2:4])
    words = [f'frame {t}: ' + caption(t, start) for t in range(truth.shape[1])]
    frames = []
    for t, text in enumerate(words):
        borders = [(SEEN if t <= start else DREAMT) if alive else LOST for alive in valid[:, t]]
        rows = [
            ('real', truth[:, t], [PLAIN] * len(truth)),
            ('model', guess[:, t], borders),
            ('error', error[:, t], [PLAIN] * len(truth)),
        ]
        frames.append(page(f'{name}, {text}', SEEN if t <= start else DREAMT, rows, size))
    return np.stack(frames)


def caption(t: int, start: int) -> str:
    """What the model was given to predict frame t."""
    return 'seen and reconstructed' if t <= start else f'dream, {t - start} ahead'


def page(
    title: str,
    colour: tuple[int, int, int],
    rows: list[tuple[str, np.ndarray, list]],
    size: tuple[int, int],
) -> np.ndarray:
    """One frame of the video, uint8 (height, width, 3).

    Args:
      title, colour: of the line at the top.
      rows: (label, images uint8 (B, H, W, 3), colours of their borders) from top to bottom.
      size: (height, width) that images are drawn at.
    """
    high, wide = (side + 2 * BORDER + GAP for side in size)
    width = max(WIDTH, LABELS + len(rows[0][1]) * wide)
    canvas = Image.new('RGB', (width, HEADER + len(rows) * high), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 3), title, colour)
    for row, (label, images, colours) in enumerate(rows):
        top = HEADER + row * high
        draw.text((4, top + high // 2 - 8), label, INK)
        for column, (image, border) in enumerate(zip(images, colours)):
            left = LABELS + column * wide
            corner = (left + wide - GAP - 1, top + high - GAP - 1)
            draw.rectangle(((left, top), corner), fill=border)
            smaller = image.shape[0] > size[0]
            method = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
            canvas.paste(
                Image.fromarray(image).resize(size[::-1], method), (left + BORDER, top + BORDER)
            )
    return np.asarray(canvas)


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that an image is drawn at: a whole multiple of a small one."""
    if max(height, width) > LARGEST:
        factor = LARGEST / max(height, width)
        height, width = max(1, round(factor * height)), max(1, round(factor * width))
    factor = max(1, min(-(-PANEL // min(height, width)), LARGEST // max(height, width)))
    return factor * height, factor * width


def rgb(images: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, C) as colours (..., H, W, 3), grey ones too."""
    images = displayable(images)
    return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
