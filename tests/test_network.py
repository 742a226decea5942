"""Named network sizes."""

from __future__ import annotations

import pytest
import torch

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.network import make_network, parameter_count


def test_paper_network_has_the_published_size() -> None:
    with torch.device("meta"):
        network = make_network("paper")
    assert parameter_count(network) == 37_513_345  # reproduction sheet, on UNet2DModel
    assert network.config.resnet_time_scale_shift == "scale_shift"


def test_small_network_maps_slices_to_slices() -> None:
    network = make_network("smoke", 32)
    output = network(torch.zeros(2, 1, 32, 32), torch.tensor([0, 999])).sample
    assert output.shape == (2, 1, 32, 32)


def test_unknown_name_and_odd_size_are_refused() -> None:
    with pytest.raises(InputError, match="choose one of smoke, laptop, wide, middle, paper"):
        make_network("large")
    with pytest.raises(InputError, match="multiple of 8"):
        make_network("laptop", 90)
