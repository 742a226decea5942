"""Which code and which data a trained model comes from, and which model a run may use.

A model's folder is named by method, seed, a hash of its settings and a hash of its origin, so models of different
code or data lie side by side and none is lost. `<folder>.origin.json` beside it says the same in full: a training
that was interrupted and finished by other code lists both versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import data_digest

UNKNOWN = "unknown"  # of models that were trained before origins were written down
_CHECKPOINT = ".checkpoint.safetensors"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        code: versions of the code that trained it, one after another; as a rule one.
        data: hash of the scans it learnt from and was validated on.
    """

    code: tuple[str, ...]
    data: str

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits for the name of a folder."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


def training_origin(code: str, rows: Sequence[ManifestRow]) -> Origin:
    """The origin of a model that this code trains on these scans from the first step to the last."""
    return Origin((code,), data_digest(rows))


def read_origin(folder: Path) -> Origin:
    """What is written about a model's folder; `unknown` where nothing is."""
    path = _record(folder)
    if not path.is_file():
        return Origin((UNKNOWN,), UNKNOWN)
    record = json.loads(path.read_text(encoding="utf-8"))
    return Origin(tuple(record["code"]), record["data"])


def find_folder(models: Path, name: str, wanted: Origin, accept_code_change: bool) -> Path:
    """The folder to use for a model: there already, half trained, or to be made.

    Args:
        models: folder of all models.
        name: method, seed and hash of the settings.
        wanted: code and data at hand.
        accept_code_change: rather than train anew, take a finished model, or else a checkpoint, of other code and the
            same data. Without a word about its data it counts as the same.

    Raises:
        InputError: what lies under the wanted name was trained, in part, by other code.
    """
    folder = models / f"{name}-{wanted.digest}"
    if not accept_code_change:
        if is_started(folder) and read_origin(folder) != wanted:
            raise InputError(
                f"{folder}: code {' and '.join(read_origin(folder).code)} trained it; pass "
                "--accept-code-change to use it, or delete it to train anew"
            )
        return folder
    fitting = [other for other in other_folders(folder) if read_origin(other).data in (wanted.data, UNKNOWN)]
    finished = [other for other in fitting if is_finished(other)]
    if is_finished(folder) or not fitting:
        return folder
    return finished[-1] if finished else folder if is_started(folder) else fitting[-1]


def other_folders(folder: Path) -> list[Path]:
    """Folders, finished or half trained, of the same method, seed and settings but another origin, newest last."""
    method, seed, settings = folder.name.rsplit("-", 3)[:3]
    paths = [
        path
        for path in folder.parent.glob(f"{method}-{seed}-{settings}*")
        if path.name.endswith(_CHECKPOINT) or is_finished(path)
    ]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    folders = dict.fromkeys(path.with_name(path.name.removesuffix(_CHECKPOINT)) for path in paths)
    return [path for path in folders if path != folder]


def is_finished(folder: Path) -> bool:
    """Whether a finished model lies there."""
    return (folder / "training.json").is_file()


def is_started(folder: Path) -> bool:
    """Whether a finished model or a checkpoint lies there."""
    return is_finished(folder) or folder.with_name(folder.name + _CHECKPOINT).is_file()


def start_origin(folder: Path, now: Origin) -> None:
    """Write down who trains a model from here on; a finished one is left as it is.

    Args:
        folder: of the model.
        now: code and data at hand.
    """
    if is_finished(folder):
        return
    if is_started(folder):
        before = read_origin(folder)
        code = before.code if before.code[-1:] == now.code else before.code + now.code
        now = Origin(code, now.data if before.data == UNKNOWN else before.data)
    write_text(_record(folder), json.dumps(asdict(now)) + "\n")


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.origin.json")
