"""Interactive comparison of reconstruction pipelines on one scan, with and without a kernel.

`compare` runs the pipelines once and packs what they give into one trait. `comparison.js` draws it, as a live
widget in a notebook and as plain HTML in a built page: sliders over slices and noise levels, thresholds with
the Dice of the shown slice. What the script computes from the packed values, `Comparison` computes too.
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from matplotlib import colormaps

from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline
from pddm_utils.errors import InputError
from pddm_utils.evaluation.metrics import dice
from pddm_utils.evaluation.postprocess import MEDIAN_SIZE, anomaly_map
from pddm_utils.show.figures import (
    FOUND_COLOUR,
    LESION_COLOUR,
    RESIDUAL_COLOURS,
    method_colour,
    method_label,
    radiological,
    slice_height_mm,
)

LEVELS = 255
SOURCES = ("map", "residual")
_SCRIPT = Path(__file__).with_name("comparison.js")
_MARGIN = MEDIAN_SIZE // 2  # neighbours that the median filter needs on either side of a shown slice

# A page cannot import what stands inside it, so the script becomes a module through an object URL.
_PAGE = """<div class="pddm-comparison" id="{name}"><p>This comparison needs JavaScript.</p></div>
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


def to_levels(values: np.ndarray, limit: float) -> np.ndarray:
    """Quantise [0, limit] to uint8 levels 0-255, rounding half up; larger values are clipped."""
    return np.floor(np.clip(values / limit, 0, 1) * LEVELS + 0.5).astype(np.uint8)


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


class Comparison(anywidget.AnyWidget):
    """The comparison as a widget; a page without a kernel shows the same through its `text/html`.

    Attributes:
        frames: everything that is drawn, JSON-ready: texts, colours and packed uint8 arrays in display
            orientation. Levels 0-255 stand for 0-1 in images and for 0-`limit` in anomaly maps.
    """

    _esm = _SCRIPT
    frames = traitlets.Dict().tag(sync=True)

    def to_html(self) -> str:
        """A self-contained HTML fragment: data and script inside, no request to anywhere."""
        contents = {"frames": self.frames, "script": _SCRIPT.read_text(encoding="utf-8")}
        texts = {name: json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
                 for name, value in contents.items()}
        return _PAGE.format(name=f"comparison-{uuid.uuid4().hex[:12]}", **texts)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.to_html()}, metadata

    def _method(self, name: str) -> dict[str, Any]:
        for method in self.frames["methods"]:
            if method["name"] == name:
                return method
        raise InputError(f"method {name!r} is not compared here; choose one of "
                         + ", ".join(method["name"] for method in self.frames["methods"]))

    def _place(self, key: str, value: int) -> int:
        if value not in self.frames[key]:
            raise InputError(f"{value} is not among the {key} of this comparison: {self.frames[key]}")
        return self.frames[key].index(value)

    def plane(self, what: str, slice_index: int) -> np.ndarray:
        """`image` (levels) or `lesion` (0 or 1) of a slice, uint8 `(H, W)` as displayed."""
        shape = (len(self.frames["slices"]), *self.frames["size"])
        return unpack(self.frames[what], shape)[self._place("slices", slice_index)]

    def reconstruction(self, method: str, slice_index: int, timestep: int) -> np.ndarray:
        """Levels of a reconstructed slice, uint8 `(H, W)` as displayed."""
        return self._shown(method, "reconstructions", slice_index, timestep)

    def levels(self, method: str, slice_index: int, timestep: int, source: str = "map") -> np.ndarray:
        """What is thresholded and coloured: levels of 0-`limit`, uint8 `(H, W)` as displayed.

        Args:
            method: name of a method.
            slice_index: one of the shown slices.
            timestep: one of the noise levels.
            source: `map`, the anomaly map, or `residual`, |x - x^| before erosion and median filter.

        Raises:
            InputError: something that is not part of this comparison.
        """
        if source not in SOURCES:
            raise InputError(f"source {source!r}; choose one of {', '.join(SOURCES)}")
        if source == "map":
            return self._shown(method, "maps", slice_index, timestep)
        image = self.plane("image", slice_index).astype(int)
        difference = np.abs(image - self.reconstruction(method, slice_index, timestep))
        return to_levels(difference / LEVELS, self.frames["limit"])

    def _shown(self, method: str, what: str, slice_index: int, timestep: int) -> np.ndarray:
        shape = (len(self.frames["timesteps"]), len(self.frames["slices"]), *self.frames["size"])
        volume = unpack(self._method(method)[what], shape)
        return volume[self._place("timesteps", timestep), self._place("slices", slice_index)]

    def dice(
        self,
        method: str,
        slice_index: int,
        timestep: int,
        threshold: float | None = None,
        source: str = "map",
    ) -> float:
        """Dice of one slice, as the widget shows it: voxels above the threshold against the lesion mask.

        Args:
            method, slice_index, timestep, source: as in `levels`.
            threshold: in scaled intensity, taken to the nearest of 256 levels; the method's when left out.

        Returns:
            A value in [0, 1]; NaN in a slice without a lesion.

        Raises:
            InputError: something that is not part of this comparison.
        """
        level = self._method(method)["threshold"]
        if threshold is not None:
            level = to_levels(np.float64(threshold), self.frames["limit"])
        found = self.levels(method, slice_index, timestep, source) > level
        return dice(found[None], self.plane("lesion", slice_index)[None] > 0)

    @property
    def payload_bytes(self) -> int:
        """Size of the HTML fragment."""
        return len(self.to_html().encode())


def compare(
    scan: Scan,
    pipelines: Mapping[str, PatchedReconstructionPipeline],
    timesteps: Sequence[int],
    slice_indices: Sequence[int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    start_timestep: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Reconstruct slices of one scan with several pipelines and noise levels, and pack the comparison.

    Shown slices and the neighbours that the 3-D median filter needs are reconstructed, nothing else; in the
    shown slices the filter sees the same neighbours as in the whole volume.

    Args:
        scan: a prepared scan.
        pipelines: by method name, such as `ddpm` and `pddpm`.
        timesteps: noise levels, indices of the schedule.
        slice_indices: which slices to show; `slices_to_show(scan)` when left out.
        thresholds: where each method's slider starts, in scaled intensity; mid-scale when left out.
        start_timestep: noise level shown first; the middle one when left out.
        seed: of the noise; the same for all pipelines and noise levels.

    Raises:
        InputError: nothing to compare, a slice, noise level or threshold that does not exist, or schedules
            that differ.

    Example:
        >>> compare(scan, {"ddpm": whole, "pddpm": patched}, timesteps=[499, 818])  # doctest: +SKIP
    """
    shown = sorted({int(k) for k in (slices_to_show(scan) if slice_indices is None else slice_indices)})
    timesteps = sorted({int(t) for t in timesteps})
    alpha_bars = _check(scan, pipelines, timesteps, shown, thresholds)
    start = timesteps[len(timesteps) // 2] if start_timestep is None else start_timestep
    if start not in timesteps:
        raise InputError(f"compare: start_timestep {start} is not among the timesteps {timesteps}")
    volumes = {name: _reconstruct(scan, pipe, timesteps, shown, seed) for name, pipe in pipelines.items()}
    # One scale for all, in steps of 0.05, so that colours and thresholds can be compared.
    peak = max(float(maps.max()) for _, maps in volumes.values())
    limit = round(float(np.clip(np.ceil(peak * 20), 2, 20)) / 20, 2)
    return Comparison(frames={
        **_describe(scan, shown, limit),
        "timesteps": timesteps,
        "alpha_bars": alpha_bars,
        "start": [int(scan.lesion_mask[shown].sum(axis=(1, 2)).argmax()), timesteps.index(start)],
        "methods": [_method_frames(name, *volumes[name], limit, thresholds) for name in volumes],
    })


def _describe(scan: Scan, shown: Sequence[int], limit: float) -> dict[str, Any]:
    """What is drawn of the scan itself."""
    _, height, width = scan.image.shape
    colours = colormaps[RESIDUAL_COLOURS](np.arange(LEVELS + 1))[:, :3]
    return {
        "title": f"{scan.dataset}, {scan.subject}",
        "size": [height, width],
        "slices": shown,
        "heights_mm": [slice_height_mm(scan, index) for index in shown],
        "limit": limit,
        "palette": pack((colours * LEVELS).round()),
        "lesion_colour": LESION_COLOUR,
        "found_colour": FOUND_COLOUR,
        "image": _pack_volume(scan.image[shown], 1.0),
        "lesion": pack(radiological(scan.lesion_mask[shown])),
    }


def _check(
    scan: Scan,
    pipelines: Mapping[str, PatchedReconstructionPipeline],
    timesteps: Sequence[int],
    shown: Sequence[int],
    thresholds: Mapping[str, float] | None,
) -> list[float]:
    """The share of the signal's variance left at each noise level, the same for all pipelines."""
    if not pipelines or not timesteps or not shown:
        raise InputError("compare: pass at least one pipeline, one timestep and one slice")
    if shown[0] < 0 or shown[-1] >= len(scan.image):
        raise InputError(f"compare: slices {shown}; the scan {scan.subject} has 0 to {len(scan.image) - 1}")
    if thresholds is not None and set(thresholds) != set(pipelines):
        raise InputError(f"compare: thresholds of {list(thresholds)}; pass those of {list(pipelines)}")
    curves = [pipeline.scheduler.alphas_cumprod for pipeline in pipelines.values()]
    if timesteps[0] < 0 or timesteps[-1] >= len(curves[0]):
        raise InputError(f"compare: timesteps {timesteps}; use 0 to {len(curves[0]) - 1}")
    if any(not torch.equal(curve, curves[0]) for curve in curves):
        raise InputError("compare: the schedules of the pipelines differ, so would the noise at one timestep")
    return [round(float(curves[0][t]), 4) for t in timesteps]


def _reconstruct(
    scan: Scan,
    pipeline: PatchedReconstructionPipeline,
    timesteps: Sequence[int],
    shown: Sequence[int],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions and anomaly maps of the shown slices, both (timesteps, slices, H, W)."""
    wanted = sorted({near for index in shown for near in range(index - _MARGIN, index + _MARGIN + 1)
                     if 0 <= near < len(scan.image)})
    image, brain, places = scan.image[wanted], scan.brain_mask[wanted], np.searchsorted(wanted, shown)
    rebuilt = [pipeline.reconstruct_volume(image, brain, t, seed) for t in timesteps]
    maps = [anomaly_map(image, volume, brain) for volume in rebuilt]
    return np.stack(rebuilt)[:, places], np.stack(maps)[:, places]


def _pack_volume(volume: np.ndarray, limit: float) -> str:
    return pack(radiological(to_levels(volume, limit)))


def _method_frames(
    name: str, rebuilt: np.ndarray, maps: np.ndarray, limit: float, thresholds: Mapping[str, float] | None
) -> dict[str, Any]:
    threshold = limit / 2 if thresholds is None else thresholds[name]
    return {
        "name": name,
        "label": method_label(name),
        "colour": method_colour(name),
        "threshold": int(to_levels(np.float64(threshold), limit)),
        "reconstructions": _pack_volume(rebuilt, 1.0),
        "maps": _pack_volume(maps, limit),
    }
