"""Interactive comparison of reconstructions of a scan, or of several, with and without a kernel.

`compare` reconstructs once and packs what they give into one trait. `front/comparison.js` draws it: sliders
over slices and noise levels, a wipe between scan and reconstruction, thresholds with the Dice of the shown slice.
Where a kernel is at hand, the reader can have the models run on any other slice and noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.evaluation.postprocess import MEDIAN_SIZE, anomaly_map
from pddm_utils.show.figures import FOUND_COLOUR, method_colour, method_label, slice_height_mm
from pddm_utils.show.style import LESION_COLOUR, radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import (
    TOP_LEVEL,
    check_slices,
    common_limit,
    pack,
    pack_image,
    pack_palette,
    script,
    slices_to_show,
    to_levels,
    unpack,
)

# Image `(D, H, W)`, brain mask and timestep in, reconstruction `(D, H, W)` out; the same noise at every call.
Reconstruct = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

SOURCES = ("map", "residual")
_MARGIN = MEDIAN_SIZE // 2  # neighbours that the median filter needs on either side of a shown slice


@dataclass(frozen=True)
class _Source:
    """What a comparison was made from, so that a live one can run the models again."""

    scan: Scan
    methods: Mapping[str, Reconstruct]
    alpha_bars: np.ndarray

    def signal_left(self, timestep: int) -> float:
        return round(float(self.alpha_bars[timestep]), 4)


class Comparison(InteractiveFigure):
    """The comparison as a widget; a page without a kernel shows the same through its `text/html`.

    Attributes:
        frames: everything that is drawn. Levels 0-255 stand for 0-1 in images and for 0-`limit` in anomaly maps.
        live: whether a kernel can run the models for any slice and noise level (see `run`).
    """

    _esm = script("comparison")
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, source: _Source | None = None, **traits: Any) -> None:
        super().__init__(live=source is not None, **traits)
        self._source = source
        self.on_msg(self._answer)

    def run(self, slice_index: int, timestep: int) -> dict[str, Any]:
        """Run the models on one slice of the scan, at one noise level.

        Args:
            slice_index: any slice of the scan.
            timestep: noise level, an index of the schedule.

        Returns:
            JSON-ready: `slice`, `height_mm`, `timestep`, `alpha_bar`, and packed planes in display orientation:
            `image`, `lesion`, and for each method of `methods` its `reconstruction` and `map`.

        Raises:
            InputError: the comparison holds no models, or no such slice or noise level.
        """
        if self._source is None:
            raise InputError("this comparison holds no models; make it with `compare` in this session")
        scan = self._source.scan
        _check(self._source, [timestep], [slice_index], None)
        limit, methods = self.frames["limit"], []
        for method in self.frames["methods"]:
            rebuilt, maps = _rebuilt(scan, self._source.methods[method["name"]], [timestep], [slice_index])
            methods.append({"reconstruction": pack_image(rebuilt), "map": pack_image(maps, limit)})
        return {
            "slice": slice_index,
            "height_mm": slice_height_mm(scan, slice_index),
            "timestep": timestep,
            "alpha_bar": self._source.signal_left(timestep),
            "image": pack_image(scan.image[slice_index]),
            "lesion": pack(radiological(scan.lesion_mask[slice_index])),
            "methods": methods,
        }

    def _answer(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """Answer the front end's `run` message."""
        if message.get("kind") == "run":
            self._reply("ran", lambda: self.run(int(message["slice"]), int(message["timestep"])))

    def _method(self, name: str) -> dict[str, Any]:
        for method in self.frames["methods"]:
            if method["name"] == name:
                return method
        raise InputError(
            f"method {name!r} is not compared here; choose one of "
            + ", ".join(method["name"] for method in self.frames["methods"])
        )

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
        return to_levels(difference / TOP_LEVEL, self.frames["limit"])

    def _shown(self, method: str, what: str, slice_index: int, timestep: int) -> np.ndarray:
        shape = (len(self.frames["timesteps"]), len(self.frames["slices"]), *self.frames["size"])
        volume = unpack(self._method(method)[what], shape)
        return volume[self._place("timesteps", timestep), self._place("slices", slice_index)]


class Comparisons(InteractiveFigure):
    """Comparisons of several scans, one shown at a time; needs no kernel and runs nothing (`compare_scans`)."""

    _esm = script("comparison")


def compare_scans(title: str, comparisons: Mapping[str, Comparison]) -> Comparisons:
    """Several comparisons in one figure, with a list to choose the scan from.

    Args:
        title: of the figure.
        comparisons: by the name in the list; each keeps its own slices, noise levels and scale.

    Raises:
        InputError: nothing to compare.

    Example:
        >>> compare_scans("Three subjects", {"healthy": one, "tumour": other})  # doctest: +SKIP
    """
    if not comparisons:
        raise InputError("compare_scans: pass at least one comparison")
    scans = [one.frames | {"title": f"{name} ({one.frames['title']})"} for name, one in comparisons.items()]
    return Comparisons(frames={"title": title, "scans": scans})


def compare(
    scan: Scan,
    methods: Mapping[str, Reconstruct],
    alpha_bars: ArrayLike,
    timesteps: Sequence[int],
    slice_indices: Sequence[int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    start_timestep: int | None = None,
) -> Comparison:
    """Reconstruct slices of one scan with several methods and noise levels, and pack the comparison.

    Shown slices and the neighbours that the 3-D median filter needs are reconstructed, nothing else; in the
    shown slices the filter sees the same neighbours as in the whole volume.

    Args:
        scan: a prepared scan.
        methods: what reconstructs a volume, by method name, such as `pipeline.reconstruct_volume` for `pddpm`.
        alpha_bars: `(T,)` share of the signal's variance left at each timestep, the same for all methods.
        timesteps: noise levels, indices of the schedule.
        slice_indices: which slices to show; `slices_to_show(scan)` when left out.
        thresholds: where each method's slider starts, in scaled intensity; mid-scale when left out.
        start_timestep: noise level shown first; the middle one when left out.

    Raises:
        InputError: nothing to compare, or a slice, noise level or threshold that does not exist.

    Example:
        >>> methods = {"ddpm": whole.reconstruct_volume, "pddpm": patched.reconstruct_volume}  # doctest: +SKIP
        >>> compare(scan, methods, patched.scheduler.alphas_cumprod, timesteps=[499, 818])  # doctest: +SKIP
    """
    shown = sorted({int(k) for k in (slices_to_show(scan) if slice_indices is None else slice_indices)})
    timesteps = sorted({int(t) for t in timesteps})
    source = _Source(scan, dict(methods), np.asarray(alpha_bars))
    _check(source, timesteps, shown, thresholds)
    start = timesteps[len(timesteps) // 2] if start_timestep is None else start_timestep
    if start not in timesteps:
        raise InputError(f"compare: start_timestep {start} is not among the timesteps {timesteps}")
    volumes = {name: _rebuilt(scan, method, timesteps, shown) for name, method in methods.items()}
    # One scale for all, so that colours and thresholds can be compared.
    limit = common_limit(max(float(maps.max()) for _, maps in volumes.values()))
    return Comparison(
        source,
        frames={
            **_describe(scan, shown, limit),
            "timesteps": timesteps,
            "alpha_bars": [source.signal_left(timestep) for timestep in timesteps],
            "num_timesteps": len(source.alpha_bars),
            "start": [int(scan.lesion_mask[shown].sum(axis=(1, 2)).argmax()), timesteps.index(start)],
            "methods": [_method_frames(name, *volumes[name], limit, thresholds) for name in volumes],
        },
    )


def _describe(scan: Scan, shown: Sequence[int], limit: float) -> dict[str, Any]:
    """What is drawn of the scan itself."""
    _, height, width = scan.image.shape
    return {
        "title": f"{scan.dataset}, {scan.subject}",
        "size": [height, width],
        "depth": len(scan.image),
        "slices": shown,
        "heights_mm": [slice_height_mm(scan, index) for index in shown],
        "limit": limit,
        "palette": pack_palette(),
        "lesion_colour": LESION_COLOUR,
        "found_colour": FOUND_COLOUR,
        "image": pack_image(scan.image[shown]),
        "lesion": pack(radiological(scan.lesion_mask[shown])),
    }


def _check(
    source: _Source, timesteps: Sequence[int], shown: Sequence[int], thresholds: Mapping[str, float] | None
) -> None:
    """Refuse what cannot be compared."""
    if not source.methods or not timesteps or not shown:
        raise InputError("compare: pass at least one method, one timestep and one slice")
    check_slices(source.scan, shown)
    if thresholds is not None and set(thresholds) != set(source.methods):
        raise InputError(f"compare: thresholds of {list(thresholds)}; pass those of {list(source.methods)}")
    if timesteps[0] < 0 or timesteps[-1] >= len(source.alpha_bars):
        raise InputError(f"compare: timesteps {timesteps}; use 0 to {len(source.alpha_bars) - 1}")


def _rebuilt(
    scan: Scan, reconstruct: Reconstruct, timesteps: Sequence[int], shown: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions and anomaly maps of the shown slices, both (timesteps, slices, H, W)."""
    wanted = sorted(
        {near for index in shown for near in range(index - _MARGIN, index + _MARGIN + 1) if 0 <= near < len(scan.image)}
    )
    image, brain, places = scan.image[wanted], scan.brain_mask[wanted], np.searchsorted(wanted, shown)
    rebuilt = [reconstruct(image, brain, timestep) for timestep in timesteps]
    maps = [anomaly_map(image, volume, brain) for volume in rebuilt]
    return np.stack(rebuilt)[:, places], np.stack(maps)[:, places]


def _method_frames(
    name: str, rebuilt: np.ndarray, maps: np.ndarray, limit: float, thresholds: Mapping[str, float] | None
) -> dict[str, Any]:
    threshold = limit / 2 if thresholds is None else thresholds[name]
    return {
        "name": name,
        "label": method_label(name),
        "colour": method_colour(name),
        "threshold": int(to_levels(np.float64(threshold), limit)),
        "reconstructions": pack_image(rebuilt),
        "maps": pack_image(maps, limit),
    }
