"""Interactive box grids: which boxes cover a pixel, and how their predictions are averaged."""

from __future__ import annotations

import numpy as np
import torch

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.boxes import BoxGrid, stitch
from pddm_utils.show.figures import slice_name, telling_slice
from pddm_utils.show.style import radiological
from pddm_utils.show.widgets.interactive import InteractiveFigure
from pddm_utils.show.widgets.packing import TOP_LEVEL, check_slices, pack_image, pack_palette, script, unpack

GRID_COLOUR, COVERING_COLOUR = "#9aa4ad", "#E69F00"
SMALLEST_BOX, STEP = 8, 4  # pixels: where the sliders start, and their step


def made_up_errors(count: int) -> np.ndarray:
    """An error for each box, int64 `(count,)` in grey levels from -30 to 30: what a seam would look like."""
    return np.arange(count) * 37 % 61 - 30


class BoxExplorer(InteractiveFigure):
    """Sliders over box size and stride; pointing at a pixel tells which boxes its value is the mean of."""

    _esm = script("boxes")

    def coverage(self, box_size: int, stride: int) -> np.ndarray:
        """Number of boxes over each pixel, int64 `(H, W)` as displayed."""
        return radiological(BoxGrid(tuple(self.frames["size"]), box_size, stride).coverage.numpy())

    def stitched(self, box_size: int, stride: int) -> np.ndarray:
        """Grey levels of the slice stitched from made-up predictions, uint8 `(H, W)` as displayed.

        The prediction of box k is the slice plus `made_up_errors` k; `stitch` averages where boxes overlap.
        """
        size = tuple(self.frames["size"])
        grid = BoxGrid(size, box_size, stride)
        image = torch.from_numpy(radiological(unpack(self.frames["image"], size)).astype(np.float64))
        predictions = image[None, None] + torch.from_numpy(made_up_errors(len(grid)))[:, None, None, None]
        whole = stitch(predictions, grid.boxes, torch.zeros(len(grid), dtype=torch.long), 1)[0, 0].numpy()
        return np.floor(radiological(whole).clip(0, TOP_LEVEL) + 0.5).clip(0, TOP_LEVEL).astype(np.uint8)


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
