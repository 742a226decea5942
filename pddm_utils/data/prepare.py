"""Preparation: from a manifest row to a scan in the 2 mm frame, with a cache on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import cannot_write, whole_file
from pddm_utils.core.side_by_side import side_by_side
from pddm_utils.data.brain import extract_brain, stripped_brain
from pddm_utils.data.frame import Frame, to_frame
from pddm_utils.data.insertion import insert_into
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.mask_files import load_brain_mask, load_lesion_mask
from pddm_utils.data.packed import open_packed
from pddm_utils.data.scan import PERCENTILES, SLICE_SIZE, VOXEL_SIZE_MM, Scan, scale_to_unit_range
from pddm_utils.data.scan_file import no_file
from pddm_utils.data.simulation.anatomy import simulate_anatomy
from pddm_utils.data.simulation.tissues import Tissues, estimate_tissues
from pddm_utils.data.volume import LoadedVolume, load_volume

# Part of every cache key: raise it whenever a prepared scan comes out different from the same files.
_PREPARATION = 2
_ARRAYS = {"image": np.dtype(np.float32), "brain_mask": np.dtype(bool), "lesion_mask": np.dtype(bool)}
_TWIN = "twin.npy"  # beside them, where a lesion was inserted
_ABANDONED_SECONDS = 86_400  # a partial entry this old belongs to a process that was killed


def prepare_scan(row: ManifestRow) -> Scan:
    """Prepare one scan from scratch: read or simulate, bring to the frame, insert a lesion, scale to [0, 1].

    Args:
        row: its image is read from disk or simulated; with `insert:<kind>:<seed>` a lesion is drawn into the
            raw intensities, see `insert_into`.

    Returns:
        The scan.

    Raises:
        InputError: the scan's files cannot be used (one message naming the file and the remedy).
    """
    return _prepare(row)[0]


@threadpool_limits.wrap(limits=1, user_api="blas")  # sums of several threads have other last digits
def _prepare(row: ManifestRow) -> tuple[Scan, np.ndarray | None]:
    """The scan, and where a lesion was inserted its healthy twin `(D, H, W)`, scaled as the scan is."""
    if row.packed is not None:
        file, number = row.packed
        return open_packed(file).load(number), None
    if row.inserted_lesion is None:
        frame = (
            _frame_of_files(row) if row.simulated_index is None else _simulated(row.simulated_index, row.contrast)[0]
        )
        image, lesion_mask = frame.image, frame.lesion_mask
    else:
        if row.simulated_index is not None:
            frame, tissues = _simulated(row.simulated_index, row.contrast)
        else:
            frame, tissues = _with_tissues(row.image, row.brain_mask, row.contrast, _cache_key(row.without_lesion()))
        image, lesion_mask = insert_into(frame, tissues, row, _frame_of_files)
    try:
        scaled = scale_to_unit_range(image, frame.brain_mask, row.scaling)
        twin = None
        if row.inserted_lesion is not None:
            twin = scale_to_unit_range(frame.image, frame.brain_mask, row.scaling, like=image)
    except ValueError as error:
        raise InputError(f"{row.image}: {error}; check the brain mask") from None
    return Scan(row.subject, row.dataset, row.contrast, scaled, frame.brain_mask, lesion_mask, frame.affine), twin


def _simulated(index: int, contrast: str) -> tuple[Frame, Tissues]:
    """A simulated healthy anatomy."""
    anatomy = simulate_anatomy(index, contrast)
    none = np.zeros_like(anatomy.brain_mask)
    return Frame(anatomy.image, anatomy.brain_mask, none, anatomy.affine), anatomy.tissues


@lru_cache(maxsize=1)  # lesions of several kinds go into the same scan, one after another
def _with_tissues(image: str, brain_mask: str, contrast: str, content: str) -> tuple[Frame, Tissues]:
    """A healthy scan in the frame and its tissues; `content`, a hash of the files, tells changed ones apart."""
    frame = _frame_of_files(ManifestRow("", image, brain_mask, "", "", "", contrast))
    return frame, estimate_tissues(frame.image, frame.brain_mask, contrast)


def brain_of_row(row: ManifestRow) -> tuple[LoadedVolume, np.ndarray]:
    """A scan from its file, and its brain mask `(X, Y, Z)` bool on the same grid.

    Raises:
        InputError: as `prepare_scan`.
    """
    loaded = load_volume(row.image)
    if row.brain_mask == EXTRACT_BRAIN:
        if row.contrast != "T1":
            raise InputError(f"{row.image}: brain extraction is for T1 scans, not {row.contrast}; give a brain mask")
        return loaded, extract_brain(loaded)
    return loaded, load_brain_mask(row.brain_mask, loaded) if row.brain_mask else stripped_brain(loaded)


def _frame_of_files(row: ManifestRow) -> Frame:
    loaded, inside = brain_of_row(row)
    lesion_path = row.lesion_mask if row.inserted_lesion is None else ""
    return to_frame(loaded, inside, load_lesion_mask(lesion_path, loaded) if lesion_path else None)


def load_scan(row: ManifestRow, cache: ScanCache) -> Scan:
    """The prepared scan of a manifest row, from the cache where it is there and else prepared now.

    Args:
        row: a manifest row.
        cache: where prepared scans are kept.

    Returns:
        The scan, in memory.

    Raises:
        InputError: as `prepare_scan`.
    """
    return cache.load(row)


def load_twin(row: ManifestRow, cache: ScanCache) -> np.ndarray:
    """The healthy twin of a scan with an inserted lesion, `(D, H, W)` float32: the scan before, on the same scale.

    Raises:
        InputError: as `prepare_scan`, or no lesion was inserted: nobody knows the healthy twin of a patient.
    """
    if row.inserted_lesion is None:
        raise InputError(f"{row.scan_id}: no lesion was inserted, so there is no healthy twin; take a row with one")
    return cache.load_twin(row)


@dataclass(frozen=True)
class _Entry:
    """Where a prepared scan lies: its folder, the slice count and the byte offset of each array's data."""

    folder: Path
    slices: int
    affine: tuple[tuple[float, ...], ...]
    offsets: dict[str, int]


class ScanCache:
    """Prepared scans on disk, keyed by their files' content and the lesion to insert.

    Every entry is a folder with `image.npy`, `brain_mask.npy`, `lesion_mask.npy` and `meta.json`, and `twin.npy` where
    a lesion was inserted. It appears
    in one step (written under a temporary name, then renamed), so processes may share a cache and a killed
    one leaves no broken entry. Deleting the folder is safe while nothing runs: scans are then prepared anew.

    Args:
        folder: where entries are kept; made when missing.

    Example:
        >>> cache = ScanCache(".cache/scans")                       # doctest: +SKIP
        >>> image, brain_mask = cache.cached_slice(rows[0], 30)     # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        self._entries: dict[ManifestRow, _Entry] = {}
        for partial in self.folder.glob(".partial-*"):
            if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)

    def load(self, row: ManifestRow) -> Scan:
        """The whole prepared scan of `row`, prepared now if it is not in the cache.

        Raises:
            InputError: as `prepare_scan`, or the cache cannot be written.
        """
        entry = self._entry(row)
        arrays = {name: np.load(entry.folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS}
        return Scan(row.subject, row.dataset, row.contrast, affine=np.array(entry.affine), **arrays)

    def load_twin(self, row: ManifestRow) -> np.ndarray:
        """The healthy twin of `row`, see the function of that name; made for entries that are older than twins."""
        path = self._entry(row).folder / _TWIN
        if not path.is_file():
            with whole_file(path) as partial, partial.open("wb") as stream:
                np.save(stream, np.asarray(_prepare(row)[1]), allow_pickle=False)
        return np.load(path, allow_pickle=False)

    def slice_count(self, row: ManifestRow) -> int:
        """Number of axial slices of the prepared scan of `row` (all hold brain)."""
        return self._entry(row).slices

    def cached_slice(self, row: ManifestRow, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One axial slice, read from disk without the rest of the volume.

        Args:
            row: a manifest row.
            index: slice, 0 (inferior) to `slice_count(row) - 1`.

        Returns:
            The image `(96, 96)` float32 in [0, 1], and the brain mask `(96, 96)` bool.

        Raises:
            IndexError: no such slice.
            InputError: as `prepare_scan`.
        """
        entry = self._entry(row)
        if not 0 <= index < entry.slices:
            raise IndexError(f"slice {index} of {row.scan_id}, which has {entry.slices}")
        return _read_slice(entry, "image", index), _read_slice(entry, "brain_mask", index)

    def _entry(self, row: ManifestRow) -> _Entry:
        """The entry of a row; files are hashed once for each row and cache object."""
        if row not in self._entries:
            folder = self.folder / _cache_key(row)
            if not folder.is_dir():
                scan, twin = _prepare(row)
                self._write(scan, twin, folder)
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            offsets = {name: np.load(folder / f"{name}.npy", mmap_mode="r").offset for name in _ARRAYS}
            affine = tuple(map(tuple, meta["affine"]))
            self._entries[row] = _Entry(folder, meta["shape"][0], affine, offsets)
        return self._entries[row]

    def _write(self, scan: Scan, twin: np.ndarray | None, folder: Path) -> None:
        partial = self.folder / f".partial-{uuid.uuid4().hex}"
        arrays = {f"{name}.npy": getattr(scan, name).astype(dtype) for name, dtype in _ARRAYS.items()}
        try:
            partial.mkdir()
            for name, values in (arrays | ({} if twin is None else {_TWIN: twin})).items():
                with (partial / name).open("wb") as stream:
                    np.save(stream, values, allow_pickle=False)
                    stream.flush()
                    os.fsync(stream.fileno())  # the data must be on disk before the entry's name is
            meta = {
                "shape": scan.image.shape,
                "affine": scan.affine.tolist(),
                "contrast": scan.contrast,
                "voxel_size_mm": VOXEL_SIZE_MM,
            }
            (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was first, with the same content
                    raise
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def prepare_all(rows: Sequence[ManifestRow], cache: ScanCache, progress: bool = True, jobs: int = 1) -> None:
    """Prepare every scan into the cache; an unusable scan does not stop the others.

    Args:
        rows: manifest rows.
        cache: where prepared scans are kept; what it already holds costs nothing.
        progress: show a progress bar with the time left.
        jobs: processes side by side.

    Raises:
        InputError: after all scans were tried: one line for each that cannot be used.
    """
    with warnings.catch_warnings():
        # joblib takes the brain template that a worker loads for a leak, and replaces the worker.
        warnings.filterwarnings("ignore", message="A worker stopped")
        tried = side_by_side(_problem, [(row, cache) for row in rows], jobs)
        found = tqdm(tried, total=len(rows), desc="preparing scans", unit="scan", disable=not progress)
        problems = [problem for problem in found if problem]
    if problems:
        raise InputError(
            f"{len(problems)} of {len(rows)} scans cannot be used (the others are prepared):\n  "
            + "\n  ".join(problems)
        )


def _problem(row: ManifestRow, cache: ScanCache) -> str:
    """Prepare one scan into the cache; what is wrong with it, or nothing."""
    try:
        cache.slice_count(row)
    except InputError as error:
        return f"{row.scan_id}: {error}"
    return ""


def data_digest(rows: Sequence[ManifestRow]) -> str:
    """Hash of these scans in their order: names, split, contrast and what their files hold, wherever they lie.

    Args:
        rows: manifest rows; each file is read once in the life of a process.

    Returns:
        Twelve hexadecimal digits.

    Raises:
        InputError: a file cannot be read.
    """
    content = [
        (
            row.subject,
            row.dataset,
            row.split,
            row.contrast,
            *map(_content_hash, (row.image, row.brain_mask, row.lesion_mask)),
            *_scaling_key(row),
        )
        for row in rows
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _cache_key(row: ManifestRow) -> str:
    """Hash of all that a prepared scan depends on; names of subject, data set and files are no part of it."""
    parts = [str(_PREPARATION), row.contrast]
    parts += [_content_hash(value) for value in (row.image, row.brain_mask, row.lesion_mask)]
    parts += _scaling_key(row)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]


def _scaling_key(row: ManifestRow) -> list[str]:
    """Nothing for the usual scaling, so that what was prepared before there was another one keeps its key."""
    return [] if row.scaling == PERCENTILES else [row.scaling]


def _content_hash(value: str) -> str:
    """Hash of a file's bytes; empty cells and `simulated:`, `insert:`, `extract` stand for themselves."""
    if packed := ManifestRow("", value, "", "", "", "", "").packed:
        return f"packed:{_content_hash(packed[0])}:{packed[1]}"
    if not value or value == EXTRACT_BRAIN or value.startswith("simulated:"):
        return value
    if value.startswith("insert:"):
        lesion = ManifestRow("", "", "", value, "", "", "")
        return ":".join(["insert", *map(str, lesion.inserted_lesion or ()), *map(_content_hash, lesion.donors)])
    try:
        facts = Path(value).stat()
        return _file_hash(value, facts.st_size, facts.st_mtime_ns)
    except OSError:
        raise no_file(Path(value)) from None


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, changed_ns: int) -> str:
    """Hash of a file's bytes, taken again when size or time of change are new."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_slice(entry: _Entry, name: str, index: int) -> np.ndarray:
    # Plain reads, not a memory map: opening a map costs more than the slice.
    dtype = _ARRAYS[name]
    count = SLICE_SIZE * SLICE_SIZE
    offset = entry.offsets[name] + index * count * dtype.itemsize
    values = np.fromfile(entry.folder / f"{name}.npy", dtype, count, offset=offset)
    return values.reshape(SLICE_SIZE, SLICE_SIZE)
