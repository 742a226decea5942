"""The moving picture of the front page: box after box is noised and rebuilt, then what differs, then the mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from pddm_utils.core.files import whole_file
from pddm_utils.data.examples import example_scan
from pddm_utils.data.scan import Scan
from pddm_utils.detection.model import load_model
from pddm_utils.diffusion.boxes import BoxGrid, noise_boxes, stitch
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.publish.method_picture import BOX_COLOUR, MODEL, noised_slice
from pddm_utils.show.figures import FOUND_COLOUR, RESIDUAL_COLOURS, telling_slice
from pddm_utils.show.style import colour_limit, frame_box, radiological

NOTE = "simulated scan and tumour; patient's right on the left"
_GROUND, _INK, _SOFT = "#15191f", "#ffffff", "#a9b1ba"
_PIXELS, _COLOURS = (660, 384), 64
_SHORT_MS, _LONG_MS = 700, 2200

Frame = tuple[str, np.ndarray, np.ndarray, tuple[int, ...] | None, int]  # title, left, right, box, milliseconds


def save_moving_picture(runs: Path, out: Path, subject: int = 0) -> None:
    """Write the GIF: a simulated scan with a tumour, as the shipped pDDPM of that cohort rebuilds it.

    Args:
        runs: prepared scans are kept here.
        out: the GIF to write, 660 x 384 pixels.
        subject: of `example_scan`.

    Raises:
        InputError: there is no such subject.
    """
    frames = list(moving_frames(example_scan("tumour", subject=subject, runs=runs)))
    first, *others = [_picture(*frame[:4]) for frame in frames]
    with whole_file(out) as partial:
        first.save(partial, "GIF", save_all=True, append_images=others, duration=[frame[4] for frame in frames], loop=0)


def moving_frames(scan: Scan) -> Iterator[Frame]:
    """The scan, each box with noise and rebuilt, the residual and the mask.

    Left planes are `(H, W)` in [0, 1], right ones too or `(H, W, 4)` colours.
    """
    model, index = load_model(MODEL), telling_slice(scan)
    pipeline, plane = model.pipeline, scan.image[index]
    clean, noised, level = noised_slice(plane, pipeline)
    boxes = BoxGrid(tuple(plane.shape), pipeline.config.box_size).boxes.flip(0)  # from the top left, as it is shown
    black = np.zeros_like(plane)
    predictions: list[torch.Tensor] = []
    yield "A scan. Is anything unusual in it?", plane, black, None, _LONG_MS
    for number, box in enumerate(boxes, start=1):
        seen = noise_boxes(clean, noised, box[None])
        so_far = _stitched(boxes[: number - 1], predictions, clean)
        yield f"Noise in box {number}, the rest stays", _unit(seen), so_far, tuple(box.tolist()), _SHORT_MS
        with torch.no_grad():
            predictions.append(pipeline.unet(seen, level).sample)
        rebuilt = _stitched(boxes[:number], predictions, clean)
        yield f"Box {number}, rebuilt as if healthy", _unit(seen), rebuilt, tuple(box.tolist()), _SHORT_MS
    yield "The slice, rebuilt", plane, rebuilt, None, _LONG_MS
    residual = np.abs(plane - rebuilt) * scan.brain_mask[index]
    coloured = plt.get_cmap(RESIDUAL_COLOURS)((residual / colour_limit(residual)).clip(0, 1))
    yield "What differs", plane, coloured, None, _LONG_MS
    whole = pipeline.reconstruct_volume(scan.image, scan.brain_mask, seed=0)
    found = anomaly_map(scan.image, whole, scan.brain_mask)[index] > model.threshold
    yield "Filtered and above the threshold: the mask", plane, _marked(plane, found), None, _LONG_MS


def _unit(slices: torch.Tensor) -> np.ndarray:
    return ((slices[0, 0].numpy() + 1) / 2).clip(0, 1)


def _stitched(boxes: torch.Tensor, predictions: list[torch.Tensor], clean: torch.Tensor) -> np.ndarray:
    """What is rebuilt so far, black elsewhere."""
    if not predictions:
        return np.zeros(clean.shape[-2:], dtype=np.float32)
    where = torch.zeros(len(boxes), dtype=torch.long)
    return _unit(stitch(torch.cat(predictions), boxes, where, 1, fill=-1.0))


def _marked(plane: np.ndarray, found: np.ndarray) -> np.ndarray:
    coloured = plt.get_cmap("gray")(plane)
    coloured[found] = (*[int(FOUND_COLOUR[place : place + 2], 16) / 255 for place in (1, 3, 5)], 1)
    return coloured


def _picture(title: str, left: np.ndarray, right: np.ndarray, box: tuple[int, ...] | None) -> Image.Image:
    """One frame with two panels."""
    figure = plt.figure(figsize=(_PIXELS[0] / 100, _PIXELS[1] / 100), dpi=100, facecolor=_GROUND)
    for place, plane in enumerate((left, right)):
        axes = figure.add_axes((0.015 + 0.495 * place, 0.07, 0.475, 0.475 * _PIXELS[0] / _PIXELS[1]))
        shown = radiological(plane) if plane.ndim == 2 else plane[::-1, ::-1]
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        if box:
            frame_box(axes, box, plane.shape, BOX_COLOUR, lw=2)
    figure.text(0.02, 0.94, title, color=_INK, fontsize=15, va="center")
    figure.text(0.02, 0.03, NOTE, color=_SOFT, fontsize=9, va="center")
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    plt.close(figure)
    return image.quantize(_COLOURS, dither=Image.Dither.NONE)
