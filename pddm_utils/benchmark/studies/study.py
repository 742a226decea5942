"""One runner for every study: variants, scans and a score; each (variant, scan) pair is a part that is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_utils.benchmark.evaluate import every_nth_slice
from pddm_utils.benchmark.store import Part, kept_parts, key_of
from pddm_utils.benchmark.studies.rebuild import KeptRebuilds, Model, Rebuild, Rebuilds
from pddm_utils.benchmark.studies.tumours import SetTumour
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan
from pddm_utils.data.scan import Scan


@dataclass(frozen=True)
class Variant:
    """What is compared with the others.

    Attributes:
        model: name of one of the study's models, or `intensity`.
        columns: what tells it apart in the table, JSON-ready.
        rebuilds: reconstructions it needs.
    """

    model: str
    columns: Mapping[str, Any]
    rebuilds: tuple[Rebuild, ...] = (Rebuild(),)


@dataclass(frozen=True)
class Study:
    """A question and how it is answered.

    Attributes:
        name: of its parts.
        models: trained models by the names that variants use.
        variants: in the order of the table's rows.
        scans: rows, each as it is, or with a tumour of set size and contrast.
        score: a variant's scores of a scan, from it and the scan's reconstructions.
        slice_step: every n-th slice is used.
        depends: what else the scores depend on, JSON-ready.
        keep: whether reconstructions are kept on disk too.
    """

    name: str
    models: Mapping[str, Model]
    variants: Sequence[Variant]
    scans: Sequence[tuple[ManifestRow, SetTumour | None]]
    score: Callable[[Variant, Rebuilds], Mapping[str, Any]]
    slice_step: int
    depends: Any = None
    keep: bool = False

    def table(self, runs: Path) -> pd.DataFrame:
        """A row for each scan and variant; killed and started again it goes on where it was.

        Args:
            runs: prepared scans and finished parts.
        """

        @lru_cache(maxsize=1)  # the variants of a scan come one after another
        def opened(row: ManifestRow, tumour: SetTumour | None) -> Rebuilds:
            return self._rebuilds(runs, row, tumour)

        parts = [self._part(runs, variant, *scan, opened) for scan in self.scans for variant in self.variants]
        return pd.concat(kept_parts(parts, self.name), ignore_index=True)

    def _rebuilds(self, runs: Path, row: ManifestRow, tumour: SetTumour | None) -> Rebuilds:
        scan = looked_at(runs, row, self.slice_step) if tumour is None else tumour.scan(row, self.slice_step)
        if self.keep:
            return KeptRebuilds(self.models, scan, runs / "parts" / "rebuilt", row, self.slice_step)
        return Rebuilds(self.models, scan)

    def _part(self, runs: Path, variant: Variant, row: ManifestRow, tumour: SetTumour | None, opened: Callable) -> Part:
        model = self.models.get(variant.model)
        rebuilds = [dataclasses.astuple(how.of(model) if model else how) for how in variant.rebuilds]
        settings = [self.name, variant.model, variant.columns, rebuilds, tumour, self.slice_step, self.depends]
        key = key_of(settings, [row], model.folder if model else None)
        compute = partial(self._row, variant, row, tumour, opened)
        return Part(runs / "parts" / f"{self.name}-{row.subject}-{key}.csv", compute)

    def _row(self, variant: Variant, row: ManifestRow, tumour: SetTumour | None, opened: Callable) -> pd.DataFrame:
        model = self.models.get(variant.model)
        named = {"dataset": row.dataset, "subject": row.subject, "method": model.name if model else variant.model}
        changed = tumour._asdict() if tumour else {}
        scores = self.score(variant, opened(row, tumour))
        return pd.DataFrame([{**named, **variant.columns, **changed, **scores}])


def looked_at(runs: Path, row: ManifestRow, slice_step: int) -> Scan:
    """Every n-th slice of a prepared scan."""
    return every_nth_slice(load_scan(row, ScanCache(runs / "cache")), slice_step)
