"""Convolutional encoder and decoder that the autoencoders, f-AnoGAN and cDDPM share (after Baur et al. 2021).

Baur et al. compare methods on one architecture; so do we. Ours has four levels of 5x5 convolutions that halve the
slice, with GroupNorm instead of BatchNorm, because running statistics would be state besides the parameters.
"""

from __future__ import annotations

from torch import nn

from pddm_utils.core.errors import InputError

# Channels of the four levels; `paper` are those of Baur et al. 2021, `wide` and `middle` lie on the way to them.
CHANNELS: dict[str, tuple[int, ...]] = {
    "smoke": (8, 8, 16, 16),
    "laptop": (16, 32, 64, 64),
    "wide": (24, 48, 96, 96),
    "middle": (24, 56, 112, 112),
    "paper": (32, 64, 128, 128),
}
LATENT_SIZE = 128  # of a dense latent vector
BOTTLENECK_CHANNELS = 16  # of the map that the dense layers flatten
_NORM_GROUPS = 8


def bottleneck_size(name: str, image_size: int) -> int:
    """Height and width of the encoder's last map.

    Raises:
        InputError: the slice does not halve at every level.
    """
    factor = 2 ** len(CHANNELS[name])
    if image_size % factor:
        raise InputError(
            f"image size {image_size} does not halve {len(CHANNELS[name])} times; use a multiple of {factor}"
        )
    return image_size // factor


def make_encoder(name: str) -> nn.Sequential:
    """From slices `(B, 1, H, W)` to maps `(B, C, H / 16, W / 16)`, C the last of `CHANNELS`."""
    layers: list[nn.Module] = []
    for before, after in zip((1, *CHANNELS[name][:-1]), CHANNELS[name], strict=True):
        layers += [
            nn.Conv2d(before, after, 5, stride=2, padding=2),
            nn.GroupNorm(_NORM_GROUPS, after),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers)


def make_decoder(name: str) -> nn.Sequential:
    """From maps `(B, C, H / 16, W / 16)` to slices `(B, 1, H, W)`: the encoder in reverse, then a 1x1 convolution."""
    channels, layers = CHANNELS[name][::-1], []
    for before, after in zip(channels, (*channels[1:], channels[-1]), strict=True):
        layers += [
            nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1),
            nn.GroupNorm(_NORM_GROUPS, after),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))


def dense_latent(name: str, image_size: int, outputs: int) -> nn.Sequential:
    """From the encoder's maps to vectors `(B, outputs)`."""
    size = bottleneck_size(name, image_size)
    return nn.Sequential(
        nn.Conv2d(CHANNELS[name][-1], BOTTLENECK_CHANNELS, 1),
        nn.Flatten(),
        nn.Linear(BOTTLENECK_CHANNELS * size**2, outputs),
    )


def from_dense_latent(name: str, image_size: int) -> nn.Sequential:
    """From latent vectors `(B, LATENT_SIZE)` to maps for the decoder."""
    size = bottleneck_size(name, image_size)
    return nn.Sequential(
        nn.Linear(LATENT_SIZE, BOTTLENECK_CHANNELS * size**2),
        nn.Unflatten(1, (BOTTLENECK_CHANNELS, size, size)),
        nn.Conv2d(BOTTLENECK_CHANNELS, CHANNELS[name][-1], 1),
    )
