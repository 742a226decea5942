"""The methods of the comparison: order, names, colours, and what each depends on. The one table of them."""

from __future__ import annotations

from dataclasses import dataclass

_DATA = ("cohort", "contrast", "train_subjects", "val_subjects", "batch_size")
_LEARNING = (*_DATA, "network", "warmup_steps", "learning_rate_decay", "ema_decay", "mixed_precision")
_NETWORK = (*_LEARNING, "learning_rate")
_LEVELS = (*_NETWORK, "schedule", "timestep_power")
_DIFFUSION = (*_LEVELS, "noise")
_BOXES = ("box_size", "stride")


@dataclass(frozen=True)
class MethodFacts:
    """What the rest of the package needs to know of a method without importing it.

    Attributes:
        label: name in tables and figures.
        colour: in figures; all of them differ for colour-blind readers too.
        trained_by: settings its weights depend on, besides the number of steps; empty for one that learns nothing.
        scored_by: settings its scores depend on, besides the weights and the noise level.
        noise_level: whether it takes a timestep, which validation then chooses.
        shipped: whether weights come with the project.
        patched: whether it rebuilds a slice box by box; the others are baselines.
    """

    label: str
    colour: str
    trained_by: tuple[str, ...] = ()
    scored_by: tuple[str, ...] = ()
    noise_level: bool = False
    shipped: bool = False
    patched: bool = False


METHODS: dict[str, MethodFacts] = {
    "intensity": MethodFacts("Intensity threshold", "#7F7F7F"),
    "pca": MethodFacts("PCA", "#190005", _DATA),
    "ae": MethodFacts("AE", "#503205", _NETWORK),
    "vae": MethodFacts("VAE", "#9B7850", _NETWORK),
    "svae": MethodFacts("Spatial VAE", "#E6BE91", _NETWORK),
    "dae": MethodFacts("DAE, coarse noise", "#503250", _NETWORK),
    "fanogan": MethodFacts("f-AnoGAN", "#0A0046", _LEARNING),
    "ddpm": MethodFacts("DDPM, whole image", "#E69F00", (*_DIFFUSION, *_BOXES), noise_level=True, shipped=True),
    "anoddpm": MethodFacts("AnoDDPM, several steps", "#1414F5", _LEVELS, ("ddim_steps",), noise_level=True),
    "mddpm": MethodFacts("mDDPM, masked patches", "#4678FF", _DIFFUSION, noise_level=True),
    "cddpm": MethodFacts("cDDPM, conditioned", "#0528A5", _DIFFUSION, noise_level=True),
    "pddpm": MethodFacts(
        "pDDPM, patched", "#0072B2", (*_DIFFUSION, *_BOXES), noise_level=True, shipped=True, patched=True
    ),
    "pddpm-random": MethodFacts(
        "pDDPM, random boxes", "#96C8F5", (*_DIFFUSION, *_BOXES), noise_level=True, patched=True
    ),
}
METHOD_NAMES = {name: facts.label for name, facts in METHODS.items()}
METHOD_COLOURS = {name: facts.colour for name, facts in METHODS.items()}
TRAINED_METHODS = tuple(name for name, facts in METHODS.items() if facts.trained_by)
NOISE_LEVEL_METHODS = tuple(name for name, facts in METHODS.items() if facts.noise_level)
SHIPPED_METHODS = tuple(name for name, facts in METHODS.items() if facts.shipped)
PATCHED_METHODS = tuple(name for name, facts in METHODS.items() if facts.patched)
