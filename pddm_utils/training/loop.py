"""Training on healthy slices: one loop with checkpoints for every method that learns.

Every draw (slice, noise, box) is a function of the seed and the global number of the sample, so a resumed run, and a
run split over several processes, see exactly the samples of an undisturbed single process. What is drawn and which
loss is taken is the method's `Objective`.
"""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import replace_folder
from pddm_utils.core.provenance import made_with, warn_of_others
from pddm_utils.core.settings import Settings
from pddm_utils.training.checkpoint import load_checkpoint, save_checkpoint
from pddm_utils.training.estimate import estimate_training
from pddm_utils.training.samples import SliceSource, check_source, draw_slices

VALIDATION_DRAWS = 64  # fixed draws of (slice, noise, ...), the same for every model and seed
_VALIDATION_SEED = 20230710
_ESTIMATE_FROM_STEPS = 200  # fewer are over before an estimate is of use


@dataclass(frozen=True)
class Phase:
    """Where a step stands.

    Attributes:
        parts: children of the network to update, one after another on the same batch; `("",)` is all of it.
        step: number of the step within its phase, from 0.
        steps: length of the phase; the learning rate runs its course over it.
    """

    parts: tuple[str, ...]
    step: int
    steps: int


class Learner(Protocol):
    """What is written down about who learnt something."""

    name: str
    settings: Settings

    def key(self, seed: int) -> str:
        """Identifies a training run."""


class Objective(ABC):
    """What the common loop needs to know of a method.

    Args:
        name: of the method.
        settings: the run's settings.
        image_size: height and width of a slice in pixels.

    Attributes:
        betas: of Adam.
        peak_rate: of the learning rate; the setting `learning_rate` when None.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    peak_rate: float | None = None

    def __init__(self, name: str, settings: Settings, image_size: int) -> None:
        self.name, self.settings, self.image_size = name, settings, image_size

    @abstractmethod
    def key(self, seed: int) -> str:
        """Identifies a training run: equal keys, learning from equal slices, give the same weights up to rounding."""

    @abstractmethod
    def make_network(self) -> nn.Module:
        """An untrained network without buffers (GroupNorm, not BatchNorm), so that its parameters are all its state."""

    @abstractmethod
    def batch(self, clean: torch.Tensor, rngs: Sequence[np.random.Generator]) -> Any:
        """What the loss needs of these slices: the damage that the network is to repair.

        Args:
            clean: `(B, 1, H, W)` in [-1, 1].
            rngs: a generator for each sample; the same ones whatever batch or process it falls in.
        """

    def draw(self, source: SliceSource, seed: int, samples: range, device: torch.device | str = "cpu") -> Any:
        """A batch of the samples with these global numbers."""
        clean, rngs = draw_slices(source, seed, samples)
        return self.batch(clean.to(device), rngs)

    @abstractmethod
    def loss(self, network: Any, batch: Any, part: str = "") -> torch.Tensor:
        """Loss of a batch, a scalar; `part` says which child of the network it is to teach."""

    def validation_loss(self, network: Any, batch: Any) -> torch.Tensor:
        """What is reported on the fixed validation draws."""
        return self.loss(network, batch)

    def phase(self, step: int, steps: int) -> Phase:
        """What step number `step` of `steps` updates: by default the whole network, in one phase."""
        return Phase(("",), step, steps)

    @abstractmethod
    def save(self, network: Any, folder: Path) -> None:
        """Write the finished network to a folder, as fp16 safetensors."""


def set_learning_rate(optimizer: torch.optim.Optimizer, phase: Phase, settings: Settings) -> None:
    """Linear warm-up to the groups' `initial_lr`, then a cosine to zero or a constant: diffusers' schedule.

    It is made anew at every step, as a function of the step's number, so that a resumed run restores no state of it.
    """
    # Made at `last_epoch`, it sets the rate of the epoch after. The warm-up is one ahead: its epoch 0 has rate zero.
    get_scheduler(
        "cosine" if settings.learning_rate_decay == "cosine" else "constant_with_warmup",
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=phase.steps,
        last_epoch=phase.step - (phase.step >= settings.warmup_steps),
    )


def mixed_precision(settings: Settings) -> str:
    """accelerate's precision: `auto` is bf16 on a GPU that has it and fp32 elsewhere.

    On the 2-core CPUs this was measured on, bf16 autocast made a step of the laptop network slower.
    """
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


class Trainer:
    """One training run with checkpoints; `run` starts it, or goes on where it was interrupted.

    Adam keeps its moments and its step count for each parameter, so parts of a network that are updated at
    different steps share one Adam and still each have their own.

    Args:
        objective: what is learnt.
        seed: of the network's first weights and of every draw.
        train, val: healthy slices.
        folder: the finished model; the checkpoint lies beside it until then.
        snapshots: steps after which the averaged weights are kept too, see `snapshot_folder`.
    """

    def __init__(
        self,
        objective: Objective,
        seed: int,
        train: SliceSource,
        val: SliceSource,
        folder: Path,
        snapshots: Collection[int] = (),
    ) -> None:
        self.objective, self.settings, self.seed, self.folder = objective, objective.settings, seed, Path(folder)
        self.snapshots = snapshots
        self.steps = self.settings.steps_for(seed)
        check_source(train)
        self.train, self.val = train, val
        self.checkpoint = self.folder.with_name(f"{self.folder.name}.checkpoint.safetensors")
        self.accelerator = Accelerator(
            mixed_precision=mixed_precision(self.settings), cpu=not torch.cuda.is_available()
        )
        if self.settings.batch_size % self.accelerator.num_processes:
            raise InputError(
                f"setting batch_size={self.settings.batch_size}; it must be a multiple of the "
                f"{self.accelerator.num_processes} processes"
            )
        set_seed(seed)
        self.network = objective.make_network().to(self.accelerator.device)
        rate = objective.peak_rate or self.settings.learning_rate
        self.optimizer = torch.optim.Adam(
            [{"params": list(self.network.parameters()), "initial_lr": rate}], lr=rate, betas=objective.betas
        )
        # Its decay grows from 0, so that the first weights are soon forgotten.
        self.ema = EMAModel(self.network.parameters(), decay=self.settings.ema_decay, foreach=True)
        self.averaged = dict(zip(dict(self.network.named_parameters()), self.ema.shadow_params, strict=True))
        self.state: dict[str, Any] = {"step": 0, "seconds": 0.0, "cpu_seconds": 0.0, "history": []}
        self.state["made_with"] = [made_with()]

    def run(self) -> Path:
        """Train to the last step and save the averaged weights in fp16.

        Returns:
            The model's folder; with it `training.json` (settings, loss history, times).
        """
        key = self.objective.key(self.seed)
        if finished_key(self.folder) == key:
            self.checkpoint.unlink(missing_ok=True)  # left over when the run was killed in its last moment
            return self.folder
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._resume(key)
        main = self.accelerator.is_main_process
        self._announce(self.steps - self.state["step"])
        bar = tqdm(
            range(self.state["step"], self.steps),
            initial=self.state["step"],
            total=self.steps,
            desc=f"{self.objective.name} seed {self.seed}",
            disable=not main,
            mininterval=2.0,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        for step in bar:
            loss = self.step(step)
            done = step + 1
            if main and done in self.snapshots:
                self._save_network(snapshot_folder(self.folder, done))
            if done % self.settings.checkpoint_every == 0 or done == self.steps:
                self._record(done, loss, time.perf_counter() - wall, time.process_time() - cpu)
                wall, cpu = time.perf_counter(), time.process_time()
                bar.set_postfix(self.state["history"][-1] | {"step": done})
                if main:
                    save_checkpoint(
                        self.checkpoint, self.network, self.averaged, self.optimizer, {**self.state, "key": key}
                    )
        if main:
            self._save()
        self.accelerator.wait_for_everyone()
        return self.folder

    def _announce(self, steps: int) -> None:
        """Print how long the steps that are left will take; measured on every process, or they would wait."""
        if steps < _ESTIMATE_FROM_STEPS:
            return
        share = self.settings.batch_size // self.accelerator.num_processes
        part = self.objective.phase(self.state["step"], self.steps).parts[0]
        estimate = estimate_training(
            partial(self.add_gradients, part=part),
            self.network,
            share,
            min(share, self.settings.micro_batch_size or share),
            steps,
        )
        self.accelerator.print(f"{self.objective.name} seed {self.seed}, {estimate}", flush=True)

    def step(self, step: int) -> float:
        """One optimiser step for each part, on this process's share of the global batch.

        Returns:
            The loss of the last part over all of the batch.
        """
        share = self.settings.batch_size // self.accelerator.num_processes
        first = step * self.settings.batch_size + self.accelerator.process_index * share
        phase = self.objective.phase(step, self.steps)
        set_learning_rate(self.optimizer, phase, self.settings)
        for part in phase.parts:
            self._only_train(part)
            loss = self.add_gradients(range(first, first + share), part)
            self._average_gradients()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._only_train("")  # all of it: what is frozen would be copied instead of averaged
        self.ema.optimization_step = step
        self.ema.step(self.network.parameters())
        return self.accelerator.reduce(loss, "mean").item()

    def add_gradients(self, samples: range, part: str = "") -> torch.Tensor:
        """Gradients of the mean loss over these samples, `micro_batch_size` of them in memory at once; returns it.

        Args:
            samples: global sample numbers.
            part: child of the network that the loss is to teach; all of it when empty.
        """
        total = torch.zeros((), device=self.accelerator.device)
        size = self.settings.micro_batch_size or len(samples)
        for start in range(0, len(samples), size):
            few = samples[start : start + size]
            batch = self.objective.draw(self.train, self.seed, few, self.accelerator.device)
            with self.accelerator.autocast():
                loss = self.objective.loss(self.network, batch, part) * (len(few) / len(samples))
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _only_train(self, part: str) -> None:
        """Freeze the network's other children: without a gradient, Adam leaves them and their moments alone."""
        for name, child in self.network.named_children():
            child.requires_grad_(part in ("", name))

    def _average_gradients(self) -> None:
        """The mean over processes; done here because a wrapped network would not allow losses of single parts."""
        if self.accelerator.num_processes > 1:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            vector_to_parameters(self.accelerator.reduce(parameters_to_vector(gradients), "mean"), gradients)

    def _averaged_network(self) -> nn.Module:
        network = self.objective.make_network()
        network.load_state_dict({name: value.cpu() for name, value in self.averaged.items()})
        return network.eval()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Loss of the averaged weights on the fixed validation draws."""
        network = self._averaged_network().to(self.accelerator.device)
        losses = []
        for start in range(0, VALIDATION_DRAWS, 16):
            samples = range(start, min(start + 16, VALIDATION_DRAWS))
            batch = self.objective.draw(self.val, _VALIDATION_SEED, samples, self.accelerator.device)
            losses.append(self.objective.validation_loss(network, batch).item())
        return float(np.mean(losses))

    def _record(self, done: int, loss: float, seconds: float, cpu_seconds: float) -> None:
        entry = {"step": done, "loss": round(loss, 6), "validation_loss": round(self.validation_loss(), 6)}
        self.state["step"] = done
        self.state["seconds"] += seconds
        self.state["cpu_seconds"] += cpu_seconds
        self.state["history"].append(entry)

    def _resume(self, key: str) -> None:
        if not self.checkpoint.is_file():
            return
        state = load_checkpoint(self.checkpoint, self.network, self.averaged, self.optimizer)
        if state.pop("key") != key:
            raise InputError(f"{self.checkpoint}: written with other settings; delete it to train with these")
        earlier = state.get("made_with", [])
        warn_of_others(earlier)
        self.state = state | {"made_with": earlier + [made_with()] * (made_with() not in earlier)}

    def _save(self) -> None:
        self._save_network(self.folder, {"processes": self.accelerator.num_processes, **self.state})
        self.checkpoint.unlink(missing_ok=True)

    def _save_network(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        """The averaged weights in one step; with the state also what `write_training` says of them."""
        save = partial(self.objective.save, self._averaged_network())
        write_model(folder, self.objective, self.seed, state, save)


def snapshot_folder(folder: Path, step: int) -> Path:
    """Where the averaged weights of a training lie as they were after `step` steps, where they were kept."""
    return folder.with_name(f"{folder.name}.step{step}")


def write_model(
    folder: Path, learner: Learner, seed: int, state: Mapping[str, Any] | None, save: Callable[[Path], None]
) -> None:
    """Put a model, and what `write_training` says of it, into a folder in one step.

    Args:
        folder: of the model.
        learner: who learnt it.
        seed: of its draws.
        state: steps, times and history; None for a model of which no record is kept.
        save: writes the model's files into a folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save(temporary)
    if state is not None:
        write_training(temporary, learner, seed, state)
    replace_folder(temporary, folder)


def write_training(folder: Path, learner: Learner, seed: int, state: Mapping[str, Any]) -> None:
    """Write `training.json`: which run this folder holds, with its step, times and loss history.

    `made_with` lists the commits and package versions that trained it, as a rule one.
    """
    record = {
        "key": learner.key(seed),
        "method": learner.name,
        "seed": seed,
        "settings": learner.settings.to_dict(),
        "made_with": [made_with()],
        **state,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def finished_key(folder: Path) -> str | None:
    """Key of the training run whose finished model lies in `folder`, or None."""
    record = folder / "training.json"
    return read_training(folder)["key"] if record.is_file() else None


def read_training(folder: Path) -> Mapping:
    """What training wrote about a finished run: settings, loss history, times."""
    return json.loads((Path(folder) / "training.json").read_text(encoding="utf-8"))
