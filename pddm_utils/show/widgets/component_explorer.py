"""Interactive PCA: one slice rebuilt from more and more principal components, healthy anatomy and lesion alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.show.figures import slice_name, telling_slice
from pddm_utils.show.style import LESION_COLOUR, radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import (
    check_slices,
    common_limit,
    pack,
    pack_image,
    pack_palette,
    script,
)


class ComponentExplorer(InteractiveFigure):
    """A slider over the number of components K: reconstruction, residual, and what K costs and buys."""

    _esm = script("components")


def explore_components(
    scan: Scan,
    rebuilt: Mapping[int, np.ndarray],
    missed: Sequence[float],
    copied: Sequence[float],
    slice_index: int | None = None,
) -> ComponentExplorer:
    """Move through the number of principal components that one slice is rebuilt from.

    Args:
        scan: a prepared scan with a lesion.
        rebuilt: the slice `(H, W)` in [0, 1] as rebuilt from each number of components, rising numbers.
        missed: for each number the share of the healthy twin that is not rebuilt, 0-1.
        copied: for each number the share of the lesion's change that is rebuilt, 0-1.
        slice_index: which slice; the one with most lesion when left out.

    Raises:
        InputError: no reconstruction, another shape than the slice's, no such slice, numbers that do not rise, or
            shares that are not one for each number in [0, 1].

    Example:
        >>> explore_components(scan, {4: coarse, 64: fine}, [0.4, 0.1], [0.0, 0.2])  # doctest: +SKIP
    """
    index = telling_slice(scan) if slice_index is None else slice_index
    check_slices(scan, [index])
    counts, planes = list(rebuilt), list(rebuilt.values())
    if not counts or counts != sorted(counts) or any(plane.shape != scan.image.shape[1:] for plane in planes):
        raise InputError(f"rebuilt: components {counts}; pass slices of shape {scan.image.shape[1:]}, numbers rising")
    for name, shares in (("missed", missed), ("copied", copied)):
        if len(shares) != len(counts) or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"{name}: pass a share between 0 and 1 for each of {len(counts)} numbers of components")
    residuals = np.abs(scan.image[index] - np.stack(planes))
    return ComponentExplorer(
        frames={
            "title": f"PCA: {scan.dataset}, {scan.subject}, {slice_name(scan, index)}",
            "size": list(scan.image.shape[1:]),
            "counts": counts,
            "start": len(counts) // 2,
            "limit": common_limit(float(np.percentile(residuals, 99.5))),
            "missed": [round(float(share), 4) for share in missed],
            "copied": [round(float(share), 4) for share in copied],
            "lesion_colour": LESION_COLOUR,
            "palette": pack_palette(),
            "image": pack_image(scan.image[index]),
            "lesion": pack(radiological(scan.lesion_mask[index])),
            "rebuilt": pack_image(np.stack(planes)),
        }
    )
