"""Maps as small JPEG images for a quick look: viridis, contrast from the 1st to the 99th percentile, NaN dark grey.

Coordinates grow to the right and upwards, as in the TIFF. Small maps are enlarged by whole numbers, so that a pixel stays a
square; larger ones are left as they are.
"""

import pathlib
import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_side.writers.tiff import upright
from beamtide.errors import BadInput
from beamtide.writers import FinishedProduct, Map, Outputs

Array = NDArray[Any]
SMALLEST = 256
GREY = np.array([64, 64, 64], dtype=np.uint8)
VIRIDIS = np.array(
    [
        *((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142)),
        *((31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37)),
    ],
    dtype=float,
)
"""Ten points of the colour map viridis (CC0, S. van der Walt and N. Smith), joined by straight lines."""


def coloured(values: Array) -> Array:
    """Return an image (rows, columns, 3) of 8-bit colours."""
    good = np.isfinite(values)
    low, high = np.percentile(values[good], (1.0, 99.0)) if good.any() else (0.0, 1.0)
    span = high - low if high > low else 1.0
    level = np.clip((np.where(good, values, low) - low) / span, 0.0, 1.0) * (len(VIRIDIS) - 1)
    channels = [np.interp(level, np.arange(len(VIRIDIS)), VIRIDIS[:, channel]) for channel in range(3)]
    image: Array = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    image[~good] = GREY
    return image


def enlarged(image: Array) -> Array:
    """Return the image with each pixel repeated so often that its longer side has at least 256 pixels."""
    times = max(1, -(-SMALLEST // max(image.shape[:2])))
    return np.ascontiguousarray(image.repeat(times, axis=0).repeat(times, axis=1))


def _with_text(picture: Any, text: str) -> Any:
    """Return a picture with a sentence below it, in as many lines as it needs."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=max(12, picture.width // 40))
    lines = textwrap.wrap(text, max(16, int(picture.width / font.getlength("n"))))
    height = sum(font.getbbox("Ag")[3] + 4 for _ in lines) + 6
    whole = Image.new("RGB", (picture.width, picture.height + height), (160, 0, 0))
    whole.paste(picture)
    ImageDraw.Draw(whole).multiline_text((4, picture.height + 2), "\n".join(lines), fill=(255, 255, 255), font=font)
    return whole


def write(product: FinishedProduct, out: Outputs) -> None:
    """Write a picture of every map of a product: the writer "jpeg"."""
    for shown in product.maps:
        caption = f"{product.product.scan} {product.product.pipeline} {shown.title}"
        write_jpeg(out.path(f"_{shown.name}.jpg", "preview"), shown, caption)


def write_jpeg(path: pathlib.Path, shown: Map, caption: str) -> None:
    """Write one preview; the caption goes into the file's comment."""
    try:
        from PIL import Image
    except ImportError as error:
        raise BadInput("JPEG previews need Pillow: pip install 'beamtide[maps]'") from error
    picture = Image.fromarray(enlarged(coloured(upright(shown))))
    if shown.warning:
        picture = _with_text(picture, shown.warning)
    picture.save(path, format="JPEG", quality=92, comment=caption.encode())
