"""Prepared scans in one small file, in 256 levels: for machines that have neither the scans nor what prepares them."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import SLICE_SIZE, Scan

LEVELS = 255  # of uint8: a packed value is within 0.002 of the prepared one


@dataclass(frozen=True)
class _Place:
    """Where a scan's slices lie among all, and its frame."""

    first: int
    slices: int
    affine: tuple[tuple[float, ...], ...]


def pack_scans(path: str | Path, scans: Iterable[tuple[ManifestRow, Scan]], facts: dict[str, Any]) -> None:
    """Write prepared scans: the voxels of the brain in 256 levels, and both masks, compressed.

    Names of files stay behind; subject, data set and split go along.

    Args:
        path: a `.safetensors` file, written whole or not at all (`InputError` where it cannot be).
        scans: rows of a manifest with their prepared scans.
        facts: JSON-ready, about all of them.
    """
    records, voxels, brains, lesions = [], [], [], []
    for row, scan in scans:
        levels = np.round(scan.image * LEVELS).astype(np.uint8)
        voxels.append(levels[scan.brain_mask])
        brains.append(np.packbits(scan.brain_mask))
        lesions.append(np.packbits(scan.lesion_mask))
        names = {name: getattr(row, name) for name in ("subject", "dataset", "split", "contrast")}
        records.append(
            {**names, "lesioned": bool(row.lesion_mask), "slices": len(levels), "affine": scan.affine.tolist()}
        )
    tensors = {
        name: np.frombuffer(lzma.compress(np.concatenate(parts).tobytes()), np.uint8)
        for name, parts in (("voxels", voxels), ("brain", brains), ("lesion", lesions))
    }
    with whole_file(path) as partial:
        save_file(tensors, partial, {"scans": json.dumps(records), "facts": json.dumps(facts)})


class PackedScans:
    """The scans of a file of `pack_scans`, in memory: a byte a pixel.

    Args:
        path: of the file.

    Attributes:
        rows: of a manifest, for whatever takes rows and a `PreparedScans`, which this is.
        facts: what was packed with them.
        levels: all slices, `(N, 96, 96)` uint8.

    Raises:
        InputError: no such file, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            with safe_open(path, framework="np") as file:
                described = file.metadata()
                records, self.facts = json.loads(described["scans"]), json.loads(described["facts"])
                voxels, brain, lesion = (
                    np.frombuffer(lzma.decompress(file.get_tensor(name).tobytes()), np.uint8)
                    for name in ("voxels", "brain", "lesion")
                )
            self.rows = [_row(record, number) for number, record in enumerate(records)]
            self._brain, self._lesion = (
                np.unpackbits(bits).astype(bool).reshape(-1, SLICE_SIZE, SLICE_SIZE) for bits in (brain, lesion)
            )
            self.levels = np.zeros(self._brain.shape, np.uint8)
            self.levels[self._brain] = voxels
            ends = np.cumsum([record["slices"] for record in records])
            if len(self.levels) != ends[-1]:
                raise ValueError("its slices are not as many as its table says")
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; copy the bundle again") from None
        except (OSError, SafetensorError, lzma.LZMAError, KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: damaged, or no file of packed scans ({error}); copy it again") from None
        self._places = {
            row: _Place(int(end) - record["slices"], record["slices"], tuple(map(tuple, record["affine"])))
            for row, record, end in zip(self.rows, records, ends, strict=True)
        }

    def load(self, row: ManifestRow) -> Scan:
        """The whole scan of a row."""
        place = self._places[row]
        part = slice(place.first, place.first + place.slices)
        image = self.levels[part].astype(np.float32) / LEVELS
        masks = (self._brain[part].copy(), self._lesion[part].copy())
        return Scan(row.subject, row.dataset, row.contrast, image, *masks, np.array(place.affine))

    def slice_count(self, row: ManifestRow) -> int:
        """Number of axial slices that are packed of a scan."""
        return self._places[row].slices

    def cached_slice(self, row: ManifestRow, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `(96, 96)` float32 in [0, 1] and brain mask `(96, 96)` bool of one slice (`IndexError`: none such)."""
        place = self._places[row]
        if not 0 <= index < place.slices:
            raise IndexError(f"slice {index} of {row.scan_id}, which has {place.slices}")
        return self.levels[place.first + index].astype(np.float32) / LEVELS, self._brain[place.first + index]

    def slices_of(self, rows: Sequence[ManifestRow]) -> np.ndarray:
        """All slices of these scans, `(N, 96, 96)` uint8, in 256 levels of [0, 1]."""
        places = [self._places[row] for row in rows]
        parts = [self.levels[place.first : place.first + place.slices] for place in places]
        return np.concatenate(parts) if parts else np.zeros((0, SLICE_SIZE, SLICE_SIZE), np.uint8)


def _row(record: dict[str, Any], number: int) -> ManifestRow:
    """A row whose image and lesion stand for themselves: there are no files."""
    image = f"packed:{number}"
    return ManifestRow(
        record["subject"],
        image,
        "",
        image if record["lesioned"] else "",
        record["split"],
        record["dataset"],
        record["contrast"],
    )
