"""The run on a device in stages of parts; each part is on disk before the next, so a cut costs one part.

Started again with the same folders, it goes on with what is missing: what there was no time for, what was cut, what
failed.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from pddm_utils.benchmark.gpu.device_checks import CHECKS, run_check
from pddm_utils.benchmark.gpu.pairs import PAIR, Pair, means, pack_folder, start_scoring
from pddm_utils.benchmark.gpu.record import Clock, Record, describe
from pddm_utils.benchmark.gpu.speed import (
    busy_share,
    compiled,
    free_memory,
    layouts,
    matrix_peak,
    reconstruction_speed,
    training_speed,
)
from pddm_utils.benchmark.models import is_trained
from pddm_utils.core.errors import InputError
from pddm_utils.data.packed import PackedScans
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.network import NETWORKS

STAGES = ("checks", "speed", "training", "compiled")
NETWORKS_OF_A_RUN = ("laptop", "middle", "paper")
_SPEED_UNTIL = 0.45  # of the time, where pairs are trained too; what is not measured by then waits for another call
_SCORED_UNTIL = 1.15  # of the time; what is not scored by then waits for another call
_GRAPH = "steps as a CUDA graph, bf16"  # the check without which no training is one
_SLICES = 72  # slices, where a cohort has single slices only


@dataclass(frozen=True)
class GpuRun:
    """What is to be run where.

    Attributes:
        bundle: folder of `make_bundle`.
        out: what travels back: `results.json`, `scores.csv` and a file for each model.
        work: checkpoints and models.
        minutes: the run may take; a part that has begun is finished.
        networks: small, middle and large one; one name stands for all.
        stages: of `STAGES`.
    """

    bundle: Path
    out: Path
    work: Path
    minutes: float = 8
    networks: tuple[str, ...] = NETWORKS_OF_A_RUN
    stages: tuple[str, ...] = STAGES

    def __post_init__(self) -> None:
        unknown = [name for name in self.networks if name not in NETWORKS]
        if unknown or len(self.networks) not in (1, 3):
            raise InputError(f"networks {','.join(self.networks)}; give one or three of {', '.join(NETWORKS)}")
        if not self.stages or set(self.stages) - set(STAGES):
            raise InputError(f"stages {','.join(self.stages)}; choose among {', '.join(STAGES)}")
        if self.minutes <= 0:
            raise InputError(f"minutes {self.minutes}; give more than 0")

    @cached_property
    def contents(self) -> dict[str, Any]:
        """What the bundle says of itself.

        Raises:
            InputError: there is no bundle.
        """
        try:
            found = json.loads((self.bundle / "bundle.json").read_text(encoding="utf-8"))
            return {"cohorts": found["cohorts"], "package": found.get("package", "")}
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.bundle}: no bundle ({error}); make one with: python -m pddm_utils bundle"
            ) from None

    @cached_property
    def cohorts(self) -> list[PackedScans]:
        """All cohorts of the bundle."""
        return [PackedScans(self.bundle / "cohorts" / name) for name in self.contents["cohorts"]]

    @property
    def middle(self) -> str:
        """The network of the pairs."""
        return self.networks[len(self.networks) // 2]

    def pairs(self) -> list[Pair]:
        """All methods on every cohort, then the pair with the large network on the first."""
        return [
            *(Pair(cohort, self.middle, large=False) for cohort in self.cohorts),
            Pair(self.cohorts[0], self.networks[-1], large=True),
        ]


def run_stages(run: GpuRun) -> list[str]:
    """Run what is missing, as far as the time goes.

    Returns:
        The parts that are still missing.
    """
    state, clock = PartialState(cpu=not torch.cuda.is_available()), Clock(run.minutes)
    stages = run.stages if state.num_processes == 1 else tuple(name for name in run.stages if name == "training")
    record = Record(run.out, _about(run, state), state.is_main_process)
    state.wait_for_everyone()  # all have read what there is before the first writes
    record.put("device", "facts", describe(state.device))
    missing = []
    for stage in stages:
        for name, work, until in _PARTS[stage](run, state.device, record, clock):
            if record.done(stage, name):
                continue
            if not _agreed(clock.used() < until):
                missing.append(f"{stage}: {name}")
                continue
            state.print(f"{clock.left():5.0f} s left, {stage}: {name}", flush=True)
            record.put(stage, name, _tried(work))
            result = record.get(stage, name)
            if "failed" in result:
                missing.append(f"{stage}: {name} ({result['failed']})")
            if result.get("passed") is False:
                state.print(f"DIFFERS from the processor: {name}, {result['difference']:.2g}", flush=True)
            free_memory()
    state.print(record)
    return missing


def _agreed(mine: bool) -> bool:
    """What the first process thinks: clocks differ."""
    return broadcast_object_list([mine])[0]


def _about(run: GpuRun, state: PartialState) -> dict[str, Any]:
    card = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else None
    return {
        "networks": list(run.networks),
        "cohorts": [cohort.facts["key"] for cohort in run.cohorts],
        "card": card,
        "package": run.contents["package"],
        "processes": state.num_processes,
    }


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part's result; where it fails, why: the other parts do not depend on it."""
    try:
        return work()
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


_Parts = Iterator[tuple[str, Callable[[], dict[str, Any]], float]]  # name, work, share of the time to begin it in


def _checks(_: GpuRun, device: torch.device, __: Record, ___: Clock) -> _Parts:
    def check(name: str, precision: str) -> dict[str, Any]:
        return run_check(name, precision, device).to_dict()

    for name, precision in CHECKS:
        yield f"{name}, {precision}", partial(check, name, precision), 1.0


def _speed(run: GpuRun, device: torch.device, record: Record, _: Clock) -> _Parts:
    levels, scan = run.cohorts[0].levels, _volume(run.cohorts)
    until = _SPEED_UNTIL if "training" in run.stages else 1.0
    yield "matrix product", lambda: {"flops_a_second": matrix_peak(device)}, until
    batch = run.pairs()[0].recipe.batch_size
    for name, measure in (("busy share", busy_share), ("layouts", layouts)):
        yield f"{name}, {run.middle}", partial(measure, run.middle, batch, levels, device, run.work), until

    def with_share(result: dict[str, Any]) -> dict[str, Any]:
        """The result with its share of the card's peak by its data sheet, and of what one product reaches here."""
        peaks = {
            "share_of_peak": record.get("device", "facts").get("peak_bf16"),
            "share_of_matrix_product": record.content.get("speed", {}).get("matrix product", {}).get("flops_a_second"),
        }
        return result | {name: peak and result["flops_a_second"] / peak for name, peak in peaks.items()}

    for network in dict.fromkeys(run.networks):
        for name, work in (
            ("reconstruction", partial(reconstruction_speed, network, scan, device)),
            ("training step", partial(training_speed, network, levels, device, run.work)),
        ):
            yield f"{name}, {network}", lambda work=work: with_share(work()), until  # type: ignore[misc]


def _volume(cohorts: list[PackedScans]) -> Scan:
    """The packed scan with most slices; where all have one, as many scans on top of each other as a volume has."""
    found = max(
        ((cohort, number) for cohort in cohorts for number, row in enumerate(cohort.rows) if row.split != "train"),
        key=lambda one: one[0].slice_count(one[1]),
    )
    scan = found[0].load(found[1])
    repeat = _SLICES if len(scan.image) == 1 else 1
    names = ("image", "brain_mask", "lesion_mask")
    stacked = {name: np.concatenate([getattr(scan, name)] * repeat) for name in names}
    return Scan(scan.subject, scan.dataset, scan.contrast, **stacked, affine=scan.affine)


def _training(run: GpuRun, _: torch.device, record: Record, clock: Clock) -> _Parts:
    """Trainings one after another, with the device to themselves; then all pairs are scored side by side."""
    pairs = run.pairs()
    graph = not record.has("checks", _GRAPH) or record.get("checks", _GRAPH).get("passed", False)
    for number, pair in enumerate(pairs):
        name, parts = f"plan, {pair.name}", len(pairs) - number
        yield name, lambda: pair.plan(clock.left() / parts, run.work / "timed", graph), 1.0  # noqa: B023
        if record.done("training", name):
            steps = record.get("training", name)["steps"]
            for method in pair.learners:
                yield f"{pair.name}-{method}", partial(_train, run, pair, method, steps, graph), 1.0
    yield "scores", partial(_scores, run, pairs, record, clock), 1.0


def _train(run: GpuRun, pair: Pair, method: str, steps: int, graph: bool) -> dict[str, Any]:
    """Train and pack: the first process does what only one can."""
    start = time.perf_counter()
    model = pair.trainer(method, steps, pair.folder(method, steps, run.work), graph).run()
    seconds = round(time.perf_counter() - start, 1)
    try:
        if pair.large or method not in PAIR or not PartialState().is_main_process:
            return {"steps": steps, "seconds": seconds, "weights": "scores only"}
        packed = pack_folder(model, run.out / f"{pair.name}-{method}.zip")
        return {"steps": steps, "seconds": seconds, "weights": packed}
    finally:
        PartialState().wait_for_everyone()


def _scores(run: GpuRun, pairs: list[Pair], record: Record, clock: Clock) -> dict[str, Any]:
    """Score all pairs side by side; each one's means are on disk as soon as it is done.

    Raises:
        RuntimeError: some are not scored; the next call goes on with them.
    """
    if not PartialState().is_main_process:
        return {}
    waiting = {pair.name: process for pair in pairs if (process := _scoring(run, pair, record))}
    while waiting and clock.used() < _SCORED_UNTIL:
        time.sleep(0.2)
        for name, process in list(waiting.items()):
            if process.exitcode is not None:
                del waiting[name]
                if process.exitcode == 0:
                    found = means(pd.read_csv(run.work / "results" / name / "scores.csv"))
                    record.put("training", f"scores, {name}", found)
    for process in waiting.values():
        process.terminate()
    packed = pack_folder(run.work / "results", run.out / "tables.zip")
    if lacking := [pair.name for pair in pairs if not record.done("training", f"scores, {pair.name}")]:
        raise RuntimeError(f"not scored: {', '.join(lacking)}")
    return {"tables": packed}


def _scoring(run: GpuRun, pair: Pair, record: Record) -> BaseProcess | None:
    """A process that scores what is trained of a pair; None where nothing is, or all is scored."""
    plan = f"plan, {pair.name}"
    if not record.done("training", plan) or record.done("training", f"scores, {pair.name}"):
        return None
    steps = record.get("training", plan)["steps"]
    missing = [name for name in pair.learners if not is_trained(pair.folder(name, steps, run.work))]
    return None if missing == pair.learners else start_scoring(pair.benchmark(steps, run.work, missing))


def _compiled(run: GpuRun, device: torch.device, _: Record, __: Clock) -> _Parts:
    batch = run.pairs()[0].recipe.batch_size
    yield run.middle, partial(compiled, run.middle, batch, run.cohorts[0].levels, device, run.work), 1.0


_PARTS = {"checks": _checks, "speed": _speed, "training": _training, "compiled": _compiled}
