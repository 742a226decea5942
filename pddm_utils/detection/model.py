"""A model that is ready to find anomalies: its pipeline, noise level and thresholds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import HEALTHY_PLACES, weights_folder
from pddm_utils.detection.z_score import PlaceStatistics
from pddm_utils.diffusion.fast_cpu import fast_cpu
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline
from pddm_utils.evaluation.thresholds import DEFAULT_RULE


@dataclass(frozen=True)
class DetectionModel:
    """A trained pipeline, and what was chosen for it on validation scans.

    Attributes:
        folder: where its weights and its `detection.json` lie.
        pipeline: makes a pseudo-healthy scan.
        facts: the content of `detection.json`.
    """

    folder: Path
    pipeline: PatchedReconstructionPipeline
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Such as `simulated-t2-pddpm`."""
        return self.folder.name

    @property
    def contrast(self) -> str:
        """The one contrast that it knows."""
        return self.facts["contrast"]

    @property
    def timestep(self) -> int:
        """Noise level, an index of the schedule, chosen on validation subjects."""
        return self.facts["timestep"]

    @property
    def alpha_bar(self) -> float:
        """Share of the slice's variance that is left at `timestep`."""
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


@lru_cache(maxsize=4)
def load_model(name: str) -> DetectionModel:
    """A shipped model, or one in a folder of the same form.

    Args:
        name: such as `simulated-t2-pddpm`, or the path of a folder.

    Raises:
        InputError: no such model, or it comes without noise level and thresholds.

    Example:
        >>> load_model("simulated-t2-pddpm").timestep
        818
    """
    folder = Path(name) if Path(name).is_dir() else weights_folder(name)
    facts = _facts(folder)
    fast_cpu()
    return DetectionModel(folder, load_pipeline(folder), facts)


def healthy_reference(name: str) -> dict[str, Any]:
    """What healthy scans look like to a shipped model, without loading its weights.

    Raises:
        InputError: as `load_model`.
    """
    return _facts(weights_folder(name))["reference"]


def _facts(folder: Path) -> dict[str, Any]:
    """Noise level, thresholds and healthy reference that lie beside a model's weights."""
    path = folder / "detection.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no detection.json with its noise level and thresholds; "
            "make it with: python -m pddm_utils.publish models"
        )
    return json.loads(path.read_text(encoding="utf-8"))
