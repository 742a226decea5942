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
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.detection.z_score import REFERENCE_SUBJECTS
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.postprocess import anomaly_map
from pddm_utils.publish.onnx_models import FIELD_STEP, WebModel, web_models
from pddm_utils.publish.play_scans import CHOICE, DEPTH, Slab, slab_file
from pddm_utils.publish.web_runtime import LICENCE, PACKAGE, VERSION, fetch_runtime
from pddm_utils.show.figures import MAP_LABEL, RESIDUAL_COLOURS
from pddm_utils.show.style import colour_bar, colour_limit, outline, panel, styled
from pddm_utils.show.widgets.packing import front, pack_palette

_PARTS = ("numbers", "maps", "brush", "models", "run", "views", "steps")  # of play.js, in front/play_*.js
RECORDED, CONTENTS, LICENCE_FILE = "recorded.png", "contents.json", f"LICENSE-{PACKAGE}.txt"
_COHORTS = {"simulated": "trained on simulated scans", "ixi": "trained on IXI, scans of people"}


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
    subjects: int = REFERENCE_SUBJECTS,
    scans: int = len(CHOICE),
) -> Playground:
    """Make all files of the page, from the shipped weights, simulated scans and the runtime out of npm.

    Without npm or a network the recorded picture is made alone, and the reason is kept for the page.

    Args:
        folder: for the files.
        runs: folder whose `cache/` keeps the simulated scans.
        weights: folder of the models; the shipped ones when left out.
        subjects: healthy ones behind the floor, at least two.
        scans: how many slices there are to choose from.

    Raises:
        InputError: there is no model to run, the package `onnx` is missing, or a file cannot be written.
    """
    folder, runs = Path(folder), Path(runs)
    models = list(web_models(weights))
    if not models:
        raise InputError(f"{weights or 'weights'}: no model that the page can run; train and publish one first")
    missing = ""
    with whole_files(folder) as new:
        try:
            runtimes = _runtime_files(folder, new)
        except InputError as error:
            runtimes, missing = {}, str(error)
        slabs = {}
        for contrast in {model.facts["contrast"]: None for model in models}:
            frames, slabs[contrast] = slab_file(contrast, runs, subjects, scans)
            _write(new, f"slices-{contrast.lower()}", frames)
        for model in models:
            _write(new, f"model-{model.facts['name']}", _model_frames(model))
        contents = _contents(models, runtimes, new)
        first = [model for model in models if model.facts["name"] in contents["groups"][0]["models"]]
        noisy = [model for model in first if model.facts["kind"] == "diffusion"]
        _recorded(noisy, slabs[first[0].facts["contrast"]][0]).savefig(new / RECORDED, dpi=130)
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


def _contents(models: list[WebModel], runtimes: dict[str, int], new: Path) -> dict[str, Any]:
    facts = [model.facts for model in models]

    def group(contrast: str, cohort: str) -> dict[str, Any]:
        names = [one["name"] for one in facts if (one["contrast"], one["cohort"]) == (contrast, cohort)]
        slices = f"slices-{contrast.lower()}"
        files = [slices, *(f"model-{name}" for name in names)]
        return {
            "label": f"{contrast}, {_COHORTS.get(cohort, f'trained on {cohort}')}",
            "models": names,
            "slices": slices,
            "bytes": sum((new / f"{file}.js").stat().st_size for file in files),
        }

    kinds = sorted({(one["contrast"], one["cohort"]) for one in facts}, key=lambda kind: (kind[1] != "simulated", kind))
    return {
        "models": facts,
        "groups": [group(*kind) for kind in kinds],
        "runtimes": runtimes,
        "palette": pack_palette(),
    }


@styled
def _recorded(models: list[WebModel], slab: Slab) -> Figure:
    """A slice as models rebuild it: what readers see before a start, or without one."""
    scan, middle = slab.scan, DEPTH // 2
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
