"""Frames and observations as a page can show them: small PNG images in data URIs, or plain numbers."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from qlearn.torsos import image_layout
from qlearn.types import Array, Space

WIDTH = 400  # pixels of a frame, at most
NUMBERS = 32  # of an observation that is shown number by number, at most
# The channels of a small grid, later ones on top; told apart by most eyes (Okabe & Ito 2008, Tol 2021).
CHANNELS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (240, 228, 66))


def frame_uri(frame: Any) -> str | None:
    """A frame `[H, W, 3]` as an environment draws it; None for what is none."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] not in (3, 4) or 0 in frame.shape:
        return None
    image = Image.fromarray(np.ascontiguousarray(frame[..., :3]).astype(np.uint8))
    if image.width > WIDTH:
        image = image.resize((WIDTH, max(1, image.height * WIDTH // image.width)), Image.Resampling.BILINEAR)
    return _uri(image.quantize(64, Image.Quantize.FASTOCTREE))


def observation(seen: Array, space: Space) -> Any:
    """What the network sees at once, `[*shape]` or `[stack, *shape]`: a picture's URI, or numbers.

    Images lie in reading order, the oldest first. A small grid with channels shows the last one that is on in each
    cell. What is no image is told as numbers, or, where these are many, as grey cells from the smallest to the
    largest.
    """
    if space.categories:
        return [int(seen)]
    stacked = seen.ndim - len(space.shape)
    frames = list(seen) if stacked else [seen]
    layout = image_layout(frames[0].shape)
    if layout:
        return _uri(Image.fromarray(_tiled([_pixels(frame, layout) for frame in frames])))
    if frames[0].ndim == 3:
        return _uri(Image.fromarray(_tiled([_grid(frame) for frame in frames])))
    if seen.size <= NUMBERS:
        return [round(float(number), 4) for number in seen.reshape(-1)]
    width = max(2, 1 << math.ceil(math.log2(seen.size) / 2))
    cells = np.zeros(-(-seen.size // width) * width, np.uint8)
    cells[: seen.size] = _grey(seen.reshape(-1))
    return _uri(Image.fromarray(cells.reshape(-1, width)))


def _tiled(images: list[Array]) -> Array:
    """Images of one shape in rows and columns, a thin line between them."""
    columns = math.ceil(math.sqrt(len(images)))
    rows, (height, width) = -(-len(images) // columns), images[0].shape[:2]
    line = 2 if len(images) > 1 else 0
    shape = (rows * (height + line) - line, columns * (width + line) - line, *images[0].shape[2:])
    sheet = np.full(shape, 112, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + line), number % columns * (width + line)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _pixels(frame: Array, layout: tuple[int, int, int, bool]) -> Array:
    """An image as bytes `[H, W]` or `[H, W, 3]`; of other counts of channels their mean."""
    channels, _, _, last = layout
    image = frame if frame.ndim == 2 or last else np.moveaxis(frame, 0, -1)
    if image.dtype != np.uint8:
        image = _grey(image)
    if image.ndim == 2 or channels == 3:
        return np.ascontiguousarray(image)
    grey: Array = image.mean(-1).astype(np.uint8)
    return grey


def _grid(frame: Array) -> Array:
    """Channels first `[C, H, W]` to `[H, W, 3]`."""
    picture = np.full((*frame.shape[1:], 3), 24, np.uint8)
    for number, channel in enumerate(frame):
        picture[channel > 0] = CHANNELS[number % len(CHANNELS)]
    return picture


def _grey(numbers: Array) -> Array:
    """Numbers as bytes, the smallest 0 and the largest 255."""
    if numbers.dtype == np.uint8:
        return numbers
    low, high = float(numbers.min()), float(numbers.max())
    return ((numbers - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _uri(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=6)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
