"""Simulated healthy subjects: random warps of the MNI ICBM 152 tissue maps in T1, T2 or FLAIR contrast.

Every subject is a warp of one averaged template, so subjects are not independent people.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pddm_utils.data.scan import CONTRASTS, SLICE_SIZE, VOXEL_SIZE_MM
from pddm_utils.data.simulation.tissues import Tissues

# Stream keys: geometry and appearance draw from separate generators, so all contrasts share one geometry.
_GEOMETRY_STREAM = 152_001
_APPEARANCE_STREAM = 152_002

_FIELD_SLICES = 88  # slices sampled before the empty ones are dropped (176 mm)
_CONTROL_SPACING = 4  # voxels (8 mm) between control points of the deformation
# The MNI average is larger than most people's brains: this scale gives about 1.5 litres, as in IXI.
_SCALE = (0.86, 0.97)
_ANISOTROPY = 0.03
_ROTATION_DEGREES = 5.0
# Deformation: (wavelength in control points, standard deviation in mm) from head shape down to gyri.
_DEFORMATION = ((8, 3.0), (4, 2.4), (2, 1.8), (1, 0.8))
_VENTRICLE_GROWTH_MM = (-1.5, 4.5)
_MASK_LEVEL = (0.45, 0.7)  # tightness of the skull stripping
_CSF_GAIN = (0.9, 1.8)  # width of the sulci


@dataclass(frozen=True)
class ContrastRanges:
    """Uniform ranges of the mean intensity of each tissue, in arbitrary units."""

    csf: tuple[float, float]
    grey: tuple[float, float]
    white: tuple[float, float]
    structure: float  # how strongly the template's own T1 detail (nuclei, brain stem) shows, with its sign


CONTRAST_RANGES = {
    "T2": ContrastRanges(csf=(0.90, 1.10), grey=(0.44, 0.54), white=(0.28, 0.36), structure=-0.25),
    "T1": ContrastRanges(csf=(0.18, 0.32), grey=(0.60, 0.70), white=(0.92, 1.02), structure=0.6),
    "FLAIR": ContrastRanges(csf=(0.12, 0.25), grey=(0.74, 0.84), white=(0.58, 0.66), structure=-0.25),
}
_TEXTURE = 0.03  # standard deviation of the within-tissue variation, relative
_BIAS = (0.02, 0.06)  # standard deviation of the log bias field
_NOISE = (0.012, 0.03)  # standard deviation of the noise in each channel, arbitrary units


@dataclass(frozen=True)
class Anatomy:
    """A healthy simulated subject in the prepared frame (2 mm, `(D, 96, 96)`, every slice that holds brain).

    Attributes:
        image: float32 raw intensities, arbitrary units, zero outside the brain.
        brain_mask: bool.
        tissues: tissue probabilities.
        affine: `(4, 4)`, from (x, y, z) voxel indices to RAS millimetres.
    """

    image: np.ndarray
    brain_mask: np.ndarray
    tissues: Tissues
    affine: np.ndarray


@dataclass(frozen=True)
class _Template:
    """Template maps as `(z, y, x)` arrays at 1 mm, with the centre of the brain in voxels."""

    brain: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    structure: np.ndarray
    to_ventricles: tuple[np.ndarray, np.ndarray, np.ndarray]  # field into the ventricles, peak 1
    centre: np.ndarray


def simulate_anatomy(index: int, contrast: str) -> Anatomy:
    """Simulate the healthy subject `index` in one contrast.

    The same index has the same geometry in every contrast; the result depends on nothing but the arguments.

    Args:
        index: subject number, zero or more.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.

    Returns:
        The subject with raw intensities in a `(D, 96, 96)` frame of 2 mm voxels.

    Raises:
        ValueError: for a negative index or an unknown contrast.

    Example:
        >>> simulate_anatomy(0, "T2").image.shape[1:]
        (96, 96)
    """
    if index < 0:
        raise ValueError(f"subject index {index} is negative")
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    brain_mask, tissues, structure, affine = _simulate_geometry(index)
    rng = np.random.default_rng([_APPEARANCE_STREAM, index, CONTRASTS.index(contrast)])
    image = _render(brain_mask, tissues, structure, contrast, rng)
    return Anatomy(image=image, brain_mask=brain_mask, tissues=tissues, affine=affine)


def smooth_field(shape: tuple[int, ...], spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth random field: cubic B-splines on control points of independent normal values.

    Args:
        shape: shape of the field.
        spacing: distance between control points in voxels; larger is smoother.
        rng: source of the control values.

    Returns:
        float32 array of that shape with mean 0 and variance 1 on average.
    """
    control = rng.standard_normal([_control_count(size, spacing) for size in shape], dtype=np.float32)
    variance = np.prod([np.mean(np.sum(_spline_matrix(size, spacing) ** 2, axis=1)) for size in shape])
    return _interpolate(control, shape, spacing) / np.float32(np.sqrt(variance))


def _control_count(size: int, spacing: float) -> int:
    return int((size - 1) // spacing) + 4


@lru_cache(maxsize=256)
def _spline_matrix(size: int, spacing: float) -> np.ndarray:
    """Cubic B-spline weights `(size, controls)`; control point c lies at voxel (c - 1) * spacing."""
    position = np.arange(size) / spacing
    distance = np.abs(position[:, None] + 1 - np.arange(_control_count(size, spacing)))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _interpolate(control: np.ndarray, shape: tuple[int, ...], spacing: float) -> np.ndarray:
    field = control
    for size in shape:  # each pass turns the first axis into the last one, so the order comes out right
        field = np.tensordot(field, _spline_matrix(size, spacing), axes=(0, 1))
    return field


def _load_map(name: str) -> np.ndarray:
    """Read one template map from nilearn's wheel as `(z, y, x)` float32 in [0, 1]; nothing is downloaded."""
    file_name = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    image = nib.Nifti1Image.from_filename(str(files("nilearn") / "datasets" / "data" / file_name))
    return np.asarray(image.dataobj, dtype=np.float32).T / 255


@lru_cache(maxsize=1)
def _template() -> _Template:
    t1, grey, white = (_load_map(name) for name in ("t1", "gm", "wm"))
    brain = ndimage.binary_fill_holes(t1 > 0)
    box = tuple(slice(max(s.start - 12, 0), s.stop + 12) for s in ndimage.find_objects(brain.astype(np.uint8))[0])
    t1, grey, white, brain = t1[box], grey[box], white[box], brain[box]
    grey, white = grey * brain, white * brain
    total = np.maximum(grey + white, 1)
    grey, white = grey / total, white / total
    csf = brain - grey - white
    levels = [np.median(t1[tissue > 0.95]) for tissue in (grey, white)]
    # Detail that the three tissues do not explain; CSF is left flat.
    expected = grey * levels[0] + white * levels[1]
    structure = np.where(csf < 0.3, t1 - expected - csf * np.median(t1[csf > 0.9]), 0)
    smooth_brain = ndimage.gaussian_filter(brain.astype(np.float32), 1.5)
    extent = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return _Template(
        brain=smooth_brain,
        grey=grey,
        white=white,
        structure=ndimage.gaussian_filter(structure, 1.0).astype(np.float32),
        to_ventricles=_field_to_ventricles(brain, csf),
        centre=np.array([(values[0] + values[-1]) / 2 for values in extent]),
    )


def _field_to_ventricles(brain: np.ndarray, csf: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth vector field that points into the ventricles: pulling along it makes them larger."""
    deep = ndimage.distance_transform_edt(brain) > 22
    labels, _ = ndimage.label(deep & (csf > 0.5))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricles = labels == sizes.argmax()
    pull = np.gradient(ndimage.gaussian_filter(ventricles.astype(np.float32), 6.0))
    peak = np.sqrt(sum(component**2 for component in pull)).max()
    return tuple((component / peak).astype(np.float32) for component in pull)


def _simulate_geometry(index: int) -> tuple[np.ndarray, Tissues, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([_GEOMETRY_STREAM, index])
    template = _template()
    matrix, control = _draw_warp(rng)
    growth = rng.uniform(*_VENTRICLE_GROWTH_MM)
    mask_level, csf_gain = rng.uniform(*_MASK_LEVEL), rng.uniform(*_CSF_GAIN)
    shrink = 1.0
    while True:
        coordinates = _template_coordinates(matrix / shrink, control, growth)
        brain = ndimage.map_coordinates(template.brain, coordinates, order=1, prefilter=False) > mask_level
        brain, offset, fits = _centre_in_frame(brain)
        if fits:
            break
        shrink *= 0.97  # rare: a long head at an angle
    coordinates = np.stack([np.roll(axis, offset, (1, 2)) for axis in coordinates])
    kept = brain.any(axis=(1, 2))
    brain, coordinates = brain[kept], coordinates[:, kept]
    tissues, structure = _sample_tissues(brain, coordinates, csf_gain)
    affine = np.diag([VOXEL_SIZE_MM] * 3 + [1.0])
    half = (SLICE_SIZE - 1) / 2 * VOXEL_SIZE_MM
    first_slice = np.flatnonzero(kept)[0] - (_FIELD_SLICES - 1) / 2
    affine[:3, 3] = (
        -half - offset[1] * VOXEL_SIZE_MM,
        -half - offset[0] * VOXEL_SIZE_MM,
        first_slice * VOXEL_SIZE_MM,
    )
    return brain, tissues, structure, affine


def _draw_warp(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the linear part (frame voxels to template mm) and the displacement's control values (mm)."""
    scale = rng.uniform(*_SCALE) * (1 + rng.uniform(-_ANISOTROPY, _ANISOTROPY, 3))
    angles = rng.uniform(-_ROTATION_DEGREES, _ROTATION_DEGREES, 3)
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(VOXEL_SIZE_MM / scale)
    shape = tuple(_control_count(size, _CONTROL_SPACING) for size in (_FIELD_SLICES, SLICE_SIZE, SLICE_SIZE))
    control = np.zeros((3, *shape), dtype=np.float32)
    for spacing, deviation in _DEFORMATION:
        control += deviation * np.stack([smooth_field(shape, spacing, rng) for _ in range(3)])
    return matrix, control


def _template_coordinates(matrix: np.ndarray, control: np.ndarray, growth: float) -> np.ndarray:
    """Template voxel coordinates `(3, D, H, W)` of every voxel of the frame."""
    template = _template()
    shape = (_FIELD_SLICES, SLICE_SIZE, SLICE_SIZE)
    middle = (np.array(shape) - 1) / 2

    def linear(*axes: np.ndarray) -> np.ndarray:
        grids = [axis.astype(np.float32) - centre for axis, centre in zip(axes, middle, strict=True)]
        rows = [sum(m * grid for m, grid in zip(row, np.ix_(*grids), strict=True)) for row in matrix]
        return np.stack(rows) + template.centre[:, None, None, None]

    nodes = linear(*((np.arange(count) - 1) * _CONTROL_SPACING for count in control.shape[1:])) + control
    pull = [ndimage.map_coordinates(field, nodes, order=1, prefilter=False) for field in template.to_ventricles]
    displacement = control + growth * np.stack(pull).astype(np.float32)
    dense = np.stack([_interpolate(component, shape, _CONTROL_SPACING) for component in displacement])
    return (linear(*(np.arange(size) for size in shape)) + dense).astype(np.float32)


def _centre_in_frame(brain: np.ndarray) -> tuple[np.ndarray, tuple[int, int], bool]:
    """Shift the brain's bounding box to the middle of the slices; the last value: no brain was cut."""
    labels, count = ndimage.label(brain)
    if count > 1:
        brain = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    _, rows, columns = ndimage.find_objects(brain.astype(np.uint8))[0]
    fits = all(s.start > 0 and s.stop < SLICE_SIZE for s in (rows, columns)) and not brain[[0, -1]].any()
    offset = tuple((SLICE_SIZE - s.start - s.stop) // 2 for s in (rows, columns))
    return np.roll(brain, offset, (1, 2)), offset, fits


def _sample_tissues(brain: np.ndarray, coordinates: np.ndarray, csf_gain: float) -> tuple[Tissues, np.ndarray]:
    template = _template()
    points = coordinates[:, brain]
    grey, white, detail = (
        ndimage.map_coordinates(values, points, order=1, prefilter=False)
        for values in (template.grey, template.white, template.structure)
    )
    csf = np.clip(1 - grey - white, 0, 1) * csf_gain
    # The average of many brains is blurred; a power above one brings back the borders of a single brain.
    sharp = [np.clip(p, 0, 1) ** 1.6 for p in (csf, grey, white)]
    total = np.maximum(sum(sharp), 1e-6)

    def to_volume(values: np.ndarray) -> np.ndarray:
        volume = np.zeros(brain.shape, dtype=np.float32)
        volume[brain] = values
        return volume

    grey, white = sharp[1] / total, sharp[2] / total
    return Tissues(csf=to_volume(1 - grey - white), grey=to_volume(grey), white=to_volume(white)), to_volume(detail)


def _render(
    brain: np.ndarray, tissues: Tissues, structure: np.ndarray, contrast: str, rng: np.random.Generator
) -> np.ndarray:
    """Mix tissue intensities, texture, bias field and Rician noise into one image."""
    ranges = CONTRAST_RANGES[contrast]
    image = structure * ranges.structure
    for probability, limits in zip(
        (tissues.csf, tissues.grey, tissues.white), (ranges.csf, ranges.grey, ranges.white), strict=True
    ):
        texture = 1 + _TEXTURE * (smooth_field(brain.shape, 3, rng) + smooth_field(brain.shape, 8, rng))
        image = image + rng.uniform(*limits) * probability * texture
    bias = rng.uniform(*_BIAS) * smooth_field(brain.shape, 32, rng)
    noise = rng.uniform(*_NOISE) * rng.standard_normal((2, *brain.shape), dtype=np.float32)
    image = np.hypot(image * np.exp(bias) + noise[0], noise[1])
    return np.where(brain, image, 0).astype(np.float32)
