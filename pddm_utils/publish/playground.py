"""The files of the page "Play": models, slices and scripts with which the reader's browser runs the shipped models.

Every file is a script that a page loads by a tag, so that it also works where it is opened from a disk, which may fetch
nothing. They are made anew at every build; only the runtime is kept.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_files
from pddm_utils.core.shipped import weights_root
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.data.sources import data_root
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.publish.onnx_models import FIELD_STEP, WebModel, web_models
from pddm_utils.publish.play_scans import (
    CHOICE,
    CREDITS,
    DEPTH,
    Slab,
    has_soop,
    patient_slabs,
    people_slabs,
    shipped_floor,
    slab_file,
    slabs,
)
from pddm_utils.publish.web_runtime import LICENCE, PACKAGE, VERSION, fetch_runtime
from pddm_utils.show.figures import MAP_LABEL, RESIDUAL_COLOURS
from pddm_utils.show.style import colour_bar, colour_limit, outline, panel, styled
from pddm_utils.show.widgets.packing import front, pack_palette

_PARTS = ("numbers", "maps", "brush", "models", "run", "views", "steps")  # of play.js, in front/play_*.js
RECORDED, CONTENTS, LICENCE_FILE = "recorded.png", "contents.json", f"LICENSE-{PACKAGE}.txt"
VALIDATION_SUBJECTS = 10
_COHORTS = {
    "simulated": "trained on simulated scans",
    "ixi": "trained on IXI, scans of people",
    "soop": "trained on stroke patients",
}


@dataclass(frozen=True)
class Playground:
    """What was built.

    Attributes:
        folder: where the files lie.
        missing: why the models cannot run; empty when they can.
    """

    folder: Path
    missing: str


def build_playground(
    folder: str | Path,
    runs: str | Path,
    weights: Path | None = None,
    subjects: int = VALIDATION_SUBJECTS,
    scans: int = len(CHOICE),
) -> Playground:
    """Make all files of the page, from the shipped weights, simulated scans and the runtime out of npm.

    Where `PDDM_DATA` has IXI, the models of IXI get slices of people too; those of SOOP are there where SOOP is.

    Without npm or a network the recorded picture is made all the same, and the reason is kept for the page.

    Args:
        folder: for the files.
        runs: folder whose `cache/` keeps the simulated scans.
        weights: folder of the models; the shipped ones when left out.
        subjects: healthy validation ones, on which a floor's threshold is set.
        scans: how many slices there are to choose from.

    Raises:
        InputError: there is no model to run, the package `onnx` is missing, or a file cannot be written.
    """
    folder, runs, weights = Path(folder), Path(runs), weights or weights_root()
    # Models of SOOP know one slice of one level, and only real ones exist.
    with_soop = has_soop(data_root())
    models = [model for model in web_models(weights) if with_soop or model.facts["cohort"] != "soop"]
    if not models:
        raise InputError(f"{weights}: no model that the page can run; train and publish one first")
    missing = ""
    with whole_files(folder) as new:
        try:
            runtimes = _runtime_files(folder, new)
        except InputError as error:
            runtimes, missing = {}, str(error)
        groups, recorded = [], None
        for members in _by_training_data(models):
            contrast, cohort = members[0].facts["contrast"], members[0].facts["cohort"]
            floor = shipped_floor(cohort, contrast, runs, weights, subjects)
            real = {"ixi": people_slabs, "soop": patient_slabs}.get(cohort)
            people = list(real(data_root(), floor, runs)) if real else []
            made = people if cohort == "soop" else [*people, *slabs(contrast, floor, runs, scans)]
            groups.append(
                _write_group(new, members, slab_file(contrast, floor, made, CREDITS[cohort] if people else ""))
            )
            recorded = recorded or _recorded(members, made[0])
        assert recorded is not None
        recorded.savefig(new / RECORDED, dpi=130)
        contents = {
            "models": [model.facts for model in models],
            "groups": groups,
            "runtimes": runtimes,
            "palette": pack_palette(),
        }
        (new / CONTENTS).write_text(json.dumps(contents | {"missing": missing}, indent=1), encoding="utf-8")
        (new / "play.js").write_text(play_script(contents), encoding="utf-8")
        (new / LICENCE_FILE).write_text(LICENCE, encoding="utf-8")
    return Playground(folder, missing)


def play_script(contents: dict[str, Any]) -> str:
    """The page's own script, for a `script` tag: style, all parts, and what there is to load."""
    constants = {
        "STYLE": front("component.css") + front("play.css"),
        "WORKER": front("play_worker.js"),
        "SIDE": SLICE_SIZE,
        "CONTENTS": contents,
    }
    parts = ("component", *(f"play_{part}" for part in _PARTS), "play")
    lines = [f"const {name} = {json.dumps(value)};" for name, value in constants.items()]
    return "\n".join(["(() => {", *lines, *(front(f"{name}.js") for name in parts), "})();\n"])


def pack_bytes(content: bytes) -> str:
    """Bytes as text: deflated, in base64."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, separators=(",", ":"))
    (folder / f"{name}.js").write_text(f"(self.pddmPlay ??= {{}})[{json.dumps(name)}] = {text};\n", encoding="utf-8")


def _runtime_files(folder: Path, new: Path) -> dict[str, int]:
    """Write the runtime, or keep that of this version; bytes by build."""
    stamp = folder / "runtime.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == VERSION:
        return {path.stem.removeprefix("runtime-"): path.stat().st_size for path in folder.glob("runtime-*.js")}
    for name, runtime in fetch_runtime().items():
        _write(new, f"runtime-{name}", {"script": runtime.script, "wasm": pack_bytes(runtime.wasm)})
    (new / stamp.name).write_text(VERSION, encoding="utf-8")
    return {path.stem.removeprefix("runtime-"): path.stat().st_size for path in new.glob("runtime-*.js")}


def _model_frames(model: WebModel) -> dict[str, Any]:
    frames: dict[str, Any] = {"network": pack_bytes(model.network), "alpha_bars": model.alpha_bars}
    if model.fields is not None:
        frames |= {"fields": pack_bytes(model.fields.tobytes()), "step": FIELD_STEP}
    return frames


def _by_training_data(models: list[WebModel]) -> list[list[WebModel]]:
    """Models of one contrast and cohort together, simulated cohorts first."""
    groups: dict[tuple[bool, str, str], list[WebModel]] = {}
    for model in models:
        cohort, contrast = model.facts["cohort"], model.facts["contrast"]
        groups.setdefault((cohort != "simulated", cohort, contrast), []).append(model)
    return [groups[key] for key in sorted(groups)]


def _write_group(new: Path, models: list[WebModel], scans: dict[str, Any]) -> dict[str, Any]:
    """Write the slices and the models of one group; what the page lists of it."""
    contrast, cohort = models[0].facts["contrast"], models[0].facts["cohort"]
    slices = f"slices-{cohort}-{contrast.lower()}"
    _write(new, slices, scans)
    for model in models:
        _write(new, f"model-{model.facts['name']}", _model_frames(model))
    names = [model.facts["name"] for model in models]
    return {
        "label": f"{contrast}, {_COHORTS.get(cohort, f'trained on {cohort}')}",
        "models": names,
        "slices": slices,
        "bytes": sum((new / f"{file}.js").stat().st_size for file in (slices, *(f"model-{name}" for name in names))),
    }


@styled
def _recorded(models: list[WebModel], slab: Slab) -> Figure:
    """A slice as the diffusion models among these rebuild it: what readers see before a start, or without one."""
    scan, middle = slab.scan, DEPTH // 2
    models = [model for model in models if model.facts["kind"] == "diffusion"]
    rebuilt = []
    for model in models:
        pipeline = load_pipeline(model.folder)
        rebuilt.append(pipeline.reconstruct_volume(scan.image, scan.brain_mask, model.facts["timestep"], seed=0))
    maps = [anomaly_map(scan.image, volume, scan.brain_mask)[middle] for volume in rebuilt]
    limit = colour_limit(*maps)
    figure, grid = plt.subplots(len(models), 3, figsize=(6, 2.1 * len(models)), squeeze=False, layout="constrained")
    for axes, model, volume, anomalies in zip(grid, models, rebuilt, maps, strict=True):
        panel(axes[0], scan.image[middle], "simulated scan")
        outline(axes[0], scan.lesion_mask[middle])
        panel(axes[1], volume[middle], model.facts["label"])
        shown = panel(axes[2], anomalies, "anomaly map", cmap=RESIDUAL_COLOURS, vmin=0, vmax=limit)
    colour_bar(figure, shown, grid[:, 2], MAP_LABEL)
    return figure
