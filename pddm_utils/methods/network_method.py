"""Methods that are one network: trained by the common loop, stored as `model.safetensors`, applied slice by slice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pddm_utils.core.errors import InputError
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.fast_cpu import for_inference
from pddm_utils.methods.base import LearnedMethod, subject_seed
from pddm_utils.training.device import DeviceSlices
from pddm_utils.training.samples import SliceSource, torch_generators

WEIGHTS = "model.safetensors"
_SLICES_AT_ONCE = 32  # bounds the memory of a network call


@dataclass(frozen=True)
class SliceBatch:
    """Slices of one step, and a source of whatever randomness the loss needs.

    Attributes:
        clean: `(B, 1, H, W)` in [-1, 1].
        generators: one for each sample, on the CPU; or one for all, on the device of the slices.
    """

    clean: torch.Tensor
    generators: list[torch.Generator] | torch.Generator

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers `(B, *shape)`."""
        return self._drawn(torch.randn, shape)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers `(B, *shape)` in [0, 1)."""
        return self._drawn(torch.rand, shape)

    def _drawn(self, kind: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        device = self.clean.device
        if isinstance(self.generators, torch.Generator):
            return kind((len(self.clean), *shape), generator=self.generators, device=device)
        return torch.stack([kind(shape, generator=one) for one in self.generators]).to(device)


class NetworkMethod(LearnedMethod):
    """Trained by the common loop, stored as `model.safetensors`, applied slice by slice."""

    network: nn.Module | None = None

    def draw(self, source: SliceSource, seed: int, samples: range, device: torch.device | str = "cpu") -> Any:
        """A batch of the samples with these global numbers, drawn where the slices lie."""
        if isinstance(source, DeviceSlices):
            return SliceBatch(*source.draw(seed, samples))
        return super().draw(source, seed, samples, device)

    def batch(self, clean: torch.Tensor, rngs: Sequence[np.random.Generator]) -> Any:
        """The slices, and a generator for each."""
        return SliceBatch(clean, torch_generators(rngs))

    @abstractmethod
    def rebuild(
        self, network: Any, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Pseudo-healthy slices, `(B, 1, H, W)` in [-1, 1] like `slices`.

        Args:
            network: trained.
            slices: `(B, 1, H, W)`.
            timestep: noise level; None for methods without one.
            generator: of any noise, on the CPU.
        """

    def kept(self, network: Any) -> nn.Module:
        """The part of the network that rebuilding needs: all of it, unless said otherwise."""
        return network

    def save(self, network: Any, folder: Path) -> None:
        """Write the kept part as fp16 safetensors."""
        state = self.kept(network).half().state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)

    def open(self, folder: str | Path) -> None:
        """Take the weights that lie in `folder`, in float32, on the GPU when there is one.

        Raises:
            InputError: there are none, or they are damaged or of another network.
        """
        path, network = Path(folder) / WEIGHTS, self.make_network().eval()
        if not path.is_file():
            raise InputError(f"{path}: no such file; train {self.name} first")
        try:
            self.kept(network).load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{path}: damaged, or weights of another network than {self.name} of size "
                f"{self.settings.network} ({str(error).splitlines()[0]}); "
                "use the settings it was trained with"
            ) from error
        self.network = network.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1].

        Args:
            scan: a prepared scan.
            timestep: noise level, for methods that have one; the authors' when left out.
        """
        if self.network is None:
            raise RuntimeError("fit the method or open its weights first")
        generator = torch.Generator().manual_seed(subject_seed(scan))
        device = next(self.network.parameters()).device
        slices = (torch.from_numpy(scan.image)[:, None] * 2 - 1).to(device)
        network = for_inference(self.network)
        parts = [self.rebuild(network, part, timestep, generator) for part in slices.split(_SLICES_AT_ONCE)]
        return ((torch.cat(parts).clamp(-1, 1) + 1) / 2)[:, 0].float().cpu().numpy()
