"""The moving picture of the front page shows what the pipeline does, in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pddm_utils.data.examples import example_scan
from pddm_utils.publish.moving_picture import moving_frames, save_moving_picture
from pddm_utils.show.figures import telling_slice


def test_every_box_is_noised_and_rebuilt_and_nothing_else_changes(tmp_path: Path) -> None:
    scan = example_scan("tumour", runs=tmp_path)
    plane = scan.image[telling_slice(scan)]
    frames = list(moving_frames(scan))
    noised = [(left, box) for _, left, _, box, _ in frames if box is not None][::2]
    assert len(frames) == 1 + 2 * len(noised) + 3
    covered = np.zeros(plane.shape, dtype=int)
    for left, (top, start, rows, columns) in noised:
        inside = np.zeros(plane.shape, dtype=bool)
        inside[top : top + rows, start : start + columns] = True
        covered += inside
        np.testing.assert_allclose(left[~inside], plane[~inside], atol=1e-6)
        assert np.abs(left[inside] - plane[inside]).mean() > 0.2
    assert (covered == 1).all()
    rebuilt = next(right for title, _, right, _, _ in frames if "slice, rebuilt" in title)
    assert 0 < np.abs(rebuilt - plane).mean() < 0.1


def test_the_file_is_an_endless_gif_of_less_than_a_megabyte(tmp_path: Path) -> None:
    save_moving_picture(tmp_path / "runs", tmp_path / "method.gif")
    picture = Image.open(tmp_path / "method.gif")
    assert picture.n_frames == 12 and picture.size == (660, 384) and picture.info["loop"] == 0
    assert (tmp_path / "method.gif").stat().st_size < 1_000_000
