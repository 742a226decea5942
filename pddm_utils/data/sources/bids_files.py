"""The files of a BIDS data set by what their names say: scans, brain masks, lesion masks."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pddm_utils.core.errors import InputError

SUFFIXES = {"T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR"}
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_NIFTI = re.compile(r"(.+)\.nii(?:\.gz)?", re.IGNORECASE)
_NOT_SEARCHED = {"sourcedata", "code", "stimuli"}  # and hidden folders, such as .git
_MASK = re.compile(r"(mask|roi|d?seg|probseg|lesions?|lesionmask|tumou?r)", re.IGNORECASE)  # the last part of a name
_LESION = re.compile(r"lesion|tumou?r|infarct|stroke|wmh", re.IGNORECASE)  # anywhere in a mask's name
_BRAIN = re.compile(r"(desc|label)-brain_mask$", re.IGNORECASE)
_OF_THE_MASK = {"label", "desc"}  # entities that say what a mask is, not of which scan
_GRID_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class BidsFile:
    """A NIfTI file of a data set.

    Attributes:
        path: absolute.
        entities: such as `{"sub": "01", "ses": "a", "run": "1"}`.
        words: the parts of its name that are no entities: the suffix at the end, and a scan's that a mask names.
    """

    path: Path
    entities: dict[str, str]
    words: tuple[str, ...]

    @property
    def visit(self) -> tuple[str, str]:
        """Subject and session; the session is empty where there is none."""
        return self.entities["sub"], self.entities.get("ses", "")

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return _ENDING.sub("", self.path.name)


def bids_files(folder: Path) -> list[BidsFile]:
    """All NIfTI files of a data set whose names begin with a subject, sorted; each folder is read once."""
    found, read = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in read:  # a link that leads back
            folders.clear()
            continue
        read.add(real)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _NOT_SEARCHED)
        for name in sorted(names):
            match = _NIFTI.fullmatch(name)
            if match and name.startswith("sub-"):  # not the `._sub-` of another system
                parts = [part.partition("-") for part in match[1].split("_")]
                entities = {key: value for key, dash, value in parts if dash}
                found.append(BidsFile(Path(place, name), entities, tuple(key for key, dash, _ in parts if not dash)))
    return found


def scans_of(files: Iterable[BidsFile], folder: Path, contrast: str) -> list[BidsFile]:
    """The anatomical scans of a contrast, below `sub-<label>/[ses-<label>/]anat/` of the data set itself.

    Scans with contrast medium (`ce-`), phase, real and imaginary parts are none of the contrast.
    """
    depths = (3, 4)
    return [
        file
        for file in files
        if file.words == (SUFFIXES[contrast],)
        and file.path.parent.name == "anat"
        and len(parts := file.path.relative_to(folder).parts) in depths
        and parts[0] == f"sub-{file.entities['sub']}"
        and "ce" not in file.entities
        and file.entities.get("part", "mag") == "mag"
    ]


class Masks:
    """The brain and lesion masks of a data set, found by subject.

    A mask is one of lesions where its name says so, or is a `_roi` or `_seg` without `label` and `desc`.

    Args:
        files: all files of the data set.

    Attributes:
        brain, lesion: masks by label of the subject.
        unknown: masks whose names do not say of what.
    """

    def __init__(self, files: Iterable[BidsFile]) -> None:
        self.brain: dict[str, list[BidsFile]] = defaultdict(list)
        self.lesion: dict[str, list[BidsFile]] = defaultdict(list)
        self.unknown: list[BidsFile] = []
        for file in files:
            if not file.words or not _MASK.fullmatch(file.words[-1]):
                continue
            is_named = not _OF_THE_MASK.isdisjoint(file.entities)
            if _BRAIN.search(file.stem):
                self.brain[file.entities["sub"]].append(file)
            elif _LESION.search(file.stem.partition("_")[2]) or (not is_named and file.words[-1] in ("roi", "seg")):
                self.lesion[file.entities["sub"]].append(file)
            elif not is_named and file.words == ("mask",):
                self.unknown.append(file)

    def brain_of(self, scan: BidsFile) -> str:
        """Path of the brain mask on a scan's grid; empty where there is none.

        Raises:
            InputError: several fit.
        """
        return _fitting(scan, self.brain[scan.entities["sub"]])

    def lesion_of(self, scan: BidsFile) -> str:
        """Path of the lesion mask on a scan's grid; empty where the subject has none in this session.

        Raises:
            InputError: several fit, or there are masks and none fits.
        """
        there = [mask for mask in self.lesion[scan.entities["sub"]] if _of_visit(mask, scan)]
        found = _fitting(scan, there)
        if there and not found:
            names = ", ".join(str(mask.path) for mask in there[:3])
            raise InputError(
                f"{scan.path}: has lesion masks, none of them on its grid ({names}); resample one to the scan as "
                f"derivatives/.../{scan.stem.rpartition('_')[0]}_label-lesion_mask.nii.gz, or write n/a as the "
                "subject's split in participants.tsv to leave it out"
            )
        return found


def _of_visit(mask: BidsFile, scan: BidsFile) -> bool:
    """Whether a mask may belong to a scan's session: it names the same one, or none."""
    return mask.entities.get("ses", scan.visit[1]) == scan.visit[1]


def _fitting(scan: BidsFile, masks: list[BidsFile]) -> str:
    """The mask of a scan: the one of its name, else the one of its session that lies on its grid."""
    masks = [mask for mask in masks if _of_visit(mask, scan)]
    fitting = [mask for mask in masks if _has_name_of(mask, scan)]
    if not fitting and masks and (grid := _grid(scan.path)) is not None:
        fitting = [mask for mask in masks if _is_of_acquisition(mask, scan) and _same_grid(_grid(mask.path), grid)]
    if len(fitting) > 1:
        raise InputError(
            f"{fitting[1].path}: a second mask of {scan.path.name} beside {fitting[0].path}; keep one of them in the "
            "data set"
        )
    return str(fitting[0].path) if fitting else ""


def _has_name_of(mask: BidsFile, scan: BidsFile) -> bool:
    """Whether a mask's name is the scan's, but for what says that it is a mask."""
    entities = {key: value for key, value in mask.entities.items() if key not in _OF_THE_MASK}
    suffix, described = scan.words[-1], mask.entities.get("desc", "").upper()
    others = {word for word in SUFFIXES if word in described} - {suffix.removesuffix("w")}
    return entities == scan.entities and set(mask.words[:-1]) <= {suffix} and not others


def _is_of_acquisition(mask: BidsFile, scan: BidsFile) -> bool:
    """Whether nothing in a mask's name contradicts the scan's, such as another run."""
    return all(mask.entities.get(key, value) == value for key, value in scan.entities.items())


def _grid(path: Path) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape and affine that a header states; None where it cannot be read."""
    try:
        image: Any = nib.load(path)
        return image.shape, image.affine
    except Exception:  # whatever a damaged file makes the reader raise: it has no grid
        return None


def _same_grid(first: tuple[tuple[int, ...], np.ndarray] | None, second: tuple[tuple[int, ...], np.ndarray]) -> bool:
    return first is not None and first[0] == second[0] and np.allclose(first[1], second[1], atol=_GRID_TOLERANCE_MM)
