"""Methods that are one network: trained by the common loop, stored as `model.safetensors`, applied slice by slice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings
from pddm_utils.data.scan import SLICE_SIZE, Scan
from pddm_utils.data.slices import HealthySlices
from pddm_utils.methods.pipelines import subject_seed
from pddm_utils.training.loop import Objective, SliceSource, Trainer, check_source, draw_slices, torch_generators

WEIGHTS = "model.safetensors"
_SLICES_AT_ONCE = 32  # bounds the memory of a network call


@dataclass(frozen=True)
class SliceBatch:
    """Slices of one step, and for each a source of whatever randomness the loss needs.

    Attributes:
        clean: `(B, 1, H, W)` in [-1, 1].
        generators: one for each sample, on the CPU.
    """

    clean: torch.Tensor
    generators: Sequence[torch.Generator]

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers `(B, *shape)`."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators]).to(self.clean.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers `(B, *shape)` in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(self.clean.device)


class SliceDrawer:
    """Draws slices; the same ones, in the same order, as the diffusion models see.

    Args:
        source: healthy slices.
        seed: of all draws.
    """

    def __init__(self, source: SliceSource, seed: int) -> None:
        check_source(source)
        self.source, self.seed = source, seed

    def draw(self, samples: range, device: torch.device | str = "cpu") -> SliceBatch:
        """The samples with these global numbers."""
        clean, rngs = draw_slices(self.source, self.seed, samples)
        return SliceBatch(clean.to(device), torch_generators(rngs))


class NetworkObjective(Objective):
    """What a method of this kind has to say: its network, its loss, and how a slice is rebuilt."""

    def drawer(self, source: SliceSource, seed: int) -> Any:
        """Draws slices."""
        return SliceDrawer(source, seed)

    @abstractmethod
    def rebuild(
        self, network: nn.Module, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Pseudo-healthy slices, `(B, 1, H, W)` in [-1, 1] like `slices`.

        Args:
            network: trained.
            slices: `(B, 1, H, W)`.
            timestep: noise level; None for methods without one.
            generator: of any noise, on the CPU.
        """

    def for_inference(self, network: nn.Module) -> nn.Module:
        """A network that predicts the same, faster where there is one."""
        return network

    def kept(self, network: nn.Module) -> nn.Module:
        """The part of the network that rebuilding needs: all of it, unless said otherwise."""
        return network

    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the kept part as fp16 safetensors."""
        state = self.kept(network).half().state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)

    def load(self, folder: str | Path) -> nn.Module:
        """A network with the weights that lie in `folder`, in float32, on the GPU when there is one.

        Raises:
            InputError: there are none, or they are damaged or of another network.
        """
        path, network = Path(folder) / WEIGHTS, self.make_network().eval()
        if not path.is_file():
            raise InputError(f"{path}: no such file; train {self.method} first")
        try:
            self.kept(network).load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{path}: damaged, or weights of another network than {self.method} of size "
                f"{self.settings.network} ({str(error).splitlines()[0]}); "
                "use the settings it was trained with"
            ) from error
        return network.to("cuda" if torch.cuda.is_available() else "cpu")


class NetworkReconstruction:
    """A `NetworkObjective` behind the method protocol; subclasses name the objective.

    Args:
        name: of the method.
        settings: network size and training budget.
        seed: of the training run.
    """

    objective: type[NetworkObjective]

    def __init__(self, name: str, settings: Settings, seed: int) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.network: nn.Module | None = None

    def _objective(self, image_size: int) -> NetworkObjective:
        return self.objective(self.name, self.settings, image_size)

    def trainer(self, train: SliceSource, val: SliceSource, folder: Path) -> Trainer:
        """The training run on these healthy slices."""
        check_source(train)
        return Trainer(self._objective(train[0].shape[-1]), self.seed, train, val, folder)

    def fit(self, train: HealthySlices, val: HealthySlices, folder: Path) -> None:
        """Train, or go on training, and load the finished network from `folder`."""
        trainer = self.trainer(train, val, folder)
        self.network = trainer.objective.load(trainer.run())

    @classmethod
    def from_pretrained(cls, folder: str | Path, name: str, settings: Settings, seed: int = 0) -> NetworkReconstruction:
        """A method whose weights lie in `folder` (`InputError` when they do not fit)."""
        method = cls(name, settings, seed)
        method.network = method._objective(SLICE_SIZE).load(folder)
        return method

    @torch.inference_mode()
    def reconstruct(self, scan: Scan, timestep: int | None = None) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1].

        Args:
            scan: a prepared scan.
            timestep: noise level, for methods that have one; the authors' when left out.
        """
        if self.network is None:
            raise RuntimeError("fit the method or load it with from_pretrained first")
        objective, generator = self._objective(scan.image.shape[-1]), torch.Generator().manual_seed(subject_seed(scan))
        device = next(self.network.parameters()).device
        slices = (torch.from_numpy(scan.image)[:, None] * 2 - 1).to(device)
        network = objective.for_inference(self.network)
        parts = [objective.rebuild(network, part, timestep, generator) for part in slices.split(_SLICES_AT_ONCE)]
        return ((torch.cat(parts).clamp(-1, 1) + 1) / 2)[:, 0].float().cpu().numpy()
