"""The dark twin of a figure: ink turns light, pictures of brains stay what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from book_build import ROOT
from pddm_utils.show.style import INK

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from pictures import LIGHT, dark_twin

DRAW = """
import matplotlib.pyplot as plt
import numpy as np
from pddm_utils.show.style import book_style
book_style()
figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
left.imshow(np.zeros((4, 4)), cmap="gray")
right.plot([0, 1], color="#D55E00", lw=4)
right.plot([1, 0], color="#190005", lw=4)
right.set_title("letters")
figure.savefig("figure.png")
"""


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PDDM_BOOK", "1")
    subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, check=True)
    return tmp_path / "figure.png"


def test_ink_turns_light_and_the_rest_stays(figure: Path) -> None:
    before, after = np.array(Image.open(figure)), np.array(Image.open(dark_twin(figure, figure.parent)))
    np.testing.assert_array_equal(before[..., 3], after[..., 3])
    ink = (before[..., :3] == np.round(np.array(to_rgb(INK)) * 255)).all(axis=-1) & (before[..., 3] > 0)
    assert ink.sum() > 200 and (after[ink][:, :3] == LIGHT).all()
    pca = (before == (25, 0, 5, 255)).all(axis=-1)
    assert pca.sum() > 100 and (after[pca][:, :3].mean(axis=-1) > 120).all()
    for colour in ((0, 0, 0, 255), (213, 94, 0, 255)):  # a slice's ground, a line of data
        there = (before == colour).all(axis=-1)
        assert there.sum() > 100
        np.testing.assert_array_equal(before[there], after[there])


def test_a_picture_on_white_has_no_twin(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 4), 255, np.uint8)).save(tmp_path / "white.png")
    assert dark_twin(tmp_path / "white.png", tmp_path) is None
