"""Registration by mutual information, so that any contrast fits a T1 template."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

from pddm_utils.data.preprocess.images import to_sitk
from pddm_utils.data.volume import load_volume

_LEVELS_MM = (8.0, 4.0, 2.0)  # voxel size of the coarse-to-fine levels
_SAMPLES = 50_000  # voxels that a level compares, drawn with a fixed seed
_BINS = 50
_ITERATIONS = 150
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


@lru_cache(maxsize=2)
def load_template(path: str, spacing_mm: float) -> tuple[sitk.Image, sitk.Image]:
    """The template brain and its mask.

    Args:
        path: NIfTI of a skull-stripped brain; empty for nilearn's MNI152 T1.
        spacing_mm: voxel size of nilearn's, rounded to whole mm.

    Raises:
        InputError: the file cannot be used.
    """
    if path:
        volume = load_volume(path)
        data, affine, inside = volume.data, volume.affine, volume.data > 0
    else:
        resolution = max(1, round(spacing_mm))  # nilearn takes whole millimetres
        template, brain = load_mni152_template(resolution), load_mni152_brain_mask(resolution)
        inside, affine = brain.get_fdata() > 0, template.affine
        data = template.get_fdata() * inside
    return to_sitk(data, affine), to_sitk(inside, affine)


def register(
    fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image, moving_mask: sitk.Image, affine: bool = True
) -> tuple[sitk.AffineTransform, float]:
    """Find where each point of the fixed image lies in the moving image.

    Mattes' mutual information, coarse to fine: a rigid stage that starts with the two masks'
    centres on each other, then an affine one. The same input gives the same transform.

    Args:
        fixed, moving: float32; skull-stripped for an affine fit of brains.
        fixed_mask, moving_mask: uint8, for the start only.
        affine: False stops after the rigid stage.

    Returns:
        The transform from fixed to moving points (LPS mm), and the mutual information reached.
    """
    start = sitk.CenteredTransformInitializer(
        sitk.Cast(fixed_mask, sitk.sitkFloat32),
        sitk.Cast(moving_mask, sitk.sitkFloat32),
        sitk.Euler3DTransform(),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    rigid = sitk.Euler3DTransform(start)
    value = _optimise(fixed, moving, rigid, _LEVELS_MM if not affine else _LEVELS_MM[:2])
    found = sitk.AffineTransform(3)
    found.SetCenter(rigid.GetCenter())
    found.SetMatrix(rigid.GetMatrix())
    found.SetTranslation(rigid.GetTranslation())
    if affine:
        value = _optimise(fixed, moving, found, _LEVELS_MM[1:])
    return found, value


def _optimise(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, levels_mm: tuple[float, ...]) -> float:
    """Improve a transform in place; the mutual information at the end."""
    spacing = float(np.mean(fixed.GetSpacing()))
    shrink = [max(1, round(level / spacing)) for level in levels_mm]
    voxels = np.prod(fixed.GetSize()) / np.array(shrink, float) ** 3
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(np.minimum(1, _SAMPLES / voxels).tolist(), 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _ITERATIONS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(
        [level / 2 if factor > 1 else 0 for level, factor in zip(levels_mm, shrink, strict=True)]
    )
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return -method.GetMetricValue()


def ras_matrix(transform: sitk.AffineTransform) -> np.ndarray:
    """`(4, 4)`, from RAS mm of the fixed image to RAS mm of the moving image."""
    matrix, centre = np.reshape(transform.GetMatrix(), (3, 3)), np.array(transform.GetCenter())
    whole = np.eye(4)
    whole[:3, :3] = matrix
    whole[:3, 3] = centre + transform.GetTranslation() - matrix @ centre
    return _FLIP @ whole @ _FLIP
