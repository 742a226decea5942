"""One scan in, a pseudo-healthy scan and an anomaly map out, in the scan's own space."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pddm_utils.core.errors import InputError, ScanWarning
from pddm_utils.core.files import user_path, whole_files
from pddm_utils.data.manifest import EXTRACT_BRAIN, ManifestRow
from pddm_utils.data.prepare import prepare_scan
from pddm_utils.data.scan import PERCENTILES, Scan
from pddm_utils.data.volume import load_volume, to_scan_space
from pddm_utils.detection.choices import DEFAULT_MODELS, MAP_UNITS
from pddm_utils.detection.level import Level, scan_at_level, slices_of, voxel_ml
from pddm_utils.detection.model import DetectionModel, load_model, shipped_facts
from pddm_utils.detection.quality import Quality, assess_quality, field_of_view_warnings
from pddm_utils.detection.report import report_page
from pddm_utils.detection.z_score import z_score_map
from pddm_utils.evaluation.places import PlaceStatistics
from pddm_utils.evaluation.postprocess import anomaly_map, drop_small_components, erode_in_plane
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.show.figures import show_reconstruction

_FLAIR = re.compile(r"flair|tirm|dark[^a-z0-9]?fluid|(?<![a-z])da[^a-z0-9]?fl(?![a-z])", re.IGNORECASE)
_OTHER_KINDS = {"MAP", "STAR", "GRE", "HEMO", "SWI", "STIR", "GD", "KM", "CE", "CONTRAST", "POSTCONTRAST"}
NOTICE = "For research and teaching, not for diagnosis."


@dataclass(frozen=True)
class Detection:
    """What `detect` found.

    Attributes:
        reconstruction: pseudo-healthy scan x^ in [0, 1], on the scan's own grid.
        anomaly_map: post-processed |x - x^| or z-score; NaN where nothing was assessed (outside the eroded brain).
        anomaly_mask: 1 where the map exceeds the threshold, 0 where not, 255 where nothing was assessed.
        scan: the prepared scan.
        prepared_reconstruction, prepared_map, prepared_mask: the same in the prepared frame, `(D, H, W)`.
        model: name of the model.
        timestep: its noise level; None for a model without noise.
        threshold: the healthy-quantile threshold (0.99) of this kind of map.
        quality: how far the scan lies from the healthy scans behind that threshold, with warnings.
        map_kind: `residual` or `z-score`; `MAP_UNITS` has the unit of map and threshold.
        level: where the one level lies that the model knows; None for a model of whole brains.
    """

    reconstruction: nib.Nifti1Image
    anomaly_map: nib.Nifti1Image
    anomaly_mask: nib.Nifti1Image
    scan: Scan
    prepared_reconstruction: np.ndarray
    prepared_map: np.ndarray
    prepared_mask: np.ndarray
    model: str
    timestep: int | None
    threshold: float
    quality: Quality
    map_kind: str = "residual"
    level: Level | None = None

    @property
    def anomalous_ml(self) -> float:
        """Volume above the threshold, in ml."""
        return float(self.prepared_mask.sum()) * voxel_ml(self.scan)

    def figure(self):
        """Scan, reconstruction, anomaly map and mask at the slice with the largest anomaly (matplotlib figure)."""
        return show_reconstruction(
            self.scan,
            self.prepared_reconstruction,
            self.prepared_map,
            threshold=self.threshold,
            unit=MAP_UNITS[self.map_kind],
        )

    def report(self) -> dict[str, Any]:
        """What was found, with what, and how far it can be trusted; JSON-ready."""
        brain_ml = float(self.scan.brain_mask.sum()) * voxel_ml(self.scan)
        level = {}
        if self.level:
            brain_ml = self.level.brain_ml
            level = {"level_mni_z_mm": self.level.z_mm, "registration_dice": round(self.level.overlap, 3)}
        return {
            "scan": self.scan.subject,
            "contrast": self.scan.contrast,
            "model": self.model,
            "timestep": self.timestep,
            "map": self.map_kind,
            "map_unit": MAP_UNITS[self.map_kind],
            "threshold_rule": DEFAULT_RULE,
            "threshold": self.threshold,
            "reference_scans": self.quality.called,
            "anomalous_ml": round(self.anomalous_ml, 3),
            "assessed_ml": round(float(erode_in_plane(self.scan.brain_mask).sum()) * voxel_ml(self.scan), 1),
            "brain_ml": round(brain_ml, 1),
            **level,
            "out_of_distribution": self.quality.out_of_distribution,
            "quality": self.quality.values,
            "deviations": self.quality.deviations,
            "warnings": list(self.quality.warnings),
            "notice": NOTICE,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write the three images, `anomaly.png`, `report.html` and `report.json`: all of them, or nothing.

        Raises:
            InputError: the folder cannot be written.
        """
        images = {
            "reconstruction": self.reconstruction,
            "anomaly_map": self.anomaly_map,
            "anomaly_mask": self.anomaly_mask,
        }
        folder, facts = user_path(folder), self.report()
        page = report_page(self.scan, self.prepared_reconstruction, self.prepared_map, facts)
        texts = {"report.html": page, "report.json": json.dumps(facts, indent=1) + "\n"}
        with whole_files(folder) as scratch:
            for name, image in images.items():
                nib.save(image, scratch / f"{name}.nii.gz")
            self.figure().savefig(scratch / "anomaly.png", dpi=120, bbox_inches="tight")
            for name, text in texts.items():
                (scratch / name).write_text(text, encoding="utf-8")
        return [folder / name for name in (*(f"{name}.nii.gz" for name in images), "anomaly.png", *texts)]


def detect(
    scan: str | Path,
    out: str | Path | None = None,
    contrast: str | None = None,
    brain_mask: str | Path | None = None,
    model: str | None = None,
    map_kind: str = "residual",
) -> Detection:
    """Find what differs from healthy anatomy in one scan. For research and teaching, not for diagnosis.

    Args:
        scan: NIfTI file; skull-stripped, or with a `brain_mask`.
        out: folder for the results; nothing is written when left out.
        contrast: `T1`, `T2` or `FLAIR`; read from the file name (such as `T2` as a word in it) when left out.
        brain_mask: NIfTI file on the scan's grid, as `load_brain_mask` takes it, or `extract` (T1 with a skull).
        model: a shipped model or a folder; chosen by contrast when left out. One that knows a single level of the brain
            is given the slices around it, found by registration to MNI152; all else is marked as not assessed.
        map_kind: `residual`, |x - x^|; or `z-score`, how unusual the residual is at its place of the brain, in healthy
            standard deviations and in the direction of lesions alone (bright on T2, dark on T1). Chosen on
            validation scans with inserted (simulated) lesions; it finds more of tumours and fails for small lesions.
            Places go by the brain's bounding box: in a scan that is cut they are wrong.

    Returns:
        The detection, with images in the scan's own space. What it warns of stands in its report and is shown
        (`ScanWarning`).

    Raises:
        InputError: the scan, mask, contrast, model, map or output folder cannot be used; or the level of the model is
            not found with confidence.

    Example:
        >>> detect("patient_T2.nii.gz", out="patient").anomalous_ml  # doctest: +SKIP
        23.4
    """
    if map_kind not in MAP_UNITS:
        raise InputError(f"map {map_kind!r} does not exist; choose {' or '.join(MAP_UNITS)}")
    contrast, doubts = _contrast(Path(scan), contrast)
    if model is None and contrast not in DEFAULT_MODELS:
        raise InputError(
            f"{scan}: no model for contrast {contrast!r}; there are models for {' and '.join(sorted(DEFAULT_MODELS))}"
        )
    chosen = load_model(model or DEFAULT_MODELS[contrast])
    if chosen.contrast != contrast:
        raise InputError(f"model {chosen.name} is for {chosen.contrast}, the scan is {contrast}; choose another model")
    places = chosen.places() if map_kind == "z-score" else None
    row = _row(Path(scan), "" if brain_mask is None else str(brain_mask), contrast, chosen.scaling)
    prepared, level, reference, notes = _read(row, chosen.level_mm)
    reconstruction = chosen.reconstruct(prepared)
    values, threshold = _scores(prepared, reconstruction, chosen, places)
    found = drop_small_components(values > threshold)
    quality = _quality(prepared, reconstruction, chosen, reference)
    first = (level.sentence(prepared),) if level else ()
    quality = replace(quality, warnings=(*first, *notes, *doubts, *quality.warnings))
    for text in quality.warnings:
        warnings.warn(text if text in notes else f"{row.subject}: {text}", ScanWarning, stacklevel=2)
    detection = Detection(
        *_scan_images(reference, prepared, reconstruction, values, found, level is not None),
        prepared,
        reconstruction,
        values,
        found,
        chosen.name,
        chosen.timestep,
        threshold,
        quality,
        map_kind,
        level,
    )
    if out is not None:
        detection.save(out)
    return detection


def _contrast(scan: Path, given: str | None) -> tuple[str, tuple[str, ...]]:
    """The contrast to assess a scan as, and a warning where the caller's is not the one of the file's name."""
    if given is None:
        return contrast_of_name(scan), ()
    try:
        named = contrast_of_name(scan)
    except InputError:
        return given, ()
    doubt = f"The file's name speaks of {named}; the scan was assessed as {given}: check the contrast."
    return given, () if named == given else (doubt,)


def contrast_of_name(scan: Path) -> str:
    """The contrast that a file name speaks of, such as `T2` for `sub-01_T2w.nii.gz`.

    Siemens' dark-fluid T2 (`t2_tirm_tra_dark-fluid`) is FLAIR. What else is called T1 or T2 and looks different is
    left to the caller: maps, T2*, fat-suppressed scans, scans with contrast medium.

    Raises:
        InputError: the name holds none, several, or one of another kind.
    """
    name = re.sub(r"\b(sub|ses)-[A-Za-z0-9]+", "", scan.name)  # a person may be called T1
    words = {word.upper().removesuffix("W") for word in re.split(r"[^A-Za-z0-9]+", name)}
    found = [contrast for contrast in ("T1", "T2") if contrast in words]
    if _FLAIR.search(name) and "T1" not in found:
        return "FLAIR"
    other = sorted(words & _OTHER_KINDS) or (["FLAIR"] if _FLAIR.search(name) else [])
    if len(found) != 1 or other:
        reason = f"speaks of {found[0]} and of {other[0]}" if found and other else "does not say one contrast"
        raise InputError(f"{scan.name}: the name {reason}; pass contrast='T1', 'T2' or 'FLAIR'")
    return found[0]


def _row(scan: Path, mask: str, contrast: str, scaling: str) -> ManifestRow:
    mask = mask if mask in ("", EXTRACT_BRAIN) else str(user_path(mask))
    return ManifestRow(scan.name, str(user_path(scan)), mask, "", "test", "detect", contrast, scaling)


def _read(row: ManifestRow, level_mm: float | None) -> tuple[Scan, Level | None, nib.Nifti1Image, tuple[str, ...]]:
    """The prepared scan, its level, the image that it came from, and what was said while its files were read."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        level = None
        if level_mm is None:
            prepared = prepare_scan(row)
            if len(prepared.image) == 1:
                raise InputError(
                    f"{row.image}: one slice, and the thresholds of models hold for volumes; give the scan"
                )
        else:
            prepared, level = scan_at_level(row, level_mm)
        reference = load_volume(row.image).image
    notes = dict.fromkeys(str(one.message) for one in told)
    for path in map(Path, (row.image, row.brain_mask)):  # a report is shared: names of files, not of folders
        notes = dict.fromkeys(text.replace(f"{path}: ", f"{path.name}: ") for text in notes)
    return prepared, level, reference, tuple(notes)


def _scores(
    scan: Scan, reconstruction: np.ndarray, model: DetectionModel, places: PlaceStatistics | None
) -> tuple[np.ndarray, float]:
    """The anomaly map and its threshold: z-scores where `places` are given. A level's slices are mapped one by one."""
    if model.level_mm is not None and len(scan.image) > 1:
        parts = [
            _scores(one, reconstruction[index : index + 1], model, places) for index, one in enumerate(slices_of(scan))
        ]
        return np.concatenate([values for values, _ in parts]), parts[0][1]
    if places is None:
        return anomaly_map(scan.image, reconstruction, scan.brain_mask), model.threshold
    return z_score_map(scan, reconstruction, places), model.z_score_threshold


def _quality(prepared: Scan, reconstruction: np.ndarray, model: DetectionModel, reference: nib.Nifti1Image) -> Quality:
    others = {
        contrast: facts["reference"]
        for contrast, facts in ((contrast, shipped_facts(name)) for contrast, name in DEFAULT_MODELS.items())
        if contrast != model.contrast and facts.get("scaling", PERCENTILES) == model.scaling
    }
    judged, rebuilt = prepared, reconstruction
    if model.level_mm is not None:  # its reference is of single slices
        middle = len(prepared.image) // 2
        judged, rebuilt = slices_of(prepared)[middle], reconstruction[middle : middle + 1]
    quality = assess_quality(judged, rebuilt, model.facts["reference"], others)
    brain = np.asarray(to_scan_space(prepared.brain_mask, prepared.affine, reference).dataobj) > 0
    return replace(quality, warnings=(*field_of_view_warnings(brain), *quality.warnings))


def _scan_images(
    reference: nib.Nifti1Image,
    prepared: Scan,
    reconstruction: np.ndarray,
    residual: np.ndarray,
    found: np.ndarray,
    at_level: bool,
) -> tuple[nib.Nifti1Image, nib.Nifti1Image, nib.Nifti1Image]:
    """Reconstruction, map and mask on the scan's grid; not assessed is NaN in the map and 255 in the mask."""
    affine = prepared.affine
    if at_level:  # continued beyond its first and last slice: a map must not fade where voxels are still assessed
        reconstruction, residual = (np.pad(one, ((1, 1), (0, 0), (0, 0)), "edge") for one in (reconstruction, residual))
        affine = affine @ nib.affines.from_matvec(np.eye(3), (0, 0, -1))
    reconstructed, values = (to_scan_space(volume, affine, reference) for volume in (reconstruction, residual))
    mask, assessed = (
        to_scan_space(volume, prepared.affine, reference) for volume in (found, erode_in_plane(prepared.brain_mask))
    )
    inside = np.asarray(assessed.dataobj) > 0
    marked = np.where(inside, values.get_fdata(), np.nan).astype(np.float32)
    values = nib.Nifti1Image(marked, values.affine, values.header)
    labels = np.where(inside, np.asarray(mask.dataobj), 255).astype(np.uint8)
    return reconstructed, values, nib.Nifti1Image(labels, mask.affine, mask.header)
