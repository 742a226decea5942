"""Noise for the forward process: Gaussian, and 2-D simplex noise of several octaves.

Every sample gets its own unit-variance field, drawn for the whole batch in one call, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch

from pddm_utils.core.errors import InputError

Generators = torch.Generator | list[torch.Generator] | None

_DIRECTIONS = 128  # unit gradients, evenly spaced: 7 random bits each ...
_PER_WORD = 4  # ... so four in a word of 31
_MIN_REACH = 32.0  # pixels: enough whole-pixel positions to fill the cells of the shortest wavelength evenly
_CHUNK = 64  # fields made at once: bounds the memory

# The triangular lattice of simplex noise: two edges of length sqrt(2/3) at 120 degrees. It is turned against
# the pixel grid, so that whole pixels fall evenly into its cells at every wavelength.
_TURN = 0.1
_EDGES = math.sqrt(2 / 3) * torch.tensor(
    [[math.cos(angle), math.sin(angle)] for angle in (_TURN, _TURN + 2 * math.pi / 3)], dtype=torch.float64
)

# Mean square of one octave with unit gradients and falloff (1/2 - r^2)^4, at a point uniform over a lattice
# cell: half the integral of r^2 (1/2 - r^2)^8 over the disc r^2 < 1/2, divided by the cell's area 1/sqrt(3).
_OCTAVE_VARIANCE = math.sqrt(3) * math.pi / (180 * 1024)


def _draw(
    kind: Callable[..., torch.Tensor], shape: tuple[int, ...], generator: Generators, device: torch.device
) -> torch.Tensor:
    """Draw a batch where its generator lives, then move it; a list holds one generator per sample."""
    if isinstance(generator, list):
        if len(generator) != shape[0]:
            raise InputError(f"generator: {len(generator)} generators for {shape[0]} samples; pass one per sample")
        drawn = [kind((1, *shape[1:]), generator=g, device=g.device) for g in generator]
        return torch.cat(drawn).to(device)
    source = device if generator is None else generator.device
    return kind(shape, generator=generator, device=source).to(device)


def _random_words(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """int32 words of 31 random bits."""
    return torch.empty(shape, dtype=torch.int32, device=device).random_(generator=generator)


def gaussian_noise(
    shape: tuple[int, ...],
    generator: Generators = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Independent standard normal noise; in float32 the same draws as diffusers' `randn_tensor`.

    Args:
        shape: shape of the result, batch first.
        generator: one generator, one per sample (a sample then does not depend on its batch), or None.
        device: device of the result; the CPU when left out.
        dtype: floating type of the result.

    Returns:
        Tensor of the given shape, mean 0, variance 1.

    Raises:
        InputError: a list of generators of another length than the batch.
    """
    return _draw(torch.randn, tuple(shape), generator, torch.device(device or "cpu")).to(dtype)


def _corners(points: torch.Tensor, octave: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The three lattice corners around each point, and the weights of their gradients.

    Simplex noise is a sum of ramps g . d, one per corner, each under a falloff (1/2 - r^2)^4 that ends where
    the corner's triangles end. It is linear in the gradients g: their weights are d times the falloff.

    Args:
        points: float64 (P, 2), in wavelengths.
        octave: shifts the lattice by a part of a cell of its own, so that no two octaves vanish at one point.

    Returns:
        Corners as edge counts, int64 (P, 3, 2); weights, float64 (P, 3, 2).
    """
    position = points @ torch.linalg.inv(_EDGES) + octave * torch.tensor([0.618, 0.414], dtype=torch.float64)
    origin = position.floor()
    inside = position - origin
    first = (inside[:, :1] > inside[:, 1:]).double()  # which of the cell's two triangles: its middle corner
    middle = torch.cat([first, 1 - first], dim=1)
    steps = torch.stack([torch.zeros_like(middle), middle, torch.ones_like(middle)], dim=1)
    distance = (inside[:, None] - steps) @ _EDGES
    falloff = (0.5 - distance.square().sum(dim=2, keepdim=True)).clamp(min=0) ** 4
    return (origin[:, None] + steps).long(), distance * falloff


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _linear_map(
    size: tuple[int, int], octaves: int, persistence: float, wavelength: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The linear map from gradients to the noise of a window of pixels, all octaves summed, unit variance.

    It is the same for every sample, so it is made once; a field then costs 6 * octaves multiplications and
    additions a pixel.

    Returns:
        Rows, int32 (pixels, 6 * octaves), and weights, float32 of that shape, into a table of the first
        gradient components of all lattice nodes, then the second ones; and the number of nodes, a multiple of
        four.
    """
    pixels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in size))
    all_rows, all_weights, count = [], [], 0
    for octave in range(octaves):
        corners, weight = _corners(pixels * (2.0**octave / wavelength), octave)
        first, second = (corners - corners.amin(dim=(0, 1))).unbind(dim=2)
        nodes, number = torch.unique(first * (int(second.max()) + 1) + second, return_inverse=True)
        all_rows.append(number + count)
        all_weights.append(weight * persistence**octave)
        count += len(nodes)
    total = sum(persistence ** (2 * octave) for octave in range(octaves)) * _OCTAVE_VARIANCE
    rows = torch.cat(all_rows, dim=1)
    weights = torch.cat(all_weights, dim=1) / math.sqrt(total)
    count = math.ceil(count / _PER_WORD) * _PER_WORD
    rows = torch.cat([rows, rows + count], dim=1).int()
    weights = torch.cat([weights[:, :, 0], weights[:, :, 1]], dim=1).float()
    return rows.to(device), weights.to(device), count


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _reach(wavelength: float, device: torch.device) -> tuple[torch.Tensor, tuple[int, int]]:
    """The cell over which a sample's place is drawn: one of the coarsest octave's lattice, or a larger one.

    The cell is the rectangle on one edge of the lattice; rows of it tile the plane like bricks. Doubling a
    lattice gives a cell that is a whole number of the old ones, so a place uniform over it is uniform for all
    octaves.

    Returns:
        The two edges of the cell, float32 (2, 2) rows on the device, pixels; and the height and width of its bounding
        box.
    """
    while wavelength < _MIN_REACH:
        wavelength *= 2
    edges = torch.stack([_EDGES[0], _EDGES[1] + _EDGES[0] / 2]) * wavelength
    low, high = edges.clamp(max=0).sum(dim=0), edges.clamp(min=0).sum(dim=0)
    return edges.to(device, torch.float32), tuple((high - low).ceil().int().tolist())


def _random_window(words: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """First row and column of each sample's window: uniform over the cell of two edges, in whole pixels.

    Args:
        words: int32 (B, 2), random.
        edges: float32 (2, 2) rows, pixels.

    Returns:
        int64 (B, 2), in [0, size of the cell's bounding box].
    """
    position = (words >> 7).float() / (1 << 24)
    place = position[:, :1] * edges[0] + position[:, 1:] * edges[1]
    return (place - edges.clamp(max=0).sum(dim=0)).round().long()


def _fields(
    words: torch.Tensor,
    linear_map: tuple[torch.Tensor, torch.Tensor, int],
    window: tuple[int, int],
    edges: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """Fields (b, H, W) from random words (b, 2 + nodes / 4): a place, then the gradients of all nodes."""
    rows, weights, _ = linear_map
    angles = (torch.arange(_DIRECTIONS, device=words.device) + 0.5) * (2 * math.pi / _DIRECTIONS)
    directions = torch.stack([angles.cos(), angles.sin()])
    shifts = torch.arange(_PER_WORD, device=words.device, dtype=torch.int32)[:, None] * 7
    by_node = words[:, 2:].t().contiguous()[:, None]  # nodes first: a sum then runs over all samples at once
    chosen = (by_node >> shifts).bitwise_and_(_DIRECTIONS - 1)
    gradients = directions.index_select(1, chosen.reshape(-1)).view(-1, len(words))
    noise = torch.nn.functional.embedding_bag(rows, gradients, mode="sum", per_sample_weights=weights)
    windows = noise.view(*window, len(words)).unfold(0, size[0], 1).unfold(1, size[1], 1)
    top, left = _random_window(words[:, :2], edges).unbind(dim=1)
    return windows[top, left, torch.arange(len(words), device=words.device)]


def simplex_noise(
    shape: tuple[int, int, int, int],
    generator: Generators = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    octaves: int = 6,
    persistence: float = 0.8,
    wavelength: float = 64.0,
) -> torch.Tensor:
    """Independent 2-D simplex noise fields, one per sample, of unit variance.

    Octave k has wavelength `wavelength / 2**k` pixels and amplitude `persistence**k`. Each sample has its own
    random gradients and its own random place on the lattice, so that the expected variance is the same at
    every pixel; one fixed, analytic constant makes it 1 over draws (the variance within one field varies).

    Args:
        shape: (B, 1, H, W), pixels.
        generator: one generator, one per sample (a sample then does not depend on its batch), or None.
        device: device of the result; the CPU when left out.
        dtype: floating type of the result.
        octaves: number of octaves, at least 1.
        persistence: amplitude of an octave relative to the one before.
        wavelength: wavelength of the first octave, pixels.

    Returns:
        (B, 1, H, W), mean 0, variance 1.

    Raises:
        InputError: another shape, bad octave settings, or a list of generators that is not one per sample.

    Example:
        >>> simplex_noise((2, 1, 96, 96), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 96, 96])
    """
    if len(shape) != 4 or shape[1] != 1 or min(shape) < 1:
        raise InputError(f"simplex_noise: shape {tuple(shape)}; pass (B, 1, H, W)")
    if octaves < 1 or not 0 < persistence < math.inf or not 0 < wavelength < math.inf:
        raise InputError(
            f"simplex_noise: octaves {octaves}, persistence {persistence}, wavelength {wavelength}; "
            "pass at least one octave and positive, finite numbers"
        )
    target = torch.device(device or "cpu")
    device = target if target.type == "cuda" else torch.device("cpu")  # others lack the weighted sum below
    batch, _, height, width = shape
    edges, reach = _reach(float(wavelength), device)
    window = (height + reach[0], width + reach[1])
    linear_map = _linear_map(window, octaves, float(persistence), float(wavelength), device)
    words = _draw(_random_words, (batch, 2 + linear_map[2] // _PER_WORD), generator, device)
    fields = [_fields(part, linear_map, window, edges, (height, width)) for part in words.split(_CHUNK)]
    return torch.cat(fields)[:, None].to(target, dtype)


def radial_spectrum(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Power of square images by spatial frequency, averaged over images and over rings of equal frequency.

    The power is the squared modulus of the Fourier transform over the number of pixels: white noise of unit
    variance has a power of 1 at every frequency.

    Args:
        images: (B, H, H).

    Returns:
        Frequencies in cycles per pixel, 1/H to 1/2, (H // 2,), and the power at each, float64 (H // 2,).

    Raises:
        InputError: images of another shape.

    Example:
        >>> radial_spectrum(torch.randn(8, 96, 96))[0].shape
        torch.Size([48])
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise InputError(f"radial_spectrum: shape {tuple(images.shape)}; pass (B, H, H)")
    size = images.shape[1]
    power = torch.fft.fft2(images.double()).abs().square().mean(dim=0) / size**2
    waves = torch.fft.fftfreq(size, d=1 / size)  # waves across the image
    ring = torch.hypot(waves[:, None], waves).round().long().to(power.device)
    total = torch.zeros(int(ring.max()) + 1, dtype=power.dtype, device=power.device)
    mean = total.index_add(0, ring.flatten(), power.flatten()) / torch.bincount(ring.flatten())
    return torch.arange(1, size // 2 + 1) / size, mean[1 : size // 2 + 1]


NOISES: dict[str, Callable[..., torch.Tensor]] = {"gaussian": gaussian_noise, "simplex": simplex_noise}
