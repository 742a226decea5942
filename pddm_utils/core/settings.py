"""Settings are data: one frozen, validated object read from a YAML profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pddm_utils.core.errors import InputError

PROFILE_FOLDER = Path(__file__).parent / "profiles"
_CHOICES = {
    "cohort": ("simulated", "ixi", "soop", "manifest"),
    "contrast": ("T1", "T2", "FLAIR"),
    "network": ("smoke", "laptop", "wide", "middle", "paper"),
    "noise": ("gaussian", "simplex"),
    "schedule": ("squaredcos_cap_v2", "linear"),
    "learning_rate_decay": ("cosine", "none"),
    "mixed_precision": ("auto", "no", "bf16"),
    "score": ("absolute", "signed", "place"),
    "level_choice": ("mean", "family"),
}
LESION_KINDS = ("tumour", "ms", "real-shape", "real-ms", "foreign-patch", "mass-effect")
_MAY_BE_ZERO = ("warmup_steps", "authors_timestep", "micro_batch_size")


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on besides the code and the data files.

    Attributes:
        profile: name of the profile.
        cohort: who is trained on, `simulated`, `ixi`, `soop` or `manifest`.
        manifest: CSV of a cohort of one's own, see `pddm_utils.data.manifest`; the numbers of subjects are upper
            limits for it, and for `soop`. Empty with another cohort.
        contrast: `T1`, `T2` or `FLAIR`.
        train_subjects, val_subjects: healthy subjects (`soop`: lesion-free patients) to train and to set thresholds on.
        val_lesion_subjects: lesioned validation subjects of each kind (noise level, lesion-val threshold).
        test_subjects: test subjects of each kind (tumour, ms, healthy).
        lesion_kinds: which lesions validation and test subjects carry, from `LESION_KINDS`: `tumour` and `ms` are
            smooth blobs; the others need masks or scans of `PDDM_DATA`, and all but `real-shape` the cohort `ixi`.
        extra_test_sets: further test sets, such as `mslub-t1`.
        network: size of the networks, `smoke`, `laptop`, `wide`, `middle` or `paper`; each method's module says what it
            is.
        noise: `gaussian` or `simplex`.
        schedule: `beta_schedule` of diffusers' `DDPMScheduler`.
        box_size, stride: of the patched model, in pixels; the whole-image model is one box of the slice's size.
        timestep_power: training draws the index 1000 u^(1/power), u uniform: 1 is uniform as published, larger values
            spend more samples on the high noise levels that rebuild healthy anatomy.
        train_steps: optimiser steps of the first seed.
        extra_seed_steps: optimiser steps of every other seed.
        batch_size: slices a step, over all processes.
        micro_batch_size: slices that are in memory at once, the gradients of a step's parts are added up; 0 for all.
        learning_rate, warmup_steps: peak of Adam's rate, reached linearly.
        learning_rate_decay: `cosine` to zero after the warm-up, or `none`.
        ema_decay: of the averaged weights that are kept.
        mixed_precision: `auto` is bf16 on a GPU that has it and fp32 elsewhere.
        checkpoint_every: steps between checkpoints.
        methods, seeds: rows of the benchmark.
        timesteps: noise levels (indices, 0-999) among which validation chooses.
        authors_timestep: the published noise level.
        ddim_steps: steps of AnoDDPM's reverse process from the noise level down to the clean slice.
        level_choice: how validation chooses a noise level: `mean` takes one that is best over all kinds of lesions,
            `family` one for each kind, which its test scans get.
        noise_levels: which are scored: `validation` (chosen there), and `authors` (first seed only) beside it.
        selection_slice_step: every n-th slice is used when the noise level is chosen.
        threads: CPU threads of one job; results are repeatable for a fixed number.
        score: of methods other than floors: `absolute` is |x - x^|, `signed` its part towards lesions (brighter, on T1
            darker), `place` the z-score of that by place. Which one is chosen on validation scans.
    """

    profile: str
    cohort: str
    manifest: str
    contrast: str
    train_subjects: int
    val_subjects: int
    val_lesion_subjects: int
    test_subjects: int
    lesion_kinds: tuple[str, ...]
    extra_test_sets: tuple[str, ...]
    network: str
    noise: str
    schedule: str
    box_size: int
    stride: int
    timestep_power: float
    train_steps: int
    extra_seed_steps: int
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    warmup_steps: int
    learning_rate_decay: str
    ema_decay: float
    mixed_precision: str
    checkpoint_every: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    timesteps: tuple[int, ...]
    authors_timestep: int
    ddim_steps: int
    noise_levels: tuple[str, ...]
    level_choice: str
    selection_slice_step: int
    threads: int
    score: str

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"setting {name}={getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < (0 if field.name in _MAY_BE_ZERO else 1):
                raise InputError(f"setting {field.name}={value}; it must be positive")
        if not 0 <= self.ema_decay < 1 or self.learning_rate <= 0 or self.timestep_power <= 0:
            raise InputError("setting ema_decay must be in [0, 1), learning_rate and timestep_power above 0")
        for name in ("methods", "seeds", "timesteps", "lesion_kinds"):
            value = getattr(self, name)
            if not value or len(set(value)) < len(value):
                raise InputError(f"setting {name}={list(value)}; give at least one, each once")
        if set(self.lesion_kinds) - set(LESION_KINDS):
            raise InputError(f"setting lesion_kinds={list(self.lesion_kinds)}; choose among {', '.join(LESION_KINDS)}")
        if self.cohort == "ixi" and self.contrast != "T1":
            raise InputError(f"setting contrast={self.contrast!r}; the IXI scans at hand are T1")
        if self.cohort == "soop" and self.contrast != "FLAIR":
            raise InputError(f"setting contrast={self.contrast!r}; the SOOP slices are FLAIR")
        if (self.cohort == "manifest") != bool(self.manifest):
            raise InputError(
                f"setting manifest={self.manifest!r}, cohort={self.cohort!r}; the cohort 'manifest' needs "
                "a CSV, others take none"
            )
        for name in self.extra_test_sets:
            if not name.endswith(f"-{self.contrast.lower()}"):
                raise InputError(f"setting extra_test_sets: {name!r} is not {self.contrast}; leave it out")
        if "validation" not in self.noise_levels or not set(self.noise_levels) <= {"validation", "authors"}:
            raise InputError(f"setting noise_levels={list(self.noise_levels)}; use validation, authors")
        if any(not 0 <= t < 1000 for t in (*self.timesteps, self.authors_timestep)):
            raise InputError("setting timesteps: every index must be in 0..999")

    def steps_for(self, seed: int) -> int:
        """Optimiser steps of the model with this seed."""
        return self.train_steps if seed == self.seeds[0] else self.extra_seed_steps

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready mapping of all settings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def _convert(name: str, kind: str, value: Any) -> Any:
    """Check one value against the type written in `Settings`; ints pass for floats, lists for tuples."""
    kinds: dict[str, Any] = {
        "str": str,
        "int": int,
        "float": (int, float),
        "tuple[str, ...]": (list, tuple),
        "tuple[int, ...]": (list, tuple),
    }
    expected = kinds[kind]
    if kind == "float" and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            value = float(value)
        except ValueError:
            pass
    good = isinstance(value, expected) and not isinstance(value, bool)
    if good and kind.startswith("tuple"):
        member = str if "str" in kind else int
        good = all(isinstance(item, member) and not isinstance(item, bool) for item in value)
        value = tuple(value)
    if not good:
        raise InputError(f"setting {name}={value!r}; it must be of type {kind}")
    return float(value) if kind == "float" else value


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILE_FOLDER.glob("*.yaml"))


def _read_profile(name: str) -> dict[str, Any]:
    if not isinstance(name, str):
        raise InputError(f"profile {name!r} is no text; choose one of {', '.join(profile_names())}")
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILE_FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"profile {name!r} does not exist; choose one of {', '.join(profile_names())} "
            "or pass the path of a .yaml file"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({error}); mend the file") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a profile is a mapping of setting names to values")
    parent = values.pop("extends", None)
    return {**(_read_profile(parent) if parent else {}), **values, "profile": path.stem}


def load_settings(profile: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a profile, apply overrides, validate.

    Args:
        profile: a name such as `smoke` or `laptop`, or the path of a `.yaml` file; a file may `extends:` a profile.
        overrides: setting names and values that replace the profile's.

    Raises:
        InputError: unknown profile or setting, missing setting, value of the wrong type or out of range.

    Example:
        >>> load_settings("smoke", {"train_steps": 3}).train_steps
        3
    """
    values = {**_read_profile(profile), **(overrides or {})}
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InputError(f"unknown setting {', '.join(unknown)}; known settings: {', '.join(fields)}")
    missing = sorted(set(fields) - set(values))
    if missing:
        raise InputError(f"profile {profile!r}: missing setting {', '.join(missing)}")
    return Settings(**{name: _convert(name, str(field.type), values[name]) for name, field in fields.items()})
