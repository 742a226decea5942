"""Where the brain is when no mask file says so: skull-stripped scans, and a fallback extraction for T1."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pddm_utils.core.errors import InputError
from pddm_utils.data.volume import LoadedVolume

_BACKGROUND_LEVEL = 0.01  # below this share of the brightest percentile a voxel is background
_LARGEST_BRAIN_ML = 2200.0
_SMALLEST_BRAIN_ML = 500.0
_CLEAR_BORDER = 0.95  # share of the volume's six faces that is background around a stripped brain
_LARGEST_SECTION_CM2 = 195.0  # mean over a slab of a brain; heads have 230 and more
_LARGEST_SLICE_CM2 = 250.0  # of one slice, where the brain is at its widest
_CLEAR_EDGE = 0.8  # share of one slice's four edges that is background; a brain may touch them

_EXTRACTION_VOXEL_MM = 2.0
_SEPARATION_MM = (4.2, 4.6, 5.0, 6.0, 7.0)  # erosion that parts brain from scalp: the smallest that does
_LARGEST_EXTRACTED_ML = 1800.0
_CLOSING_MM = 8.0
_CORD_RADIUS_MM = 9.0  # a cord thinner than this goes


def stripped_brain(volume: LoadedVolume) -> np.ndarray:
    """Brain of a skull-stripped scan: the connected foreground with its holes filled.

    The background may have any one value, such as 0, -1 or -1024. Small differences from it around the brain
    (interpolation leaves some) count as background; dark fluid inside the brain counts as brain. A slab may end in the
    brain on two opposite faces. One slice is filled in its plane.

    Args:
        volume: a scan whose background was set to one value.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: the scan does not look skull-stripped: more foreground than a brain has, or foreground on more than
            5 % of the volume's faces (neck, noise) other than the two ends of a slab.
    """
    magnitude = np.abs(volume.data - background_level(volume.data))
    foreground = magnitude > _BACKGROUND_LEVEL * np.percentile(magnitude[magnitude > 0], 99)
    millilitres = foreground.sum() * _voxel_ml(volume)
    border = 1 - face_share(foreground)
    limit = _largest_ml(volume, foreground, border)
    if millilitres > limit:
        sides = " x ".join(f"{side:.3g}" for side in np.linalg.norm(volume.affine[:3, :3], axis=0))
        raise InputError(
            f"{volume.path}: does not look skull-stripped ({millilitres / 1000:.1f} litres of foreground in voxels of "
            f"{sides} mm, {100 * border:.0f} % of its faces are background); correct the voxel size if it is not so, "
            "give a brain mask, set the background to 0, or for a T1 scan set brain_mask to 'extract'"
        )
    box = ndimage.find_objects(foreground.astype(np.uint8))[0]
    brain = np.zeros_like(foreground)
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in range(3):
        if foreground.shape[axis] == 1:  # nothing lies before or behind a slice
            cross[tuple(slice(None, None, 2) if other == axis else slice(None) for other in range(3))] = False
    # Dark fluid on the surface drops under the level: closing brings it back where the file has values.
    closed = ndimage.binary_closing(foreground[box], cross, iterations=2) & (magnitude[box] > 0)
    brain[box] = ndimage.binary_fill_holes(main_components(foreground[box] | closed), cross)
    return brain


def background_level(data: np.ndarray) -> float:
    """The value of the background around a skull-stripped brain; 0 where the volume's faces do not agree on one.

    Args:
        data: `(X, Y, Z)`.
    """
    corner = data[0, 0, 0]
    return float(corner) if face_share(data == corner) >= _CLEAR_BORDER else 0.0


def extract_brain(volume: LoadedVolume) -> np.ndarray:
    """Fallback brain extraction from a T1 scan with skull: Otsu threshold, erosion, largest piece, dilation.

    Against the label maps of 31 healthy IXI scans at 2 mm its Dice is 0.95 on average and 0.91 at worst. It
    is meant for a first look; for results use the mask of a dedicated tool such as HD-BET or SynthStrip.

    Args:
        volume: a T1-weighted scan of the whole head.

    Returns:
        `(X, Y, Z)` bool in the scan's axis order.

    Raises:
        InputError: no piece of the size of a brain (0.5 to 1.8 litres) comes apart from the scalp.
    """
    if 1 in volume.data.shape:
        raise InputError(f"{volume.path}: one slice, and brain extraction needs a volume; give a brain mask")
    zoom = np.minimum(1.0, np.linalg.norm(volume.affine[:3, :3], axis=0) / _EXTRACTION_VOXEL_MM)
    coarse = ndimage.zoom(volume.data, zoom, order=1, grid_mode=True, mode="nearest")
    sampling = np.linalg.norm(volume.affine[:3, :3], axis=0) * volume.data.shape / coarse.shape
    coarse = np.clip(coarse, 0, np.percentile(coarse[coarse > 0], 99)) if (coarse > 0).any() else coarse
    tissue = coarse > _otsu_threshold(coarse)
    depth = ndimage.distance_transform_edt(tissue, sampling=sampling)
    for separation in _SEPARATION_MM:
        core = _largest_component(depth > separation)
        if not core.any():
            break
        grown = tissue & (ndimage.distance_transform_edt(~core, sampling=sampling) <= separation + 1)
        brain = _without_cord(ndimage.binary_fill_holes(_close(grown, sampling)), sampling)
        millilitres = brain.sum() * np.prod(sampling) / 1000
        if _SMALLEST_BRAIN_ML <= millilitres <= _LARGEST_EXTRACTED_ML:
            back = np.array(brain.shape) / volume.data.shape
            fine = ndimage.affine_transform(
                brain.astype(np.float32),
                back,
                offset=(back - 1) / 2,
                output_shape=volume.data.shape,
                order=1,
                mode="nearest",
            )
            return fine >= 0.5
    raise InputError(
        f"{volume.path}: the brain could not be told from the rest of the head; give a brain mask, for "
        "example from HD-BET or SynthStrip"
    )


def _close(mask: np.ndarray, sampling: np.ndarray) -> np.ndarray:
    """Closing with a ball of `_CLOSING_MM`; padded, so that the volume's border does not erode."""
    margin = [(int(np.ceil(_CLOSING_MM / size)) + 1,) * 2 for size in sampling]
    padded = np.pad(mask, margin)
    dilated = ndimage.distance_transform_edt(~padded, sampling=sampling) <= _CLOSING_MM
    closed = ndimage.distance_transform_edt(dilated, sampling=sampling) > _CLOSING_MM
    return closed[tuple(slice(before, -after) for before, after in margin)]


def _without_cord(brain: np.ndarray, sampling: np.ndarray) -> np.ndarray:
    """Opening that keeps what is close to the brain's bulk: spinal cord, nerves and vessels go."""
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    bulk = _largest_component(depth > _CORD_RADIUS_MM)
    if not bulk.any():
        return bulk
    near = ndimage.distance_transform_edt(~bulk, sampling=sampling) <= _CORD_RADIUS_MM + 4
    return _largest_component(brain & near)


def _otsu_threshold(values: np.ndarray) -> float:
    """Otsu's threshold: the level that maximises the variance between the two classes it makes."""
    import SimpleITK as sitk  # late: prepared scans need none of it

    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(256)
    otsu.SetReturnBinMidpoint(True)
    otsu.Execute(sitk.GetImageFromArray(values.astype(np.float32)))
    return otsu.GetThreshold()


def main_components(mask: np.ndarray, corners: bool = False) -> np.ndarray:
    """Components of at least 1 % of the largest one: specks go, a severed piece of brain stays.

    Args:
        mask: `(X, Y, Z)` bool.
        corners: voxels that touch at an edge or a corner belong together, not only those that share a face.
    """
    import SimpleITK as sitk  # late, as above

    find = sitk.ConnectedComponentImageFilter()
    find.SetFullyConnected(corners)
    labels = sitk.GetArrayFromImage(find.Execute(sitk.GetImageFromArray(mask.astype(np.uint8))))
    if find.GetObjectCount() <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= 0.01 * sizes.max())[labels] & mask


def _largest_component(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else mask


def face_share(mask: np.ndarray) -> float:
    """Share of the voxels on the volume's six faces, or on a slice's four edges, that are in a mask."""
    interior = mask[tuple(slice(1, -1) if size > 1 else slice(None) for size in mask.shape)]
    return float((mask.sum() - interior.sum()) / (mask.size - interior.size))


def _largest_ml(volume: LoadedVolume, foreground: np.ndarray, border: float) -> float:
    """How much foreground a skull-stripped scan can have whose faces are background to the share `border`."""
    if 1 in foreground.shape:
        thickness_mm = float(np.linalg.norm(volume.affine[:3, foreground.shape.index(1)]))
        return _LARGEST_SLICE_CM2 * thickness_mm / 10 if border >= _CLEAR_EDGE else 0.0
    return _LARGEST_BRAIN_ML if border >= _CLEAR_BORDER else _largest_slab_ml(volume, foreground)


def _largest_slab_ml(volume: LoadedVolume, foreground: np.ndarray) -> float:
    """How much of a brain a slab can hold that ends in it on two opposite faces; 0 for any other volume."""
    sides = [1 - max(foreground.take(end, axis).mean() for end in (0, -1)) for axis in range(3)]
    cut = int(np.argmin(sides))
    if min(side for axis, side in enumerate(sides) if axis != cut) < _CLEAR_BORDER:
        return 0.0
    thickness_mm = volume.data.shape[cut] * np.linalg.norm(volume.affine[:3, cut])
    return min(_LARGEST_BRAIN_ML, _LARGEST_SECTION_CM2 * thickness_mm / 10)


def _voxel_ml(volume: LoadedVolume) -> float:
    return abs(np.linalg.det(volume.affine[:3, :3])) / 1000
