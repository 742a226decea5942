"""The network that reconstruction uses: the same predictions with less work."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from pddm_utils.diffusion.fast_cpu import inference_network
from pddm_utils.diffusion.network import NETWORKS, make_network


def randomised(network: UNet2DModel) -> UNet2DModel:
    """Weights in which no bias, scale or projection is at its first value, where a mistake could hide."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("name", "height", "width"), [("smoke", 32, 32), ("laptop", 96, 96), ("wide", 64, 40)])
@pytest.mark.parametrize("timestep", [0, 499, 818])
@torch.inference_mode()
def test_predicts_what_the_network_predicts(name: str, height: int, width: int, timestep: int) -> None:
    torch.manual_seed(0)
    network = randomised(make_network(name, 96))
    slices = torch.randn(3, 1, height, width)
    expected = network(slices, timestep).sample
    assert expected.std() > 0.1
    fast = inference_network(network, timestep)
    assert fast is not network
    torch.testing.assert_close(fast(slices, timestep).sample, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    kept = inference_network(network)  # the timestep stays an input
    for same in (timestep, torch.tensor(timestep), torch.full((3,), timestep)):
        torch.testing.assert_close(kept(slices, same).sample, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@torch.inference_mode()
def test_leaves_the_network_as_it_was_and_ignores_other_timesteps() -> None:
    network = randomised(make_network("smoke", 32))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    slices = torch.randn(2, 1, 32, 32)
    fast = inference_network(network, 100)
    torch.testing.assert_close(fast(slices, 700).sample, fast(slices, 100).sample, rtol=0, atol=0)
    assert (network(slices, 700).sample - network(slices, 100).sample).abs().max() > 1e-3
    assert before.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) and value.stride() == before[name].stride(), name


@torch.inference_mode()
def test_a_code_per_slice_is_added_to_the_kept_time_embedding() -> None:
    network = randomised(make_network("smoke", 32, class_embed_type="identity"))
    slices, codes = torch.randn(2, 1, 32, 32), torch.randn(2, 32)
    expected = network(slices, 499, class_labels=codes).sample
    assert (expected - network(slices, 499, class_labels=codes.flip(0)).sample).abs().max() > 1e-3
    torch.testing.assert_close(
        inference_network(network)(slices, 499, class_labels=codes).sample,
        expected,
        atol=1e-5 * float(expected.abs().max()),
        rtol=0,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {**NETWORKS["paper"], "block_out_channels": (32, 64, 64), "attention_head_dim": 16},
        {**NETWORKS["smoke"], "add_attention": True, "attention_head_dim": 8},
        {**NETWORKS["smoke"], "out_channels": 2},
        {**NETWORKS["smoke"], "downsample_padding": 0},
        {**NETWORKS["smoke"], "resnet_time_scale_shift": "scale_shift"},
        {**NETWORKS["smoke"], "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")},
    ],
    ids=["paper", "attention", "channels", "padding", "scale", "attention below"],
)
def test_networks_of_other_blocks_come_back_as_they_are(changes: dict) -> None:
    network = UNet2DModel(**{"sample_size": 32, "in_channels": 1, "out_channels": 1, **changes})
    assert inference_network(network, 499) is network


@torch.inference_mode()
def test_follows_changed_weights_when_made_anew() -> None:
    network, slices = randomised(make_network("smoke", 32)), torch.randn(1, 1, 32, 32)
    before = inference_network(network, 499)(slices, 499).sample
    randomised(network)
    after = inference_network(network, 499)(slices, 499).sample
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, network(slices, 499).sample, atol=1e-5 * float(after.abs().max()), rtol=0)
