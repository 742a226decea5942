"""The pieces of the chapters' figures show the right pixels in the right colours."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pddm_utils.show.figures import OUTCOME_COLOURS, outcome_keys, show_outcomes, show_slice


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_a_slice_is_shown_the_radiological_way(axes: Axes) -> None:
    plane = np.arange(12).reshape(3, 4)
    shown = show_slice(axes, plane, "slice", vmax=11)
    assert np.array_equal(shown.get_array(), plane[::-1, ::-1])
    assert shown.get_clim() == (0, 11)
    assert axes.get_title() == "slice"
    assert len(axes.collections) == 0


def test_only_a_lesion_is_outlined(axes: Axes) -> None:
    lesion = np.zeros((6, 6), dtype=bool)
    show_slice(axes, np.zeros((6, 6)), lesion=lesion)
    assert len(axes.collections) == 0
    lesion[2:4, 2:4] = True
    show_slice(axes, np.zeros((6, 6)), lesion=lesion)
    assert len(axes.collections) == 1


def test_outcomes_are_coloured_where_they_are(axes: Axes) -> None:
    predicted = np.array([[True, True, False, False]])
    lesion = np.array([[True, False, True, False]])
    show_outcomes(axes, np.zeros((1, 4)), predicted, lesion)
    layers = [np.asarray(image.get_array()) for image in axes.images[1:]]
    for place, (layer, colour) in enumerate(zip(layers, OUTCOME_COLOURS.values(), strict=True)):
        shown = layer[0, ::-1]  # back to the slice's own order
        assert np.flatnonzero(shown[:, 3]).tolist() == [place]
        assert np.allclose(shown[place, :3], to_rgb(colour))
    assert [key.get_label() for key in outcome_keys()] == list(OUTCOME_COLOURS)
