"""Interactive figures without a widget library: arrays packed into text, and self-contained HTML that draws them.

A figure is a dictionary of `frames` and one script in `front/`, which runs behind `front/component.js`.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.show.figures import RESIDUAL_COLOURS
from pddm_utils.show.style import radiological

TOP_LEVEL = 255  # of packed images
_FRONT = Path(__file__).parent.with_name("front")

# A page cannot import what stands inside it, so the script becomes a module through an object URL.
_PAGE = """<div class="pddm-figure" id="{name}"><p>This figure needs JavaScript.</p></div>
<script type="module">
const frames = {frames};
const address = URL.createObjectURL(new Blob([{script}], {{ type: "text/javascript" }}));
const {{ default: widget }} = await import(address);
URL.revokeObjectURL(address);
const model = {{ get: (name) => ({{ frames }})[name], on() {{}}, off() {{}} }};
await widget.render({{ model, el: document.getElementById("{name}") }});
</script>
"""


def pack(values: np.ndarray) -> str:
    """uint8 values as text: differences of neighbours (modulo 256), deflated, in base64.

    Args:
        values: uint8 array; its shape is not kept.

    Example:
        >>> unpack(pack(np.arange(4, dtype=np.uint8)), (2, 2)).tolist()
        [[0, 1], [2, 3]]
    """
    flat = np.ascontiguousarray(values, dtype=np.uint8).ravel()
    return base64.b64encode(zlib.compress(np.diff(flat, prepend=np.uint8(0)).tobytes(), 9)).decode()


def unpack(text: str, shape: Sequence[int]) -> np.ndarray:
    """The uint8 array of this shape that `pack` made `text` from."""
    differences = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.cumsum(differences, dtype=np.uint8).reshape(tuple(shape))


def to_levels(values: ArrayLike, limit: float) -> np.ndarray:
    """Quantise [0, limit] to uint8 levels 0-255, rounding half up; larger values are clipped."""
    return np.floor(np.clip(np.asarray(values) / limit, 0, 1) * TOP_LEVEL + 0.5).astype(np.uint8)


def common_limit(peak: float) -> float:
    """End of a colour scale: the peak, up to the next 0.05, between 0.1 and 1."""
    return round(float(np.clip(np.ceil(peak * 20), 2, 20)) / 20, 2)


def pack_image(planes: np.ndarray, limit: float = 1.0) -> str:
    """Slices `(..., H, W)` with values in [0, limit] as packed levels in display orientation."""
    return pack(radiological(to_levels(planes, limit)))


def pack_palette() -> str:
    """The colours of residuals and anomaly maps: 256 packed RGB rows."""
    return pack((colormaps[RESIDUAL_COLOURS](np.arange(TOP_LEVEL + 1))[:, :3] * TOP_LEVEL).round())


def slices_to_show(scan: Scan, num_slices: int = 12, step: int = 2) -> list[int]:
    """Every `step`-th slice around the middle of the lesion, or of the scan when it is healthy.

    Args:
        scan: a prepared scan.
        num_slices: how many, fewer where the scan ends.
        step: distance in slices; small steps share the neighbours that the median filter needs.

    Returns:
        Rising slice indices.

    Raises:
        InputError: a count or step below 1.
    """
    if num_slices < 1 or step < 1:
        raise InputError(f"num_slices={num_slices}, step={step}; both must be at least 1")
    holding = np.flatnonzero(scan.lesion_mask.any(axis=(1, 2)))
    depth = len(scan.image)
    centre = int(holding[[0, -1]].mean()) if holding.size else depth // 2
    span = min(depth - 1, (num_slices - 1) * step)
    first = int(np.clip(centre - span // 2, 0, depth - 1 - span))
    return list(range(first, first + span + 1, step))


def check_slices(scan: Scan, indices: Sequence[int]) -> None:
    """Refuse slices that the scan does not have.

    Raises:
        InputError: no slice at all, or one outside the scan.
    """
    if len(indices) == 0 or min(indices) < 0 or max(indices) >= len(scan.image):
        raise InputError(f"slices {list(indices)}; the scan {scan.subject} has 0 to {len(scan.image) - 1}")


def front(name: str) -> str:
    """The text of a script or style of `front/`, such as `component.css`."""
    return (_FRONT / name).read_text(encoding="utf-8")


def script(name: str) -> str:
    """The module of a figure: style, shared component, and its own part."""
    parts = [front(f"{part}.js") for part in ("component", name)]
    return "\n".join([f"const STYLE = {json.dumps(front('component.css'))};", *parts])


def figure_html(frames: Mapping[str, Any], module: str, name: str | None = None) -> str:
    """A self-contained HTML fragment: data and script inside, no request to anywhere.

    Args:
        frames: everything that is drawn, JSON-ready.
        module: of `script`.
        name: `id` of its element, unique in the page; a random one when left out.
    """
    texts = {
        part: json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
        for part, value in (("frames", frames), ("script", module))
    }
    return _PAGE.format(name=name or f"pddm-{uuid.uuid4().hex[:12]}", **texts)
