"""The one table of methods: names, colours, who makes them and what each depends on. A new method is a line here."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings

if TYPE_CHECKING:  # a table must not cost the import of torch
    from pddm_utils.methods.base import Method

# Settings that weights depend on. _NETWORK: any network that the common loop trains; _DIFFUSION: with noise levels
# and noise; _BOXES: on boxes too. The others leave out what a method does not use.
_SCANS = ("cohort", "contrast", "train_subjects", "val_subjects")
_DATA = (*_SCANS, "batch_size")
_LEARNING = (*_DATA, "network", "warmup_steps", "learning_rate_decay", "ema_decay", "mixed_precision")
_NETWORK = (*_LEARNING, "learning_rate")
_DIFFUSION = (*_NETWORK, "schedule", "timestep_power", "noise")
_BOXES = (*_DIFFUSION, "box_size", "stride")
_MASKED = (*_NETWORK, "box_size", "stride")
_PUBLISHED = (*_DATA, "network", "mixed_precision")


@dataclass(frozen=True)
class MethodFacts:
    """What the rest of the package needs to know of a method without importing it.

    Attributes:
        label: name in tables and figures.
        colour: in figures; all of them differ for colour-blind readers too.
        made_by: module and class below `pddm_utils.methods`.
        trained_by: settings its weights depend on, besides the number of steps; empty for one that learns nothing.
        scored_by: settings its scores depend on, besides the weights and the noise level.
        noise_level: whether it takes a timestep, which validation then chooses.
        shipped: whether weights come with the project.
        patched: whether it rebuilds a slice box by box; the others are baselines.
        floor: whether it neither learns to rebuild nor draws; what a network adds is its difference to the best one.
        seeded: whether its training draws anything; one that does not is fitted and scored once, for the first seed.
        definition: raised when a name comes to mean another method, so that no older weights or tables pass for it.
    """

    label: str
    colour: str
    made_by: str
    trained_by: tuple[str, ...] = ()
    scored_by: tuple[str, ...] = ()
    noise_level: bool = False
    shipped: bool = False
    patched: bool = False
    floor: bool = False
    seeded: bool = True
    definition: int = 1


METHODS: dict[str, MethodFacts] = {
    "intensity": MethodFacts("Intensity threshold", "#7F7F7F", "intensity.IntensityThreshold", floor=True),
    "atlas": MethodFacts(
        "Atlas, z-score by place", "#2896B4", "atlas.Atlas", _SCANS, floor=True, seeded=False, shipped=True
    ),
    "blur": MethodFacts("Blur, signed difference", "#B4B4B4", "blur.Blur", floor=True),
    "pca": MethodFacts("PCA", "#190005", "pca.PCA", _DATA),
    "ae": MethodFacts("AE", "#503205", "autoencoders.AE", _NETWORK),
    "vae": MethodFacts("VAE", "#9B7850", "autoencoders.VAE", _NETWORK),
    "svae": MethodFacts("VAE, spatial latent", "#E6BE91", "autoencoders.SpatialVAE", _NETWORK),
    "dae": MethodFacts("DAE, coarse noise", "#503250", "dae.DAE", _NETWORK, shipped=True),
    "fanogan": MethodFacts("f-AnoGAN", "#0A0046", "fanogan.FAnoGAN", _LEARNING),
    "ddpm": MethodFacts("DDPM, whole image", "#E69F00", "ddpm.DDPM", _DIFFUSION, noise_level=True, shipped=True),
    "anoddpm": MethodFacts(
        "AnoDDPM, several steps",
        "#1414F5",
        "anoddpm.AnoDDPM",
        _PUBLISHED,
        ("ddim_steps",),
        noise_level=True,
        definition=2,
    ),
    "mddpm": MethodFacts(
        "mDDPM, frequency patches", "#4678FF", "mddpm.MaskedDDPM", _MASKED, noise_level=True, patched=True, definition=2
    ),
    "cddpm": MethodFacts("cDDPM, conditioned", "#0528A5", "cddpm.ConditionedDDPM", _NETWORK, definition=2),
    "pddpm": MethodFacts(
        "pDDPM, patched", "#0072B2", "pddpm.PatchedDDPM", _BOXES, noise_level=True, shipped=True, patched=True
    ),
    "pddpm-random": MethodFacts(
        "pDDPM, random boxes", "#96C8F5", "pddpm_random.RandomBoxDDPM", _BOXES, noise_level=True, patched=True
    ),
}
METHOD_NAMES = {name: facts.label for name, facts in METHODS.items()}
METHOD_COLOURS = {name: facts.colour for name, facts in METHODS.items()}
TRAINED_METHODS = tuple(name for name, facts in METHODS.items() if facts.trained_by)
NOISE_LEVEL_METHODS = tuple(name for name, facts in METHODS.items() if facts.noise_level)
SHIPPED_METHODS = tuple(name for name, facts in METHODS.items() if facts.shipped)
PATCHED_METHODS = tuple(name for name, facts in METHODS.items() if facts.patched)
FLOORS = tuple(name for name, facts in METHODS.items() if facts.floor)
SEEDED_METHODS = tuple(name for name in TRAINED_METHODS if METHODS[name].seeded)


def check_methods(names: Iterable[str]) -> None:
    """Refuse names that are not in the table (`InputError`)."""
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise InputError(f"method {', '.join(unknown)} does not exist; choose among {', '.join(METHODS)}")


def training_key(settings: Settings, name: str, seed: int) -> str:
    """Identifies a training run by the settings that its weights depend on; the slices have a hash of their own.

    Args:
        settings: of the run.
        name: of a method that learns.
        seed: of the training run.
    """
    chosen = {setting: getattr(settings, setting) for setting in METHODS[name].trained_by}
    content = {**chosen, "method": name}
    if METHODS[name].definition > 1:
        content["definition"] = METHODS[name].definition
    if METHODS[name].seeded:
        content |= {"steps": settings.steps_for(seed), "seed": seed}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def method_class(name: str) -> Callable[..., Method]:
    """The class that makes a method (`InputError` for a name that is not in the table)."""
    check_methods([name])
    module, _, made = METHODS[name].made_by.partition(".")
    return getattr(importlib.import_module(f"pddm_utils.methods.{module}"), made)


def make_method(name: str, settings: Settings, seed: int = 0) -> Method:
    """A method that has learnt nothing yet.

    Args:
        name: of one of `METHODS` (`InputError` for another).
        settings: network, noise and training budget.
        seed: of the training run.

    Example:
        >>> make_method("pddpm", load_settings("smoke")).name  # doctest: +SKIP
        'pddpm'
    """
    return method_class(name)(name, settings, seed)


def open_method(name: str, settings: Settings, seed: int = 0, folder: Path | None = None) -> Method:
    """A method with its weights.

    Args:
        name: of one of `METHODS`.
        settings: those it was trained with.
        seed: of the training run.
        folder: where its weights lie; one that learns nothing does not look at it.

    Raises:
        InputError: the weights are not there, damaged, or of another network.
    """
    method = make_method(name, settings, seed)
    if METHODS[name].trained_by:
        if folder is None:
            raise InputError(
                f"method {name} learns and no folder of its weights is given; train it, then name its folder"
            )
        method.open(folder)
    return method
