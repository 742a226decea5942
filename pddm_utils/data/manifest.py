"""The manifest: one table of scans, whatever their source."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import user_path, whole_file
from pddm_utils.core.settings import LESION_KINDS
from pddm_utils.data.scan import CONTRASTS, PERCENTILES, SCALINGS
from pddm_utils.data.scan_file import no_file
from pddm_utils.data.text_tables import read_table

SPLITS = ("train", "val", "test")
AGAIN = "-again"  # ends the name of a data set of second insertions into the same validation scans
EXTRACT_BRAIN = "extract"  # brain_mask value: use the fallback extraction

_SIMULATED = re.compile(r"simulated:(\d+)")
_PACKED = re.compile(r"packed:(.+):(\d+)", re.DOTALL)
_INSERTED = re.compile(rf"insert:({'|'.join(LESION_KINDS)}):(\d+)(?::(.+))?")
_DONORS = {"real-shape": 1, "real-ms": 1, "foreign-patch": 2}  # files that a kind of lesion takes
_BETWEEN_DONORS = "|"


@dataclass(frozen=True)
class ManifestRow:
    """One scan of the manifest.

    Attributes:
        subject: identifier of the person or the simulated anatomy; it belongs to one split only.
        image: absolute path of a NIfTI file, `simulated:<index>`, or `packed:<file>:<number>` of prepared scans.
        brain_mask: absolute path, see `load_brain_mask`; empty for skull-stripped and simulated images;
            `extract` for the fallback extraction from a T1 scan with skull.
        lesion_mask: empty (healthy), an absolute path, or `insert:<kind>:<seed>` (a lesion is drawn into the image).
            Kinds that take something from elsewhere name its absolute paths: `insert:real-shape:<seed>:<mask>`,
            `insert:real-ms:<seed>:<mask>`, `insert:foreign-patch:<seed>:<image>|<brain mask>`.
        split: `"train"`, `"val"` or `"test"`.
        dataset: name of the data set, such as `ixi-t1-healthy`.
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        scaling: how intensities come to [0, 1], see `scale_to_unit_range`; a CSV has this column only where a scan is
            not scaled by percentiles.
    """

    subject: str
    image: str
    brain_mask: str
    lesion_mask: str
    split: str
    dataset: str
    contrast: str
    scaling: str = PERCENTILES

    @property
    def scan_id(self) -> str:
        """`dataset/subject`: unique within a manifest."""
        return f"{self.dataset}/{self.subject}"

    @property
    def simulated_index(self) -> int | None:
        """Index of the simulated anatomy; None for an image file."""
        match = _SIMULATED.fullmatch(self.image)
        return int(match[1]) if match else None

    @property
    def packed(self) -> tuple[str, int] | None:
        """File of packed scans, and the number of this one in it; None for any other image."""
        match = _PACKED.fullmatch(self.image)
        return (match[1], int(match[2])) if match else None

    @property
    def inserted_lesion(self) -> tuple[str, int] | None:
        """`(kind, seed)` of the lesion to insert; None for a healthy scan or a lesion mask file."""
        match = _INSERTED.fullmatch(self.lesion_mask)
        return (match[1], int(match[2])) if match else None

    def without_lesion(self) -> ManifestRow:
        """The same row without a lesion to insert."""
        return replace(self, lesion_mask="")

    @property
    def donors(self) -> tuple[str, ...]:
        """Paths of the files that the lesion to insert takes its shape or content from; as a rule none."""
        match = _INSERTED.fullmatch(self.lesion_mask)
        return tuple(match[3].split(_BETWEEN_DONORS)) if match and match[3] else ()


def inserted(kind: str, seed: int, *donors: str | Path) -> str:
    """The cell `lesion_mask` of a scan into which a lesion is drawn.

    Example:
        >>> inserted("tumour", 7)
        'insert:tumour:7'
    """
    files = _BETWEEN_DONORS.join(map(str, donors))
    return f"insert:{kind}:{seed}" + (f":{files}" if files else "")


def lesion_family(dataset: str) -> str:
    """The data set that a second insertion into the same scans belongs to: `ixi-t1-ms` for `ixi-t1-ms-again`."""
    return dataset.removesuffix(AGAIN)


_ALL_COLUMNS = tuple(field.name for field in fields(ManifestRow))
COLUMNS = _ALL_COLUMNS[:-1]  # those that every manifest has
_OPTIONAL = ("brain_mask", "lesion_mask")
_FILE_COLUMNS = ("image", *_OPTIONAL)


def read_manifest(path: str | Path) -> list[ManifestRow]:
    """Read and check a manifest CSV.

    Its columns are `subject, image, brain_mask, lesion_mask, split, dataset, contrast`.

    Args:
        path: the CSV, in any form that `read_table` takes; paths in it are relative to its folder, or absolute. Further
            columns are ignored.

    Returns:
        The rows in file order, with absolute paths.

    Raises:
        InputError: the CSV is missing, unreadable or empty, lacks a column, or fails `check_rows`.

    Example:
        >>> rows = read_manifest("scans.csv")            # doctest: +SKIP
        >>> [row for row in rows if row.split == "test"]  # doctest: +SKIP
    """
    path = user_path(path)
    if not path.exists():
        raise InputError(f"{path}: no such manifest; give the path of a CSV with the columns {', '.join(COLUMNS)}")
    records = read_table(path, COLUMNS)
    folder = path.resolve().parent
    rows = [_row_of(record, folder) for record in records]
    check_rows(rows, source=path)
    return rows


def write_manifest(rows: Iterable[ManifestRow], path: str | Path) -> None:
    """Check the rows and write them as CSV, in one step: an existing file is replaced whole or not at all.

    Args:
        rows: manifest rows; files below the CSV's folder are written relative to it, so that both can
            move together.
        path: the CSV to write; its folder is made when missing.

    Raises:
        InputError: the rows fail `check_rows`, or the file cannot be written.
    """
    rows, path = list(rows), user_path(path)
    check_rows(rows, source=path)
    folder = path.resolve().parent
    columns = _ALL_COLUMNS if any(row.scaling != PERCENTILES for row in rows) else COLUMNS
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(astuple(_relative_to(row, folder))[: len(columns)] for row in rows)


def check_rows(rows: Iterable[ManifestRow], source: str | Path = "manifest") -> None:
    """Check that rows are complete, that their files exist and that no subject is in two splits.

    Args:
        rows: manifest rows with absolute paths.
        source: the file named in error messages.

    Raises:
        InputError: one message that lists every problem found (the first ten).
    """
    rows = list(rows)
    problems = [f"{row.scan_id}: {problem}" for row in rows for problem in _row_problems(row)]
    images: dict[str, list[str]] = {}
    for row in rows:
        images.setdefault(row.scan_id, []).append(row.image)
    problems += [
        f"{scan_id}: listed {len(listed)} times ({', '.join(listed[:3])}); keep one row for each dataset and subject"
        for scan_id, listed in images.items()
        if len(listed) > 1
    ]
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.subject, set()).add(row.split)
    problems += [
        f"subject {subject} is in the splits {' and '.join(sorted(names))}; keep all scans of a subject in one split, "
        "or name two people apart"
        for subject, names in splits.items()
        if len(names) > 1
    ]
    if problems:
        more = f"\n  ... and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise InputError(f"{source}: " + "\n  ".join(problems[:10]) + more)


def _row_problems(row: ManifestRow) -> Iterator[str]:
    """Everything wrong with one row by itself."""
    for column in COLUMNS:
        if column not in _OPTIONAL and not getattr(row, column):
            yield f"{column} is empty; fill it in"
    if row.split and row.split not in SPLITS:
        yield f"unknown split {row.split!r}; use one of {', '.join(SPLITS)}"
    if row.contrast and row.contrast not in CONTRASTS:
        yield f"unknown contrast {row.contrast!r}; use one of {', '.join(CONTRASTS)}"
    if row.scaling not in SCALINGS:
        yield f"unknown scaling {row.scaling!r}; use one of {', '.join(SCALINGS)}"
    if row.image.startswith("simulated:"):
        if row.simulated_index is None:
            yield f"malformed image {row.image!r}; write simulated:<index>, such as simulated:3"
        if row.brain_mask:
            yield "a simulated image brings its own brain mask; leave brain_mask empty"
    if row.lesion_mask.startswith("insert:") and row.inserted_lesion is None:
        yield (
            f"malformed lesion_mask {row.lesion_mask!r}; write insert:<kind>:<seed> with kind "
            f"{', '.join(LESION_KINDS[:-1])} or {LESION_KINDS[-1]} and a whole number, such as insert:tumour:7"
        )
    if row.inserted_lesion is not None:
        kind, needed = row.inserted_lesion[0], _DONORS.get(row.inserted_lesion[0], 0)
        if len(row.donors) != needed:
            yield f"lesion_mask {row.lesion_mask!r}: {kind} takes {needed} file(s), not {len(row.donors)}"
        for donor in row.donors:
            if problem := _file_problem(Path(donor)):
                yield f"lesion_mask file {problem}"
    for column in _FILE_COLUMNS:
        value = getattr(row, column)
        if value and not _is_special(value) and (problem := _file_problem(Path(value))):
            yield f"{column} file {problem}"


def _file_problem(path: Path) -> str:
    """Why a file cannot be used; empty where it is there."""
    try:
        if path.is_file():
            return ""
        if not path.exists() and not path.is_symlink():
            return f"{path} does not exist; correct it (relative paths start at the manifest)"
    except OSError:  # a name that no file can have, a folder that may not be looked into
        pass
    return str(no_file(path))


def _is_special(value: str) -> bool:
    return value == EXTRACT_BRAIN or value.startswith(("simulated:", "insert:"))


def contrast_named(name: str) -> str:
    """A contrast as this project writes it: `T2` for `t2` or `T2w`; any other word as it is."""
    return next((contrast for contrast in CONTRASTS if name.upper() in (contrast, f"{contrast}W")), name)


def _row_of(record: dict[str, str], folder: Path) -> ManifestRow:
    """One record as a row with absolute paths, split and contrast as this project writes them."""
    values = {column: record[column] for column in COLUMNS}
    values |= {"split": values["split"].lower(), "contrast": contrast_named(values["contrast"])}
    values["scaling"] = record.get("scaling") or PERCENTILES
    for column in _FILE_COLUMNS:
        if values[column] and not _is_special(values[column]):
            values[column] = str(folder / user_path(values[column]))
    return ManifestRow(**values)


def _relative_to(row: ManifestRow, folder: Path) -> ManifestRow:
    """The row with every file below `folder` written relative to it."""
    short = {
        column: Path(getattr(row, column)).relative_to(folder).as_posix()
        for column in _FILE_COLUMNS
        if Path(getattr(row, column)).is_relative_to(folder)
    }
    return replace(row, **short)
