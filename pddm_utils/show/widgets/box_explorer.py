"""Interactive box grids: which boxes cover a pixel, and how their predictions are averaged."""

from __future__ import annotations

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.show.figures import slice_name, telling_slice
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import check_slices, pack_image, pack_palette, script

GRID_COLOUR, COVERING_COLOUR = "#9aa4ad", "#E69F00"
SMALLEST_BOX, STEP = 8, 4  # pixels: where the sliders start, and their step


class BoxExplorer(InteractiveFigure):
    """Sliders over box size and stride; pointing at a pixel tells which boxes its value is the mean of."""

    _esm = script("boxes")


def explore_boxes(scan: Scan, slice_index: int | None = None, box_size: int = 48, stride: int = 24) -> BoxExplorer:
    """Explore grids of boxes over one slice and how their predictions are stitched (Behrendt et al. 2023, section 3).

    No model runs: each box predicts the slice plus an error of its own, so that seams and averages can be seen.

    Args:
        scan: a prepared scan.
        slice_index: which slice; the one with most lesion (or brain) when left out.
        box_size: shown first, pixels: 8, 12, 16, ... up to the slice.
        stride: shown first, pixels: 4, 8, 12, ... up to the box.

    Raises:
        InputError: no such slice, or sizes that the sliders cannot show.

    Example:
        >>> explore_boxes(scan, box_size=40, stride=40)  # doctest: +SKIP
    """
    index = telling_slice(scan) if slice_index is None else slice_index
    check_slices(scan, [index])
    height, width = scan.image.shape[1:]
    BoxGrid((height, width), box_size, stride)
    if box_size < SMALLEST_BOX or box_size % STEP or stride % STEP:
        raise InputError(
            f"box_size={box_size}, stride={stride}; pass multiples of {STEP}, a box of at least {SMALLEST_BOX} pixels"
        )
    return BoxExplorer(
        frames={
            "title": f"Boxes and stitching: {scan.dataset}, {scan.subject}, {slice_name(scan, index)}",
            "size": [height, width],
            "box": box_size,
            "stride": stride,
            "pixel": [height // 2, width // 3],
            "colours": {"grid": GRID_COLOUR, "covering": COVERING_COLOUR},
            "palette": pack_palette(),
            "image": pack_image(scan.image[index]),
        }
    )
