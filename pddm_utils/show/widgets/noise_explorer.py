"""Interactive forward process: any noise level, noise and schedule, computed in the reader's browser."""

from __future__ import annotations

import numpy as np
import torch

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.show.figures import slice_name, telling_slice
from pddm_utils.show.style import radiological
from pddm_utils.show.widgets.base import InteractiveFigure
from pddm_utils.show.widgets.packing import TOP_LEVEL, check_slices, pack, pack_image, script, to_levels, unpack

SCHEDULES = {"squaredcos_cap_v2": "cosine (this book)", "linear": "linear (diffusers' default)"}
NOISE_LABELS = {"gaussian": "Gaussian noise", "simplex": "simplex noise"}
DISPLAY_RANGE = 1.5  # x_t from -1.5 to 1.5 is black to white
_NOISE_ZERO, _NOISE_STEPS = 128, 32  # levels of a packed noise field: value 0, and levels per standard deviation


class ForwardExplorer(InteractiveFigure):
    """Sliders over the forward process x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps of one slice."""

    _esm = script("forward")

    def noisy(self, timestep: int, noise: str = "gaussian", schedule: str = "squaredcos_cap_v2") -> np.ndarray:
        """The noisy slice as displayed, float64 `(H, W)`; x_0 in [-1, 1].

        Args:
            timestep: 0-999.
            noise: `gaussian` or `simplex`.
            schedule: `squaredcos_cap_v2` (cosine) or `linear`.

        Raises:
            InputError: something that is not in the figure.
        """
        if noise not in self.frames["noise"] or schedule not in self.frames["alpha_bars"]:
            raise InputError(
                f"noise {noise!r}, schedule {schedule!r}; choose among {list(self.frames['noise'])} "
                f"and {list(self.frames['alpha_bars'])}"
            )
        alpha_bars = self.frames["alpha_bars"][schedule]
        if not 0 <= timestep < len(alpha_bars):
            raise InputError(f"timestep {timestep}; use 0 to {len(alpha_bars) - 1}")
        shape = self.frames["size"]
        clean = unpack(self.frames["image"], shape) / TOP_LEVEL * 2 - 1
        field = (unpack(self.frames["noise"][noise], shape).astype(float) - _NOISE_ZERO) / _NOISE_STEPS
        return np.sqrt(alpha_bars[timestep]) * clean + np.sqrt(1 - alpha_bars[timestep]) * field

    def levels(self, timestep: int, noise: str = "gaussian", schedule: str = "squaredcos_cap_v2") -> np.ndarray:
        """Grey levels of the noisy slice, uint8 `(H, W)` as displayed; arguments as in `noisy`."""
        noisy = self.noisy(timestep, noise, schedule).clip(-DISPLAY_RANGE, DISPLAY_RANGE)
        return to_levels((noisy / DISPLAY_RANGE + 1) / 2, 1.0)


def explore_forward(scan: Scan, slice_index: int | None = None, timestep: int = 499, seed: int = 0) -> ForwardExplorer:
    """Explore the forward process on one slice: noise level, kind of noise, schedule (Ho et al. 2020, eq. 4).

    One field of each noise is kept, in steps of 1/32 standard deviation and cut at 4; the browser computes the rest.

    Args:
        scan: a prepared scan.
        slice_index: which slice; the one with most lesion (or brain) when left out.
        timestep: noise level shown first, 0-999.
        seed: of the noise.

    Raises:
        InputError: no such slice or noise level.

    Example:
        >>> explore_forward(scan, timestep=818)  # doctest: +SKIP
    """
    index = telling_slice(scan) if slice_index is None else slice_index
    check_slices(scan, [index])
    alpha_bars = {name: make_scheduler(name).alphas_cumprod.double() for name in SCHEDULES}
    steps = len(next(iter(alpha_bars.values())))
    if not 0 <= timestep < steps:
        raise InputError(f"timestep {timestep}; use 0 to {steps - 1}")
    shape = (1, 1, *scan.image.shape[1:])
    fields = {kind: draw(shape, torch.Generator().manual_seed(seed))[0, 0].numpy() for kind, draw in NOISES.items()}
    return ForwardExplorer(
        frames={
            "title": f"Forward process: {scan.dataset}, {scan.subject}, {slice_name(scan, index)}",
            "size": list(scan.image.shape[1:]),
            "start": timestep,
            "range": DISPLAY_RANGE,
            "alpha_bars": {name: [round(value, 8) for value in curve.tolist()] for name, curve in alpha_bars.items()},
            "schedule_labels": SCHEDULES,
            "noise_labels": NOISE_LABELS,
            "image": pack_image(scan.image[index]),
            "noise": {
                kind: pack(radiological(np.clip(np.rint(field * _NOISE_STEPS) + _NOISE_ZERO, 0, 255)))
                for kind, field in fields.items()
            },
        }
    )
