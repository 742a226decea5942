"""A model that is ready to find anomalies: its network, noise level and thresholds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import user_path
from pddm_utils.core.shipped import HEALTHY_PLACES, weights_folder, weights_root
from pddm_utils.data.scan import CONTRASTS, PERCENTILES, SCALINGS, Scan
from pddm_utils.detection.quality import HISTOGRAM_BINS, QUANTITIES
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.evaluation.places import PlaceStatistics
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.base import open_recorded
from pddm_utils.methods.network_method import WEIGHTS, NetworkMethod


@dataclass(frozen=True)
class DetectionModel:
    """A trained model, and what was chosen for it on validation scans.

    Attributes:
        folder: where its weights and its `detection.json` lie.
        rebuilder: makes a pseudo-healthy scan: the pipeline of a diffusion model, or a method of one pass such as DAE.
        facts: the content of `detection.json`.
    """

    folder: Path
    rebuilder: PatchedReconstructionPipeline | NetworkMethod
    facts: dict[str, Any]

    @property
    def pipeline(self) -> PatchedReconstructionPipeline:
        """That of a diffusion model.

        Raises:
            InputError: the model is none.
        """
        if isinstance(self.rebuilder, NetworkMethod):
            raise InputError(f"{self.name} is no diffusion model and has no pipeline; use its `reconstruct`")
        return self.rebuilder

    def reconstruct(self, scan: Scan) -> np.ndarray:
        """Pseudo-healthy volume, `(D, H, W)` float32 in [0, 1], at the model's noise level."""
        if isinstance(self.rebuilder, NetworkMethod):
            return self.rebuilder.reconstruct(scan)
        return self.rebuilder.reconstruct_volume(scan.image, scan.brain_mask, self.timestep)

    @property
    def name(self) -> str:
        """Such as `simulated-t2-pddpm`."""
        return self.folder.name

    @property
    def contrast(self) -> str:
        """The one contrast that it knows."""
        return self.facts["contrast"]

    @property
    def scaling(self) -> str:
        """How the intensities of its scans come to [0, 1], see `scale_to_unit_range`."""
        return self.facts.get("scaling", PERCENTILES)

    @property
    def level_mm(self) -> float | None:
        """MNI z of the one level of the brain that it knows, in mm; None for a model of whole brains."""
        return self.facts.get("level_mm")

    @property
    def timestep(self) -> int | None:
        """Noise level, an index of the schedule, chosen on validation subjects; None for a model without noise."""
        return self.facts.get("timestep")

    @property
    def alpha_bar(self) -> float:
        """Share of the slice's variance that is left at `timestep` of a diffusion model."""
        return self.pipeline.scheduler.alphas_cumprod[self.timestep].item()

    @property
    def thresholds(self) -> dict[str, float]:
        """Thresholds of the residual map by rule, such as `healthy-quantile-0.95`."""
        return self.facts["thresholds"]

    @property
    def threshold(self) -> float:
        """The threshold of the default rule: 99 % of healthy validation voxels lie below it."""
        return self.thresholds[DEFAULT_RULE]

    @property
    def z_score_threshold(self) -> float:
        """The same for the z-score map."""
        return self.facts["z_score_thresholds"][DEFAULT_RULE]

    def places(self) -> PlaceStatistics:
        """What the z-score map needs of a model.

        Raises:
            InputError: the model comes without it.
        """
        path = self.folder / HEALTHY_PLACES
        if not path.is_file() or "z_score_thresholds" not in self.facts:
            raise InputError(
                f"{path}: the z-score map needs this file, and thresholds of its own in detection.json; "
                "make both with: python -m pddm_utils.publish models, or take the residual map"
            )
        return PlaceStatistics.load(path)


def load_model(name: str | Path) -> DetectionModel:
    """A shipped model, or one in a folder of the same form; loaded again when its files change.

    Args:
        name: such as `simulated-t2-pddpm`, or the path of a folder. A folder in the working directory that bears the
            name of a shipped model is taken where the path says so: `./simulated-t2-pddpm`.

    Raises:
        InputError: no such model, a damaged one, or it comes without noise level and thresholds.

    Example:
        >>> load_model("simulated-t2-pddpm").timestep
        818
    """
    folder = _folder_of(name)
    facts = detection_facts(folder)
    fast_cpu()
    rebuilder = _rebuilder(folder, _state(folder))
    if not isinstance(rebuilder, NetworkMethod):
        if "timestep" not in facts:
            raise _damaged(folder, "KeyError: 'timestep'")
        if facts["timestep"] >= len(rebuilder.scheduler.alphas_cumprod):
            raise _damaged(folder, f"timestep {facts['timestep']} is beyond the model's schedule")
    return DetectionModel(folder, rebuilder, facts)


def shipped_facts(name: str) -> dict[str, Any]:
    """The `detection.json` of a shipped model, without loading its weights.

    Raises:
        InputError: as `load_model`.
    """
    return detection_facts(weights_folder(name))


def _folder_of(name: str | Path) -> Path:
    if Path(name).name == str(name) and (weights_root() / name / "detection.json").is_file():
        return weights_folder(str(name))
    folder = user_path(name).resolve()  # with a name of its own, also for "."
    return folder if folder.is_dir() else weights_folder(str(name))


@lru_cache(maxsize=4)
def _rebuilder(folder: Path, _: tuple[Any, ...]) -> PatchedReconstructionPipeline | NetworkMethod:
    """What lies in a folder, kept as long as its files stay as they are."""
    if not (folder / WEIGHTS).is_file():
        return load_pipeline(folder)
    method = open_recorded(folder)
    if not isinstance(method, NetworkMethod):
        raise InputError(f"{folder}: {method.name} rebuilds nothing that `detect` could use; take another model")
    return method


def _state(folder: Path) -> tuple[Any, ...]:
    """What changes whenever a file of a folder is written or replaced, also by a copy that keeps size and time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        (path, (facts := path.stat()).st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) for path in files
    )


def detection_facts(folder: Path) -> dict[str, Any]:
    """Noise level, thresholds and healthy reference that lie beside a model's weights."""
    path = folder / "detection.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no detection.json with its noise level and thresholds; "
            "make it with: python -m pddm_utils.publish models"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        _check_facts(facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from None
    return facts


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{folder / 'detection.json'}: damaged or of another program ({reason}); copy the model again, "
        "or make the file with: python -m pddm_utils.publish models"
    )


def _check_facts(facts: dict[str, Any]) -> None:
    """Raise an error of Python's own where a number that detection needs is missing or is none."""
    numbers = [facts[kind][DEFAULT_RULE] for kind in ("thresholds", "z_score_thresholds") if kind in facts]
    numbers += [facts["level_mm"]] if facts.get("level_mm") is not None else []
    reference = facts["reference"]
    for name in QUANTITIES:
        numbers += [reference["quantities"][name]["median"], reference["quantities"][name]["spread"]]
    if len(reference["histogram"]) != HISTOGRAM_BINS:
        raise ValueError(f"histogram of {len(reference['histogram'])} bins instead of {HISTOGRAM_BINS}")
    for number in (facts["thresholds"][DEFAULT_RULE], reference["scans"], *reference["histogram"], *numbers):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{number!r} in place of a number")
    if "timestep" in facts and (type(facts["timestep"]) is not int or facts["timestep"] < 0):
        raise ValueError(f"timestep {facts['timestep']!r}")
    if facts.get("scaling", PERCENTILES) not in SCALINGS:
        raise ValueError(f"scaling {facts['scaling']!r}")
    if facts["contrast"] not in CONTRASTS:
        raise ValueError(f"contrast {facts['contrast']!r}")
