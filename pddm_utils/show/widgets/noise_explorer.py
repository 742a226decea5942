"""Interactive forward process: any noise level, noise and schedule, computed in the reader's browser."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.show.figures import slice_name, telling_slice
from pddm_utils.show.style import radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import check_slices, pack, pack_image, script

DISPLAY_RANGE = 1.5  # x_t from -1.5 to 1.5 is black to white
_NOISE_ZERO, _NOISE_STEPS = 128, 32  # levels of a packed noise field: value 0, and levels per standard deviation


class ForwardExplorer(InteractiveFigure):
    """Sliders over the forward process x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps of one slice."""

    _esm = script("forward")


def explore_forward(
    scan: Scan,
    alpha_bars: Mapping[str, ArrayLike],
    noise: Mapping[str, ArrayLike],
    slice_index: int | None = None,
    timestep: int = 499,
) -> ForwardExplorer:
    """Explore the forward process on one slice: noise level, kind of noise, schedule (Ho et al. 2020, eq. 4).

    The noise is kept in steps of 1/32 standard deviation and cut at 4; the browser computes the rest.

    Args:
        scan: a prepared scan.
        alpha_bars: `(T,)` share of the signal's variance left at each timestep, by name of the schedule.
        noise: `(H, W)` field of unit variance by name of the noise.
        slice_index: which slice; the one with most lesion (or brain) when left out.
        timestep: noise level shown first, 0 to T - 1.

    Raises:
        InputError: no such slice or noise level, no or differently long schedules, or fields of another size.

    Example:
        >>> explore_forward(scan, {"cosine": alpha_bar}, {"Gaussian noise": field}, timestep=818)  # doctest: +SKIP
    """
    index = telling_slice(scan) if slice_index is None else slice_index
    check_slices(scan, [index])
    curves = {name: np.asarray(curve, dtype=float) for name, curve in alpha_bars.items()}
    fields = {name: np.asarray(field) for name, field in noise.items()}
    lengths = {curve.shape for curve in curves.values()}
    if len(lengths) != 1 or {field.shape for field in fields.values()} != {scan.image.shape[1:]}:
        raise InputError(f"pass schedules of one length, and fields of noise of shape {scan.image.shape[1:]}")
    [(steps,)] = lengths
    if not 0 <= timestep < steps:
        raise InputError(f"timestep {timestep}; use 0 to {steps - 1}")
    return ForwardExplorer(
        frames={
            "title": f"Forward process: {scan.dataset}, {scan.subject}, {slice_name(scan, index)}",
            "size": list(scan.image.shape[1:]),
            "start": timestep,
            "range": DISPLAY_RANGE,
            "alpha_bars": {name: [round(value, 8) for value in curve.tolist()] for name, curve in curves.items()},
            "image": pack_image(scan.image[index]),
            "noise": {
                name: pack(radiological(np.clip(np.rint(field * _NOISE_STEPS) + _NOISE_ZERO, 0, 255)))
                for name, field in fields.items()
            },
        }
    )
