"""One raw scan through the steps of a plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk

from pddm_utils.core.errors import InputError
from pddm_utils.data.brain import background_level
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.mask_files import load_lesion_mask
from pddm_utils.data.preprocess import images
from pddm_utils.data.preprocess.masks import brain_of
from pddm_utils.data.preprocess.plan import Plan
from pddm_utils.data.preprocess.registration import load_template, ras_matrix, register
from pddm_utils.data.volume import load_volume

_N4_GRID_MM = 4.0  # voxel size at which the bias field is fitted


@dataclass
class Subject:
    """A scan between two steps: image and masks on one grid.

    Attributes:
        image: float32.
        brain, lesion: uint8; `lesion` is None without a lesion mask file.
        log: one entry a step: name, parameters, findings, seconds.
    """

    image: sitk.Image
    brain: sitk.Image
    lesion: sitk.Image | None
    log: list[dict[str, Any]] = field(default_factory=list)

    def onto(self, grid: sitk.Image, transform: sitk.Transform | None = None) -> None:
        """Resample everything: the image linearly, the masks by nearest neighbour."""
        self.image, self.brain = (images.resampled(one, grid, transform) for one in (self.image, self.brain))
        self.lesion = None if self.lesion is None else images.resampled(self.lesion, grid, transform)


def preprocess_scan(row: ManifestRow, plan: Plan, t1: str = "") -> tuple[Subject, Subject]:
    """Read one scan and take the plan's steps.

    Args:
        row: a scan of a manifest, not a simulated one.
        plan: the steps and their parameters.
        t1: T1 scan of the same session, see `brain_of`.

    Returns:
        The scan before and after.

    Raises:
        InputError: a file cannot be used, or a step fails on it.

    Example:
        >>> raw, done = preprocess_scan(row, Plan())  # doctest: +SKIP
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums in one order, whatever the number of cores
    if row.simulated_index is not None:
        raise InputError(f"{row.scan_id}: {row.image} is no file; simulated scans need no preprocessing")
    start = time.perf_counter()
    scan = load_volume(row.image)
    if 1 in scan.data.shape:
        raise InputError(
            f"{row.image}: one slice, and preprocessing needs a volume; give that, or a slice in MNI space"
        )
    inside, origin = brain_of(row, scan, t1)
    lesion = None
    if row.lesion_mask and row.inserted_lesion is None:
        lesion = images.to_sitk(load_lesion_mask(row.lesion_mask, scan), scan.affine)
    image = scan.data - background_level(scan.data)  # what is resampled and cut is filled with 0
    subject = Subject(images.to_sitk(image, scan.affine), images.to_sitk(inside, scan.affine), lesion)
    raw = Subject(subject.image, subject.brain, lesion)
    _note(subject, "read", {}, {"brain_mask": origin}, start)
    for step in plan.steps:
        start = time.perf_counter()
        try:
            parameters, found = _STEP_OF[step](subject, plan)
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:  # RuntimeError is how ITK says that it cannot
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"{row.image}: step {step} failed ({reason}); look at scan and brain mask, or leave the step out"
            ) from None
        if not images.array_of(subject.brain).any():
            raise InputError(f"{row.image}: no brain left after step {step}; check scan, brain mask and orientation")
        _note(subject, step, parameters, found, start)
    return raw, subject


def _note(subject: Subject, step: str, parameters: dict, found: dict, start: float) -> None:
    subject.log.append(
        {"step": step, "parameters": parameters, "found": found, "seconds": round(time.perf_counter() - start, 2)}
    )


def _resample(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    before = subject.image.GetSpacing()
    subject.onto(images.spaced(subject.image, plan.spacing_mm))
    return {"spacing_mm": plan.spacing_mm}, {"spacing_before_mm": [round(size, 3) for size in before]}


def _strip(subject: Subject, _: Plan) -> tuple[dict, dict]:
    subject.image = images.masked(subject.image, subject.brain)
    return {}, {"brain_ml": round(brain_ml(subject.brain), 1)}


def _register(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    template, template_mask = load_template(plan.template, plan.spacing_mm)
    brain = images.masked(subject.image, subject.brain)  # also where `strip` is left out: a template has no skull
    transform, information = register(template, brain, template_mask, subject.brain)
    subject.onto(template, transform)
    return (
        {"template": plan.template or "MNI152 T1 of nilearn"},
        {"mutual_information": round(information, 4), "scan_from_template_ras": ras_matrix(transform).tolist()},
    )


def _crop(subject: Subject, _: Plan) -> tuple[dict, dict]:
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(subject.brain > 0, sitk.sitkUInt8))
    x, y, z, *size = shape.GetBoundingBox(1)
    subject.image, subject.brain = (
        sitk.RegionOfInterest(one, size, (x, y, z)) for one in (subject.image, subject.brain)
    )
    if subject.lesion is not None:
        subject.lesion = sitk.RegionOfInterest(subject.lesion, size, (x, y, z))
    return {}, {"start": [x, y, z], "size": list(size)}


def _bias(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    """N4, fitted on a coarse grid, applied on the fine one."""
    shrink = [max(1, round(_N4_GRID_MM / size)) for size in subject.image.GetSpacing()]
    inside = images.array_of(subject.brain) > 0
    level = float(images.array_of(subject.image)[inside].mean())
    if not level > 0:
        raise ValueError("values inside the brain are not positive")
    positive = sitk.Maximum(subject.image / level, 1e-3)  # it takes the logarithm
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(plan.n4_iterations)
    n4.Execute(sitk.Shrink(positive, shrink), sitk.Shrink(subject.brain, shrink))
    field_log = sitk.Cast(n4.GetLogBiasFieldAsImage(positive), sitk.sitkFloat32)
    field_log.CopyInformation(subject.image)
    subject.image = subject.image / sitk.Exp(field_log)
    spread = images.array_of(field_log)[inside].std()
    return {"iterations": list(plan.n4_iterations), "shrink": shrink}, {"log_field_std": round(float(spread), 4)}


def _scale(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    values = images.array_of(subject.image)[images.array_of(subject.brain) > 0]
    low, high = map(float, np.percentile(values, plan.percentiles))
    if not high > low:
        raise ValueError("intensities inside the brain do not vary")
    subject.image = sitk.Clamp((subject.image - low) / (high - low), sitk.sitkFloat32, 0.0, 1.0)
    subject.image = images.masked(subject.image, subject.brain)
    return {"percentiles": list(plan.percentiles)}, {"low": low, "high": high}


def _smooth(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    values = sitk.GetArrayViewFromImage(subject.image)
    smooth = sitk.CurvatureFlow(subject.image, plan.smoothing_step, plan.smoothing_iterations)
    # Its explicit steps overshoot a little at sharp edges.
    smooth = sitk.Clamp(smooth, lowerBound=float(values.min()), upperBound=float(values.max()))
    subject.image = images.masked(smooth, subject.brain)
    return {"time_step": plan.smoothing_step, "iterations": plan.smoothing_iterations}, {}


def _frame(subject: Subject, plan: Plan) -> tuple[dict, dict]:
    before = brain_ml(subject.brain)
    subject.onto(images.framed(subject.image, plan.frame_voxels, plan.frame_mm))
    lost = 1 - brain_ml(subject.brain) / before
    return (
        {"voxels": list(plan.frame_voxels), "voxel_mm": plan.frame_mm},
        {"share_of_brain_left_out": round(max(0.0, lost), 4)},
    )


def brain_ml(brain: sitk.Image) -> float:
    """Volume of a mask."""
    return float((sitk.GetArrayViewFromImage(brain) > 0).sum() * np.prod(brain.GetSpacing()) / 1000)


_STEP_OF: dict[str, Callable[[Subject, Plan], tuple[dict, dict]]] = {
    "resample": _resample,
    "strip": _strip,
    "register": _register,
    "crop": _crop,
    "bias": _bias,
    "scale": _scale,
    "smooth": _smooth,
    "frame": _frame,
}
