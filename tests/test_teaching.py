"""The pieces of the chapters' figures show the right pixels in the right colours."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pddm_utils import example_scan
from pddm_utils.core.shipped import weights_root
from pddm_utils.diffusion.network import parameter_count
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


def test_the_weights_that_sample_draw_brains_and_those_of_the_comparison_do_not() -> None:
    """Chapter 06 shows both."""
    choices = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler(**choices)
    scheduler.set_timesteps(10)
    bright = {}
    for name, folder in (("squared", "simulated-t2-sampler"), ("absolute", "simulated-t2-ddpm/unet")):
        network = UNet2DModel.from_pretrained(weights_root() / folder, low_cpu_mem_usage=False)
        assert parameter_count(network) == 647_297
        drawn = torch.randn(4, 1, 96, 96, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for t in scheduler.timesteps:
                drawn = scheduler.step(network(drawn, t).sample, t, drawn).prev_sample
        bright[name] = float((drawn > -0.7).float().mean())
    shares = (example_scan("healthy", split="val").image * 2 - 1 > -0.7).mean(axis=(1, 2))
    assert shares.mean() < bright["squared"] < shares.max(), "as much tissue as slices have"
    assert bright["absolute"] < 0.6 * bright["squared"], "medians lose it on the way"
