"""Named sizes of the U-Net that predicts x_0; the whole-image and the patched model share it."""

from __future__ import annotations

from typing import Any

from diffusers import UNet2DModel
from torch import nn

from pddm_utils.core.errors import InputError


def _plain(channels: tuple[int, ...]) -> dict[str, Any]:
    levels = len(channels)
    return {
        "block_out_channels": channels,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D",) * levels,
        "up_block_types": ("UpBlock2D",) * levels,
        "norm_num_groups": 8,
        "add_attention": False,
    }


NETWORKS: dict[str, dict[str, Any]] = {
    "smoke": _plain((8, 8, 16)),  # for tests: two steps a second
    "laptop": _plain((16, 16, 32, 64)),  # 0.65 M parameters, about 0.7 s a step of 16 slices on one core
    "wide": _plain((32, 32, 64, 64)),  # 1.2 M parameters, about 1.8 s a step of 16 slices on one core
    "middle": _plain((64, 64, 128, 128)),  # 4.6 M parameters, for a GPU
    # Behrendt et al. 2023: 128 base channels, multipliers 1-2-2, three residual blocks a level, attention in the
    # bottleneck.
    "paper": {
        "block_out_channels": (128, 256, 256),
        "layers_per_block": 3,
        "down_block_types": ("ResnetDownsampleBlock2D",) * 3,
        "up_block_types": ("ResnetUpsampleBlock2D",) * 3,
        "attention_head_dim": 64,
        "resnet_time_scale_shift": "scale_shift",
    },
}


def make_network(name: str, image_size: int = 96, **options: Any) -> UNet2DModel:
    """Build an untrained `UNet2DModel` with one input and one output channel.

    Args:
        name: `smoke`, `laptop`, `wide`, `middle` or `paper` (37,513,345 parameters, the paper's reproduction sheet).
        image_size: height and width of a slice in pixels; must divide by two at every level.
        options: further arguments of `UNet2DModel`.

    Returns:
        A network from `(B, 1, H, W)` in [-1, 1] and timesteps `(B,)` to a prediction of x_0 of the same shape.

    Raises:
        InputError: unknown name, or a size that does not halve evenly.
    """
    if name not in NETWORKS:
        raise InputError(f"network {name!r} does not exist; choose one of {', '.join(NETWORKS)}")
    halvings = len(NETWORKS[name]["block_out_channels"]) - 1
    if image_size % 2**halvings:
        raise InputError(f"image size {image_size} does not halve {halvings} times; use a multiple of {2**halvings}")
    return UNet2DModel(sample_size=image_size, in_channels=1, out_channels=1, **NETWORKS[name], **options)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
