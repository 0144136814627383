"""Small images for `beamtide settings check`: curves on axes, and an image with logarithmic grey levels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Picture = NDArray[np.uint8]
Values = NDArray[np.float64]
WIDTH, HEIGHT, MARGIN = 900, 420, 46
INK, PAPER = (40, 40, 40), (255, 255, 255)
COLOURS = ((120, 120, 120), (200, 40, 40), (40, 90, 200), (40, 150, 60))


def curves(x: Values, lines: Mapping[str, Values], title: str, label: str) -> Picture:
    """Draw lines over x with a logarithmic y axis; each with its name in its colour."""
    image, draw = _blank(title)
    high = max(float(np.nanmax(values)) for values in lines.values())
    low = max(high * 1e-5, 0.5) if high > 1 else high * 1e-5
    decades = np.log10(max(high, 10 * low)) - np.log10(low)
    across = MARGIN + (x - x[0]) / (x[-1] - x[0]) * (WIDTH - 2 * MARGIN)
    for (name, values), colour, row in zip(lines.items(), COLOURS, range(len(lines)), strict=False):
        level = (np.log10(np.maximum(np.nan_to_num(values), low)) - np.log10(low)) / decades
        down = HEIGHT - MARGIN - level * (HEIGHT - 2 * MARGIN)
        draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=colour)
        draw.text((WIDTH - 3 * MARGIN, MARGIN + 14 * row), name, fill=colour)
    draw.rectangle((MARGIN, MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN), outline=INK)
    for part in np.linspace(0, 1, 6):
        draw.text(
            (MARGIN + part * (WIDTH - 2 * MARGIN) - 10, HEIGHT - MARGIN + 4), f"{x[0] + part * (x[-1] - x[0]):.4g}", fill=INK
        )
    draw.text((WIDTH // 2, HEIGHT - 16), label, fill=INK)
    draw.text((4, MARGIN), f"{high:.2g}", fill=INK)
    draw.text((4, HEIGHT - MARGIN - 8), f"{low:.2g}", fill=INK)
    return np.asarray(image)


def frame(values: NDArray[Any], valid: NDArray[np.bool_]) -> Picture:
    """Draw an image with logarithmic grey levels, reduced to the height of the image; pixels that are left out are red."""
    step = max(1, -(-max(values.shape) // HEIGHT))
    shown, good = values[::step, ::step].astype(float), valid[::step, ::step]
    top = float(np.percentile(shown[good], 99.8)) if good.any() else 1.0
    level = np.log1p(np.clip(shown, 0.0, top)) / np.log1p(max(top, 1.0))
    grey = np.rint(255 * level).astype(np.uint8)
    picture = np.stack([grey] * 3, axis=-1)
    picture[~good] = (150, 40, 40)
    return picture


def beside(left: Picture, right: Picture) -> Picture:
    """Put two images side by side."""
    height = max(len(left), len(right))
    padded = [np.pad(one, ((0, height - len(one)), (0, 8), (0, 0)), constant_values=255) for one in (left, right)]
    return np.concatenate(padded, axis=1)


def _blank(title: str) -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise BadInput("images need Pillow: pip install 'beamtide[maps]'") from error
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 12), title, fill=INK)
    return image, draw
