"""The models and results that come with the project: where they lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from math import prod
from pathlib import Path

from safetensors import safe_open

from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings

HEALTHY_PLACES = "healthy_places.safetensors"  # beside a model: what healthy scans look like to it; no weights
_PACKAGE = Path(__file__).parent.parent


def weights_root() -> Path:
    """Folder of the shipped models: `weights/` of a checkout, or the copy inside an installed wheel."""
    return _shipped("weights")


def results_root() -> Path:
    """Folder of the full runs of the benchmark: `results/` of a checkout, or the copy inside an installed wheel."""
    return _shipped("results")


def _shipped(name: str) -> Path:
    installed = _PACKAGE / f"_{name}"
    return installed if installed.is_dir() else _PACKAGE.parent / name


def model_name(settings: Settings, method: str) -> str:
    """Name of a shipped model, such as `simulated-t2-pddpm`."""
    return f"{settings.cohort}-{settings.contrast.lower()}-{method}"


def weights_folder(name: str) -> Path:
    """Folder of the shipped model `name`.

    Raises:
        InputError: there is no such model.

    Example:
        >>> weights_folder("simulated-t2-pddpm").name
        'simulated-t2-pddpm'
    """
    folder = weights_root() / name
    if not (folder / "training.json").is_file():
        known = sorted(path.parent.name for path in weights_root().glob("*/training.json"))
        raise InputError(f"no shipped model {name!r}; choose one of {', '.join(known) or '(none)'}")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder, sorted; what lies beside the weights is none of them."""
    return sorted(path for path in folder.rglob("*.safetensors") if path.name != HEALTHY_PLACES)


def stored_parameters(folder: Path) -> int:
    """Number of parameters in the safetensors files of a model's folder: all that it needs at test time."""
    count = 0
    for path in weight_files(folder):
        with safe_open(path, framework="np") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())
    return count
