"""Boxes: where a patched diffusion model is noised, and how its predictions become one slice again.

A box is an integer row `(top, left, height, width)` in pixels and always lies inside the image. Whole-image
diffusion is the special case of one box that has the size of the image.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.noise import Generators

Size = int | Sequence[int]

_STITCH_CHUNK = 256  # predictions summed at once: bounds the memory of the double-precision sums


def _pair(value: Size, name: str) -> tuple[int, int]:
    """A size given as one integer or as (height, width), checked to be positive integers."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        pair = tuple(operator.index(item) for item in values)
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < 1 or any(isinstance(item, bool) for item in values):
        raise InputError(f"{name}: {value!r} is not a size; pass a positive integer or (height, width)")
    return pair


def _image_and_box(image_size: Size, box_size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    image, box = _pair(image_size, "image_size"), _pair(box_size, "box_size")
    if box[0] > image[0] or box[1] > image[1]:
        raise InputError(f"box_size: {box} does not fit into the image {image}; pass a smaller box")
    return image, box


def _starts(image: int, box: int, stride: int) -> torch.Tensor:
    """First pixels of the boxes along one axis; the last box is shifted inward to end at the border."""
    last = image - box
    return torch.tensor([*range(0, last, stride), last], dtype=torch.int64)


@dataclass(frozen=True, init=False)
class BoxGrid:
    """A fixed grid of equal boxes that covers every pixel of an image.

    Boxes start every `stride` pixels; where the stride does not fit, the last one of an axis is shifted
    inward, so that none reaches outside. The paper's grid is `BoxGrid(96, 48)`: 2 x 2 boxes (section 3).

    Args:
        image_size: image side or (height, width), pixels.
        box_size: box side or (height, width), pixels, at most the image.
        stride: step between boxes, pixels, at least 1 and at most the box; the box size when left out.

    Raises:
        InputError: a size that is not a positive integer, a box larger than the image, or a stride larger
            than the box (pixels between two boxes would not be covered).

    Example:
        >>> BoxGrid(96, 48).boxes.tolist()
        [[0, 0, 48, 48], [0, 48, 48, 48], [48, 0, 48, 48], [48, 48, 48, 48]]
        >>> len(BoxGrid(96, 96))
        1
    """

    image_size: tuple[int, int]
    box_size: tuple[int, int]
    stride: tuple[int, int]

    def __init__(self, image_size: Size, box_size: Size, stride: Size | None = None) -> None:
        image, box = _image_and_box(image_size, box_size)
        step = box if stride is None else _pair(stride, "stride")
        if step[0] > box[0] or step[1] > box[1]:
            raise InputError(f"stride: {step} leaves gaps between boxes of {box}; pass at most the box size")
        for name, value in (("image_size", image), ("box_size", box), ("stride", step)):
            object.__setattr__(self, name, value)

    @cached_property
    def boxes(self) -> torch.Tensor:
        """All boxes, int64 (N, 4), row by row from the top left."""
        tops, lefts = map(_starts, self.image_size, self.box_size, self.stride)
        corners = torch.cartesian_prod(tops, lefts)
        return torch.cat([corners, torch.tensor([self.box_size]).expand(len(corners), 2)], dim=1)

    @cached_property
    def coverage(self) -> torch.Tensor:
        """Number of boxes over each pixel, int64 (H, W), at least 1."""
        counts = []
        for image, box, stride in zip(self.image_size, self.box_size, self.stride, strict=True):
            distance = torch.arange(image)[:, None] - _starts(image, box, stride)
            counts.append(((distance >= 0) & (distance < box)).sum(dim=1))
        return counts[0][:, None] * counts[1]

    def __len__(self) -> int:
        return len(self.boxes)


class Boxes(NamedTuple):
    """Boxes of several slices.

    Attributes:
        rows: integer (P, 4) rows (top, left, height, width).
        slice_index: integer (P,), the slice each lies in.
    """

    rows: torch.Tensor
    slice_index: torch.Tensor


def grid_boxes(grid: BoxGrid, mask: torch.Tensor) -> Boxes:
    """The boxes of a grid that hold any pixel of a mask, slice by slice.

    Args:
        grid: of the mask's image size.
        mask: (S, 1, H, W), the brain: bool, or numbers of which nonzero counts.

    Returns:
        Boxes on the device of `mask`.

    Raises:
        InputError: a mask of another shape.
    """
    pairs = boxes_with_content(grid.boxes, mask).nonzero()  # (P, 2): slice, box
    return Boxes(grid.boxes.to(mask.device)[pairs[:, 1]], pairs[:, 0])


def _draw_integers(upper: int, count: int, generator: Generators) -> torch.Tensor:
    """`count` integers uniform over [0, upper), the i-th from the i-th generator of a list."""
    if isinstance(generator, list):
        if len(generator) != count:
            raise InputError(f"generator: {len(generator)} generators for {count} samples; pass one per sample")
        return torch.cat([torch.randint(upper, (1,), generator=g, device=g.device) for g in generator])
    device = None if generator is None else generator.device
    return torch.randint(upper, (count,), generator=generator, device=device)


def random_boxes(
    batch: int, image_size: Size, box_size: Size, generator: Generators = None, cut: bool = False
) -> torch.Tensor:
    """One random box per sample, at any pixel position.

    Equal boxes inside the image cannot cover all pixels equally often unless they are the cells of a grid
    that divides it: pixels i - 1 and i are covered equally only if starts i - box and i are equally likely,
    and no start is negative or beyond image - box. So choose: whole boxes, uniform over the positions inside,
    with the coverage of `coverage_probability`; or `cut=True`, where a box may start up to box - 1 pixels
    outside and is cut at the border: exactly uniform coverage, smaller boxes there; or `random_grid_boxes`.

    Args:
        batch: number of boxes B.
        image_size: image side or (height, width), pixels.
        box_size: box side or (height, width), pixels, at most the image.
        generator: one generator, one per sample, or None for the global one.
        cut: exactly uniform coverage by boxes cut at the border.

    Returns:
        int64 (B, 4) rows (top, left, height, width), on the generator's device.

    Raises:
        InputError: bad sizes, or a list of generators of another length than the batch.
    """
    image, box = _image_and_box(image_size, box_size)
    outside = (box[0] - 1, box[1] - 1) if cut else (0, 0)
    rows, columns = (n - b + 1 + 2 * o for n, b, o in zip(image, box, outside, strict=True))
    position = _draw_integers(rows * columns, batch, generator)
    start = torch.stack([position // columns - outside[0], position % columns - outside[1]], dim=1)
    stop = start + start.new_tensor(box)
    start, stop = start.clamp(min=0), torch.minimum(stop, stop.new_tensor(image))
    return torch.cat([start, stop - start], dim=1)


def random_grid_boxes(batch: int, grid: BoxGrid, generator: Generators = None) -> torch.Tensor:
    """One random cell of a fixed grid per sample: the paper's sampling in training (section 3).

    Coverage is exactly uniform when the cells divide the image; otherwise it is `grid.coverage / len(grid)`.

    Args:
        batch: number of boxes B.
        grid: the grid to draw from.
        generator: one generator, one per sample, or None for the global one.

    Returns:
        int64 (B, 4) rows (top, left, height, width), on the generator's device.

    Raises:
        InputError: a list of generators of another length than the batch.
    """
    cell = _draw_integers(len(grid), batch, generator)
    return grid.boxes.to(cell.device)[cell]


def coverage_probability(image_size: Size, box_size: Size, cut: bool = False) -> torch.Tensor:
    """Exact probability that a box of `random_boxes` covers each pixel, for reweighting a loss.

    Args:
        image_size: image side or (height, width), pixels.
        box_size: box side or (height, width), pixels, at most the image.
        cut: as in `random_boxes`; the probability is then the same everywhere.

    Returns:
        float64 (H, W), in (0, 1].

    Raises:
        InputError: bad sizes.

    Example:
        >>> coverage_probability((1, 4), (1, 2)).tolist()
        [[0.3333333333333333, 0.6666666666666666, 0.6666666666666666, 0.3333333333333333]]
    """
    axes = []
    for image, box in zip(*_image_and_box(image_size, box_size), strict=True):
        if cut:
            axes.append(torch.full((image,), box / (image + box - 1), dtype=torch.float64))
            continue
        pixel = torch.arange(image, dtype=torch.float64)
        starts = pixel.clamp(max=image - box) - (pixel - box + 1).clamp(min=0) + 1
        axes.append(starts / (image - box + 1))
    return axes[0][:, None] * axes[1]


def _check_boxes(boxes: torch.Tensor, image_size: Sequence[int]) -> None:
    """Refuse rows that are not boxes inside the image."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.is_floating_point() or boxes.dtype == torch.bool:
        raise InputError(f"boxes: {boxes.dtype} {tuple(boxes.shape)}; pass integer rows (top, left, height, width)")
    stop = boxes[:, :2] + boxes[:, 2:]
    wrong = (boxes[:, :2] < 0) | (boxes[:, 2:] < 1) | (stop > stop.new_tensor(image_size))
    if wrong.any():
        row = boxes[wrong.any(dim=1)][0].tolist()
        raise InputError(f"boxes: {row} is not inside the image {image_size}; pass boxes of this image")


def box_mask(boxes: torch.Tensor, image_size: Size) -> torch.Tensor:
    """Masks of boxes: M_p of the paper (section 3).

    Args:
        boxes: integer (B, 4) rows (top, left, height, width).
        image_size: image side or (height, width), pixels.

    Returns:
        bool (B, 1, H, W), True inside the box, on the device of the boxes.

    Raises:
        InputError: rows that are not boxes inside the image.
    """
    image = _pair(image_size, "image_size")
    _check_boxes(boxes, image)
    inside = []
    for axis, size in enumerate(image):
        distance = torch.arange(size, device=boxes.device) - boxes[:, axis, None]
        inside.append((distance >= 0) & (distance < boxes[:, axis + 2, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def noise_boxes(clean: torch.Tensor, noisy: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Noise inside the box, clean context outside: x~_t = M_p x_t + (1 - M_p) x_0 (section 3).

    The context is the clean image bit for bit.

    Args:
        clean: x_0, (B, C, H, W), or (1, C, H, W) for several boxes of one slice.
        noisy: x_t, same shape up to broadcasting.
        boxes: integer (B, 4) rows (top, left, height, width), on any device.

    Returns:
        (B, C, H, W) on the device of `clean`.

    Raises:
        InputError: images of different sizes, or rows that are not boxes inside the image.
    """
    if clean.ndim != 4 or clean.shape[-2:] != noisy.shape[-2:]:
        raise InputError(
            f"noise_boxes: clean {tuple(clean.shape)} and noisy {tuple(noisy.shape)} do not match; "
            "pass two (B, C, H, W) batches of one image size"
        )
    mask = box_mask(boxes, tuple(clean.shape[-2:])).to(clean.device)
    return torch.where(mask, noisy, clean)


def boxes_with_content(boxes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Which boxes of each slice hold any pixel of a mask, so that empty ones can be skipped.

    Args:
        boxes: integer (N, 4) rows (top, left, height, width), on any device.
        mask: (S, 1, H, W), the brain: bool, or numbers of which nonzero counts.

    Returns:
        bool (S, N) on the device of `mask`.

    Raises:
        InputError: a mask of another shape, or rows that are not boxes inside the image.
    """
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise InputError(f"mask: shape {tuple(mask.shape)}; pass (S, 1, H, W)")
    _check_boxes(boxes, tuple(mask.shape[-2:]))
    sums = (mask[:, 0] != 0).cumsum(dim=1).cumsum(dim=2)  # summed-area table: four look-ups a box
    sums = torch.nn.functional.pad(sums, (1, 0, 1, 0))
    top, left, height, width = boxes.to(mask.device).unbind(dim=1)
    bottom, right = top + height, left + width
    count = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
    return count > 0


def _add_at(total: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """total[index] += values with repeated indices, summed in a fixed order on every device."""
    if total.device.type == "cuda":
        total.index_put_((index,), values, accumulate=True)  # sorts; index_add_ adds in any order there
    else:
        total.index_add_(0, index, values)


def _check_stitch(predictions: torch.Tensor, boxes: torch.Tensor, slice_index: torch.Tensor, num_slices: int) -> None:
    """Refuse predictions, boxes and slice numbers that do not belong together."""
    if predictions.ndim != 4 or predictions.shape[1] != 1:
        raise InputError(f"predictions: shape {tuple(predictions.shape)}; pass (K, 1, H, W)")
    _check_boxes(boxes, tuple(predictions.shape[-2:]))
    if not len(predictions) == len(boxes) == slice_index.numel() or slice_index.ndim != 1:
        raise InputError(
            f"stitch: {len(predictions)} predictions, {len(boxes)} boxes, "
            f"slice_index {tuple(slice_index.shape)}; pass one box and one slice number per prediction"
        )
    if len(slice_index) and not 0 <= int(slice_index.min()) <= int(slice_index.max()) < num_slices:
        raise InputError(f"slice_index: must lie in [0, {num_slices}); pass the slice of each prediction")


def _pixel_weights(
    weights: torch.Tensor | None, shape: torch.Size, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Weights of a shape (K, 1, H, W), expanded without a copy from one per prediction, or from none."""
    if weights is None:
        return torch.ones(1, device=device, dtype=dtype).expand(shape)
    if (weights < 0).any() or not torch.isfinite(weights).all():
        raise InputError("weights: negative or not finite; pass nonnegative weights")
    weights = weights[:, None, None, None] if weights.ndim == 1 else weights
    try:
        return weights.to(device, dtype).expand(shape)
    except RuntimeError:
        raise InputError(
            f"weights: shape {tuple(weights.shape)} for predictions {tuple(shape)}; "
            "pass one weight per prediction or (K, 1, H, W)"
        ) from None


def stitch(
    predictions: torch.Tensor,
    boxes: torch.Tensor,
    slice_index: torch.Tensor,
    num_slices: int,
    weights: torch.Tensor | None = None,
    fill: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    """Whole slices from predicted boxes; where boxes overlap, the (weighted) mean of the predictions.

    Each prediction is a whole network output, of which only its box counts. Sums are kept in double
    precision, so equal predictions average to exactly themselves.

    Args:
        predictions: (K, 1, H, W) network outputs.
        boxes: integer (K, 4) rows (top, left, height, width), the box each prediction is for.
        slice_index: integer (K,), the slice each prediction belongs to, in [0, num_slices).
        num_slices: number of slices S.
        weights: nonnegative, (K,) or broadcastable to (K, 1, H, W); equal weights when left out.
        fill: value where no box (or only weight 0) covers a pixel; a number or a tensor that broadcasts to
            (S, 1, H, W).

    Returns:
        (S, 1, H, W), float32 (float64 for float64 predictions), on the device of the predictions.

    Raises:
        InputError: shapes, boxes, slice numbers or weights that do not fit.
    """
    _check_stitch(predictions, boxes, slice_index, num_slices)
    device, (height, width) = predictions.device, predictions.shape[-2:]
    pixels = height * width
    precise = torch.float32 if device.type == "mps" else torch.float64
    boxes, index = boxes.to(device), slice_index.to(device, torch.int64)
    weights = _pixel_weights(weights, predictions.shape, device, precise)
    total = torch.zeros(num_slices * pixels, device=device, dtype=precise)
    coverage = torch.zeros_like(total)
    for part in torch.arange(len(predictions), device=device).split(_STITCH_CHUNK):
        # only pixels in boxes are touched, so a prediction that is not finite elsewhere does not leak in
        inside = box_mask(boxes[part], (height, width)).flatten().nonzero()[:, 0]
        move = (index[part] - torch.arange(len(part), device=device)) * pixels  # from here to its slice
        place = inside + move.repeat_interleave(boxes[part, 2] * boxes[part, 3])
        values = predictions[part].flatten()[inside].to(precise)
        weight = weights[part].flatten()[inside]
        _add_at(total, place, values * weight)
        _add_at(coverage, place, weight)
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    mean = (total / coverage).view(num_slices, 1, height, width).to(dtype)
    return torch.where(coverage.view_as(mean) > 0, mean, torch.as_tensor(fill, device=device, dtype=dtype))
