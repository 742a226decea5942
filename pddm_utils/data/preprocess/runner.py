"""All scans of a manifest, side by side; a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

import numpy as np

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import cannot_write, replace_folder, user_path
from pddm_utils.core.side_by_side import side_by_side
from pddm_utils.data.manifest import COLUMNS, EXTRACT_BRAIN, ManifestRow, read_manifest, write_manifest
from pddm_utils.data.preprocess.checks import measure, pictures
from pddm_utils.data.preprocess.images import to_nifti
from pddm_utils.data.preprocess.masks import extractor
from pddm_utils.data.preprocess.plan import Plan
from pddm_utils.data.preprocess.registration import load_template
from pddm_utils.data.preprocess.subject import Subject, preprocess_scan
from pddm_utils.data.text_tables import read_table
from pddm_utils.data.volume import save_nifti

_LAYOUT = 2  # of a finished folder: another number makes every scan anew
_SAFE = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        row: of the input manifest.
        folder: with `image.nii.gz`, `brain_mask.nii.gz`, `lesion_mask.nii.gz` where there is one, `log.json`,
            `pictures.npy`.
        error: why there is none; empty for a scan that is done.
        was_done: found finished.
    """

    row: ManifestRow
    folder: Path
    error: str = ""
    was_done: bool = False


def preprocess_manifest(
    manifest: str | Path, out: str | Path, plan: Plan | None = None, jobs: int = 1
) -> list[Outcome]:
    """Preprocess every scan of a manifest; one that fails does not stop the others.

    Args:
        manifest: CSV as `read_manifest` takes it, with an optional column `t1`: the T1 scan of the same session, on
            which the brain of a T2 or FLAIR scan with `brain_mask` `extract` is found.
        out: folder for the results; the scans that went well are listed in its `manifest.csv`.
        plan: steps and parameters; the published ones when left out.
        jobs: scans side by side.

    Returns:
        One outcome a scan, in the manifest's order.

    Raises:
        InputError: the manifest or the template cannot be used, or nothing can be written.

    Example:
        >>> outcomes = preprocess_manifest("raw.csv", "prepared", jobs=4)  # doctest: +SKIP
    """
    plan, out, rows = plan or Plan(), Path(out), read_manifest(manifest)
    for row in rows:
        if not (_SAFE.fullmatch(row.dataset) and _SAFE.fullmatch(row.subject)):
            raise InputError(f"{manifest}: {row.scan_id}: names become folders; use letters, digits, '-', '_', '.'")
    t1 = _t1_scans(Path(manifest))
    if "register" in plan.steps:
        load_template(plan.template, plan.spacing_mm)
    calls = [(row, out / row.dataset / row.subject, plan, scan) for row, scan in zip(rows, t1, strict=True)]
    outcomes = list(side_by_side(_preprocess_one, calls, jobs))
    done = [_finished_row(outcome) for outcome in outcomes if not outcome.error]
    if done:
        write_manifest(done, out / "manifest.csv")
    return outcomes


def read_log(folder: Path) -> dict:
    """`log.json` of a finished scan: key, steps, quality numbers, versions."""
    return json.loads((folder / "log.json").read_text(encoding="utf-8"))


def _t1_scans(manifest: Path) -> list[str]:
    """The column `t1` as absolute paths; empty where there is none."""
    paths = []
    for record in read_table(manifest, COLUMNS):
        value = record.get("t1", "")
        path = manifest.resolve().parent / user_path(value)
        if value and not path.is_file():
            raise InputError(
                f"{manifest}: t1 file {path} does not exist; correct it (relative paths start at the manifest)"
            )
        paths.append(str(path) if value else "")
    return paths


def _preprocess_one(row: ManifestRow, folder: Path, plan: Plan, t1: str) -> Outcome:
    try:
        key = _key(row, plan, t1)
        if (folder / "log.json").is_file() and read_log(folder)["key"] == key:
            return Outcome(row, folder, was_done=True)
        raw, done = preprocess_scan(row, plan, t1)
        _save(row, folder, plan, key, raw, done)
    except InputError as error:
        return Outcome(row, folder, str(error))
    return Outcome(row, folder)


def _save(row: ManifestRow, folder: Path, plan: Plan, key: str, raw: Subject, done: Subject) -> None:
    """Write a scan's folder under a temporary name, then rename it."""
    partial = folder.with_name(f".partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        for name, image in (("image", done.image), ("brain_mask", done.brain), ("lesion_mask", done.lesion)):
            if image is not None:
                save_nifti(to_nifti(image), partial / f"{name}.nii.gz")
        np.save(partial / "pictures.npy", pictures(raw, done, plan), allow_pickle=False)
        log = {
            "key": key,
            "scan": row.scan_id,
            "image": Path(row.image).name,
            "plan": asdict(plan),
            "steps": done.log,
            "quality": measure(done, plan),
            "versions": _versions(),
        }
        (partial / "log.json").write_text(json.dumps(log, indent=1), encoding="utf-8")
        for path in partial.iterdir():
            with path.open("rb") as file:  # on disk before the folder has its name
                os.fsync(file.fileno())
        replace_folder(partial, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        rmtree(partial, ignore_errors=True)


def _versions() -> dict[str, str]:
    names = ("pddm-utils", "SimpleITK", "nilearn", "nibabel", "numpy")
    return {name: _version(name) for name in names} | {"extractor": extractor()}


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:  # run from a source folder that is not installed
        return "not installed"


def _key(row: ManifestRow, plan: Plan, t1: str) -> str:
    """Content of the input files, steps and versions: equal keys give equal results."""
    extract = row.brain_mask == EXTRACT_BRAIN
    choices = [_LAYOUT, asdict(plan), row.contrast, extract, _versions()]
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode())
    for path in _files(row, plan, t1):
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes() if path else b"").digest())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    return digest.hexdigest()


def _files(row: ManifestRow, plan: Plan, t1: str) -> Iterator[str]:
    yield row.image if row.simulated_index is None else ""
    yield "" if row.brain_mask == EXTRACT_BRAIN else row.brain_mask
    yield "" if row.inserted_lesion else row.lesion_mask
    yield t1 if row.brain_mask == EXTRACT_BRAIN and row.contrast != "T1" else ""
    yield plan.template if "register" in plan.steps else ""


def _finished_row(outcome: Outcome) -> ManifestRow:
    folder, lesion = outcome.folder.resolve(), outcome.row.lesion_mask
    if lesion and outcome.row.inserted_lesion is None:
        lesion = str(folder / "lesion_mask.nii.gz")
    return replace(
        outcome.row,
        image=str(folder / "image.nii.gz"),
        brain_mask=str(folder / "brain_mask.nii.gz"),
        lesion_mask=lesion,
    )
