"""Faster reconstruction on a CPU, off until `fast_cpu()` is called: a rewritten U-Net, and memory that is kept.

What is fixed at inference is computed once, before the first pass. Every rewrite is exact; results differ from the
network's own by the rounding of float32 (about 1e-5 in [-1, 1]).
"""

from __future__ import annotations

import copy
import ctypes
import platform

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.nn import functional

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers for mallopt
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no larger one
_KEPT = 256 * 2**20
_switch = {"on": False}


def fast_cpu(on: bool = True) -> None:
    """Let this process reconstruct with rewritten networks on a CPU, and train and reconstruct with kept memory.

    A network frees and asks for the same few megabytes at every layer. By default they go back to the system, which
    must clear each page again: a fifth of the time of a network pass of 8 slices. So on Linux with glibc the process
    keeps up to 256 MB of freed memory, to its end. On a GPU nothing changes.

    Args:
        on: False turns the rewritten networks off again.
    """
    _switch["on"] = on
    if on and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)


def for_inference(network: nn.Module, timestep: int | None = None) -> nn.Module:
    """A network that gives the same predictions, faster where `fast_cpu` is on; made anew whenever weights change.

    For U-Nets of plain blocks on a CPU, alone or as a child of another module: their time embedding is a constant at
    one timestep and joins the biases, upsampling joins its convolution, convolutions of one pixel or to one channel
    become matrix products, activations and sums happen in place, and memory lies channels last. Any other network
    comes back as it is.

    Args:
        network: in eval mode.
        timestep: the only one it will be asked about, which it then ignores; None keeps the time embedding.

    Returns:
        To be called like `network`, under `torch.inference_mode` or `no_grad`.
    """
    if not _switch["on"]:
        return network
    if isinstance(network, UNet2DModel):
        return _InferenceUNet(network, timestep) if _is_plain(network) else network
    if any(isinstance(child, UNet2DModel) for child in network.children()):
        network = copy.copy(network)  # shares its weights; only the table of children is its own
        network._modules = {name: for_inference(child, timestep) for name, child in network.named_children()}
    return network


def _is_plain(network: UNet2DModel) -> bool:
    """Whether a network is on a CPU and has the named blocks only: no attention, dropout, other use of the time."""
    config = network.config
    return (
        network.device.type == "cpu"
        and set(config.down_block_types) == {"DownBlock2D"}
        and set(config.up_block_types) == {"UpBlock2D"}
        and network.conv_out.out_channels == 1
        and not config.add_attention
        and config.dropout == 0
        and config.resnet_time_scale_shift == "default"
        and config.act_fn == "silu"
        and config.mid_block_scale_factor == 1
        and config.downsample_type == config.upsample_type == "conv"
        and config.downsample_padding == 1
        and config.time_embedding_type == "positional"
        and not config.center_input_sample
    )


class _InferenceUNet(nn.Module):
    """The wiring of `UNet2DModel` around the blocks below."""

    def __init__(self, network: UNet2DModel, timestep: int | None) -> None:
        super().__init__()
        self.network = network
        embedding = None if timestep is None else self._embedding(timestep, None)
        self.first = _Convolution(network.conv_in)
        self.down: list[list[_Residual | _Convolution]] = [
            [
                *(_Residual(block, embedding) for block in level.resnets),
                *(_Convolution(down.conv) for down in level.downsamplers or ()),
            ]
            for level in network.down_blocks
        ]
        self.middle = [_Residual(block, embedding) for block in network.mid_block.resnets]
        self.up = [
            (
                [_Residual(block, embedding) for block in level.resnets],
                [_Upsampling(up.conv) for up in level.upsamplers or ()],
            )
            for level in network.up_blocks
        ]
        self.head, self.fixed = _Head(network.conv_out), timestep is not None

    def _embedding(self, timesteps: torch.Tensor | int, class_labels: torch.Tensor | None) -> torch.Tensor:
        """SiLU of the embedding, `(B, C)`; B is 1 when all samples share it."""
        weights = self.network.conv_in.weight
        features = self.network.time_proj(torch.as_tensor(timesteps, device=weights.device).reshape(-1))
        embedding = self.network.time_embedding(features.to(weights.dtype))
        if class_labels is not None:
            embedding = embedding + self.network.class_embedding(class_labels).to(weights.dtype)
        return functional.silu(embedding)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | int, class_labels: torch.Tensor | None = None
    ) -> UNet2DOutput:
        embedding = None if self.fixed else self._embedding(timestep, class_labels)
        hidden = self.first(sample.contiguous(memory_format=torch.channels_last))
        skipped = [hidden]
        for level in self.down:
            for step in level:
                hidden = step(hidden, embedding)
                skipped.append(hidden)
        for block in self.middle:
            hidden = block(hidden, embedding)
        for blocks, upsampling in self.up:
            for block in blocks:
                hidden = block(torch.cat([hidden, skipped.pop()], dim=1), embedding)
            for upsample in upsampling:
                hidden = upsample(hidden)
        return UNet2DOutput(sample=self.head(_norm_silu(self.network.conv_norm_out, hidden)))


def _norm_silu(norm: nn.GroupNorm, hidden: torch.Tensor) -> torch.Tensor:
    """SiLU of the normalised values, in a tensor of its own."""
    return functional.silu(torch.group_norm(hidden, norm.num_groups, norm.weight, norm.bias, norm.eps), inplace=True)


class _Convolution:
    """A 3x3 convolution, channels last."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.weight = conv.weight.contiguous(memory_format=torch.channels_last)
        self.bias, self.stride, self.padding = conv.bias, conv.stride, conv.padding

    def __call__(self, hidden: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        return torch.conv2d(hidden, self.weight, self.bias, self.stride, self.padding)


class _Residual:
    """A residual block; its shortcut, when it has one, is a matrix product that adds onto the block's own result."""

    def __init__(self, block: ResnetBlock2D, embedding: torch.Tensor | None) -> None:
        self.norm1, self.conv1, self.norm2, self.conv2 = (
            block.norm1,
            _Convolution(block.conv1),
            block.norm2,
            _Convolution(block.conv2),
        )
        self.time_projection, self.shortcut = block.time_emb_proj, None
        if embedding is not None:
            self.conv1.bias = self.conv1.bias + self.time_projection(embedding)[0]
            self.time_projection = None
        if block.conv_shortcut is not None:
            self.shortcut = block.conv_shortcut.weight.flatten(1).T.contiguous()  # (in, out)
            self.conv2.bias = self.conv2.bias + block.conv_shortcut.bias

    def __call__(self, hidden: torch.Tensor, embedding: torch.Tensor | None) -> torch.Tensor:
        inner = self.conv1(_norm_silu(self.norm1, hidden))
        if self.time_projection is not None:
            inner.add_(self.time_projection(embedding)[:, :, None, None])
        inner = self.conv2(_norm_silu(self.norm2, inner))
        if self.shortcut is None:
            return inner.add_(hidden)
        by_pixel = inner.movedim(1, 3)
        pixels = by_pixel.flatten(0, 2).addmm_(hidden.movedim(1, 3).flatten(0, 2), self.shortcut)
        return pixels.view(by_pixel.shape).movedim(3, 1)


class _Upsampling:
    """Nearest-neighbour doubling and a 3x3 convolution as one transposed convolution: 4 instead of 9 products a pixel.

    In one dimension, doubling x and convolving with (a, b, c) gives `y[2i] = a x[i-1] + (b + c) x[i]` and
    `y[2i+1] = (a + b) x[i] + c x[i+1]`: a transposed convolution of stride 2 with (c, b + c, a + b, a).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        weight = conv.weight
        for axis in (2, 3):
            a, b, c = weight.unbind(axis)
            weight = torch.stack([c, b + c, a + b, a], axis)
        self.weight, self.bias = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last), conv.bias

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.conv_transpose2d(hidden, self.weight, self.bias, stride=2, padding=1)


class _Head:
    """A 3x3 convolution to one channel: a matrix product gives nine maps, which are shifted and added.

    Convolution kernels work on blocks of sixteen channels, fifteen of them in vain here.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.weight, self.bias = conv.weight[0].flatten(1).T.contiguous(), torch.as_tensor(conv.bias)  # (9, in)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = hidden.shape
        maps = (self.weight @ hidden.movedim(1, 3).reshape(-1, channels).T).view(3, 3, count, height, width)
        total = self.bias.expand(count, height + 2, width + 2).clone()
        for row in range(3):
            for column in range(3):
                total[:, 2 - row : 2 - row + height, 2 - column : 2 - column + width] += maps[row, column]
        return total[:, None, 1:-1, 1:-1]
