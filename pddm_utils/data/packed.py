"""Prepared scans in one small file, in 256 levels: for machines that have neither the scans nor what prepares them.

A row whose image is `packed:<file>:<number>` stands for one of them: whatever takes rows takes these too.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Sequence
from functools import lru_cache
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


def pack_scans(path: str | Path, scans: Iterable[tuple[ManifestRow, Scan]], facts: dict[str, Any]) -> None:
    """Write prepared scans: the voxels of the brain in 256 levels, and both masks, compressed.

    Names of files stay behind; subject, data set and split go along. Of a scan with a twin before it (the same subject
    and the same brain mask, as where a lesion was inserted) the differences are written: they compress to a third.

    Args:
        path: a `.safetensors` file, written whole or not at all (`InputError` where it cannot be).
        scans: rows of a manifest with their prepared scans.
        facts: JSON-ready, about all of them.
    """
    records, voxels, brains, lesions = [], [], [], []
    known: dict[tuple[str, bytes], tuple[int, np.ndarray]] = {}
    for number, (row, scan) in enumerate(scans):
        values = np.round(scan.image[scan.brain_mask] * LEVELS).astype(np.uint8)
        brain = np.packbits(scan.brain_mask)
        twin, before = known.setdefault((row.subject, brain.tobytes()), (number, values))
        voxels.append(values if twin == number else values - before)  # modulo 256
        brains.append(brain)
        lesions.append(np.packbits(scan.lesion_mask))
        names = {name: getattr(row, name) for name in ("subject", "dataset", "split", "contrast")}
        about = {"lesioned": bool(row.lesion_mask), "slices": len(scan.image), "affine": scan.affine.tolist()}
        records.append({**names, **about, "twin": None if twin == number else twin})
    tensors = {
        name: np.frombuffer(lzma.compress(np.concatenate(parts).tobytes()), np.uint8)
        for name, parts in (("voxels", voxels), ("brain", brains), ("lesion", lesions))
    }
    with whole_file(path) as partial:
        save_file(tensors, partial, {"about": json.dumps({"scans": records, "facts": facts})})  # several have no order


class PackedScans:
    """The scans of a file of `pack_scans`, in memory: a byte a pixel.

    Args:
        path: of the file.

    Attributes:
        path: of the file.
        rows: of a manifest.
        facts: what was packed with them.
        levels: all slices, `(N, 96, 96)` uint8.

    Raises:
        InputError: no such file, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads(file.metadata()["about"])
                self._records, self.facts = about["scans"], about["facts"]
                voxels, brain, lesion = (
                    np.frombuffer(lzma.decompress(file.get_tensor(name).tobytes()), np.uint8)
                    for name in ("voxels", "brain", "lesion")
                )
            self.rows = [_row(record, path, number) for number, record in enumerate(self._records)]
            self._brain, self._lesion = (
                np.unpackbits(bits).astype(bool).reshape(-1, SLICE_SIZE, SLICE_SIZE) for bits in (brain, lesion)
            )
            self.levels = np.zeros(self._brain.shape, np.uint8)
            self.levels[self._brain] = voxels
            self._ends = np.cumsum([record["slices"] for record in self._records])
            if len(self.levels) != self._ends[-1]:
                raise ValueError("its slices are not as many as its table says")
            for number, record in enumerate(self._records):
                if record["twin"] is not None:
                    self.levels[self._part(number)] += self.levels[self._part(record["twin"])]
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; copy the bundle again") from None
        except (OSError, SafetensorError, lzma.LZMAError, KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: damaged, or no file of packed scans ({error}); copy it again") from None

    def _part(self, number: int) -> slice:
        """The slices of a scan among all."""
        return slice(self._ends[number] - self._records[number]["slices"], self._ends[number])

    def slice_count(self, number: int) -> int:
        """Number of axial slices of a scan."""
        return self._records[number]["slices"]

    def load(self, number: int) -> Scan:
        """One scan, whole."""
        record, part = self._records[number], self._part(number)
        image = self.levels[part].astype(np.float32) / LEVELS
        masks = (self._brain[part].copy(), self._lesion[part].copy())
        return Scan(record["subject"], record["dataset"], record["contrast"], image, *masks, np.array(record["affine"]))

    def slices_of(self, rows: Sequence[ManifestRow]) -> np.ndarray:
        """All slices of these scans, `(N, 96, 96)` uint8, in 256 levels of [0, 1]."""
        parts = [self.levels[self._part(row.packed[1])] for row in rows if row.packed]
        return np.concatenate(parts) if parts else np.zeros((0, SLICE_SIZE, SLICE_SIZE), np.uint8)


@lru_cache(maxsize=2)
def open_packed(path: str) -> PackedScans:
    """`PackedScans`, kept for the next scan of the same file."""
    return PackedScans(path)


def _row(record: dict[str, Any], path: str | Path, number: int) -> ManifestRow:
    """A row whose image and lesion stand for themselves: there are no files of them."""
    image = f"packed:{path}:{number}"
    names = {name: record[name] for name in ("subject", "split", "dataset", "contrast")}
    return ManifestRow(image=image, brain_mask="", lesion_mask=image if record["lesioned"] else "", **names)
