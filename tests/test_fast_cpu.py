"""The faster form of reconstruction on a CPU: off by default; the same predictions with less work, and kept memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from diffusers import UNet2DModel

from pddm_utils.diffusion.fast_cpu import fast_cpu, for_inference
from pddm_utils.diffusion.network import NETWORKS, make_network
from pddm_utils.methods.cddpm import ConditionedUNet


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    fast_cpu()
    yield
    fast_cpu(on=False)


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
    fast = for_inference(network, timestep)
    assert fast is not network
    torch.testing.assert_close(fast(slices, timestep).sample, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    kept = for_inference(network)  # the timestep stays an input
    for same in (timestep, torch.tensor(timestep), torch.full((3,), timestep)):
        torch.testing.assert_close(kept(slices, same).sample, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@torch.inference_mode()
def test_leaves_the_network_as_it_was_and_ignores_other_timesteps() -> None:
    network = randomised(make_network("smoke", 32))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    slices = torch.randn(2, 1, 32, 32)
    fast = for_inference(network, 100)
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
        for_inference(network)(slices, 499, class_labels=codes).sample,
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
    assert for_inference(network, 499) is network


@torch.inference_mode()
def test_follows_changed_weights_when_made_anew() -> None:
    network, slices = randomised(make_network("smoke", 32)), torch.randn(1, 1, 32, 32)
    before = for_inference(network, 499)(slices, 499).sample
    randomised(network)
    after = for_inference(network, 499)(slices, 499).sample
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, network(slices, 499).sample, atol=1e-5 * float(after.abs().max()), rtol=0)


def test_off_it_leaves_networks_alone() -> None:
    network = make_network("smoke", 32).eval()
    assert for_inference(network, 499) is not network
    fast_cpu(on=False)
    assert for_inference(network, 499) is network


@torch.inference_mode()
def test_a_unet_inside_another_module_is_exchanged_and_the_module_stays_as_it_was() -> None:
    network = ConditionedUNet("smoke", 32)
    unet = randomised(network).unet
    slices, steps = torch.randn(2, 1, 32, 32), torch.tensor([499, 499])
    fast = for_inference(network)
    assert network.unet is unet and fast.unet is not unet and fast.encoder is network.encoder
    expected = network(slices, steps, slices)
    torch.testing.assert_close(fast(slices, steps, slices), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


_COUNT = """
import resource, sys
import numpy as np
from pddm_utils.diffusion.fast_cpu import fast_cpu
if sys.argv[1] == "keep":
    fast_cpu()
def use():  # what two layers of a network do: each array is written and freed
    first = np.ones(2**20)
    second = first + 1
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    def page_faults(what: str) -> int:
        """Pages the system had to clear, in a process of its own."""
        done = subprocess.run([sys.executable, "-c", _COUNT, what], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert page_faults("keep") * 10 < page_faults("give back")
