"""Which steps are taken, in which order, with which parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pddm_utils.core.errors import InputError

STEPS = ("resample", "strip", "register", "crop", "bias", "scale", "smooth", "frame")


@dataclass(frozen=True)
class Plan:
    """Steps and parameters of one preprocessing run; the values are those of the published preparation.

    Attributes:
        steps: any of `STEPS`, taken in that order.
        spacing_mm: voxel size of the working grid (`resample`).
        template: NIfTI of a skull-stripped brain such as SRI24; empty for nilearn's MNI152 T1 at `spacing_mm`.
        n4_iterations: of each of the fitting levels (`bias`).
        smoothing_step, smoothing_iterations: of the curvature flow (`smooth`).
        percentiles: inside the brain that become 0 and 1 (`scale`).
        frame_voxels, frame_mm: x, y and z size and voxel size of the last grid (`frame`): 192 x 192 x 100 mm.
    """

    steps: tuple[str, ...] = STEPS
    spacing_mm: float = 1.0
    template: str = ""
    n4_iterations: tuple[int, ...] = (50, 50, 50)
    smoothing_step: float = 0.125
    smoothing_iterations: int = 3
    percentiles: tuple[float, float] = (1.0, 99.0)
    frame_voxels: tuple[int, int, int] = (96, 96, 50)
    frame_mm: float = 2.0

    def __post_init__(self) -> None:
        unknown = [step for step in self.steps if step not in STEPS]
        if unknown or len(set(self.steps)) < len(self.steps):
            raise InputError(f"steps {', '.join(self.steps)}: name each of them once, out of {', '.join(STEPS)}")
        object.__setattr__(self, "steps", tuple(step for step in STEPS if step in self.steps))


def plan_of(steps: Sequence[str] | None = None, template: str = "") -> Plan:
    """The published plan, or a part of its steps.

    Args:
        steps: names out of `STEPS`; None for all.
        template: see `Plan`.

    Raises:
        InputError: an unknown step, or one that is named twice.

    Example:
        >>> plan_of(["frame", "bias"]).steps
        ('bias', 'frame')
    """
    return Plan(tuple(STEPS if steps is None else steps), template=template)
