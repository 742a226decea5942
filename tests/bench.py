"""Speed and memory as ratios within one run: `make bench`.

Every line compares the project's code with the bare work it cannot do without, on one thread, medians of alternating
rounds; `ok` says whether the project's own limit holds. Only the line on jobs is of wall time and needs two idle cores.
`python tests/bench.py results/speed.json` writes ratios and profile to that file too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import opensimplex  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from diffusers import UNet2DModel  # noqa: E402
from scipy import ndimage  # noqa: E402

import naive_reference  # noqa: E402
from pddm_utils.core.files import write_text  # noqa: E402
from pddm_utils.core.provenance import environment  # noqa: E402
from pddm_utils.core.settings import load_settings  # noqa: E402
from pddm_utils.core.shipped import weights_folder  # noqa: E402
from pddm_utils.data.manifest import ManifestRow  # noqa: E402
from pddm_utils.data.prepare import ScanCache, prepare_scan  # noqa: E402
from pddm_utils.data.scan import VOXEL_VOLUME_ML, Scan  # noqa: E402
from pddm_utils.data.slices import HealthySlices  # noqa: E402
from pddm_utils.data.sources.simulated import simulated_rows  # noqa: E402
from pddm_utils.diffusion.boxes import BoxGrid, boxes_with_content  # noqa: E402
from pddm_utils.diffusion.fast_cpu import fast_cpu, for_inference  # noqa: E402
from pddm_utils.diffusion.noise import NOISES, gaussian_noise, simplex_noise  # noqa: E402
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline  # noqa: E402
from pddm_utils.evaluation import postprocess  # noqa: E402
from pddm_utils.evaluation.metrics import average_precision, healthy_l1, scan_score, score_scan  # noqa: E402
from pddm_utils.evaluation.postprocess import anomaly_map, erode_in_plane, median_filter  # noqa: E402
from pddm_utils.methods.registry import make_method  # noqa: E402

TIMESTEP = 818  # the noise level that validation chose for the model
drawn = simplex_noise  # a name of its own, so that it can be timed
_this = sys.modules[__name__]


def cpu_seconds(*works: Callable[[], object], rounds: int) -> list[float]:
    """Median CPU seconds of each piece of work, taken in turns so that a busy machine slows all alike."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()  # caches and first allocations
    for _ in range(rounds):
        for kept, work in zip(times, works, strict=True):
            start = time.process_time()
            work()
            kept.append(time.process_time() - start)
    return [median(kept) for kept in times]


def stage_seconds(run: Callable[[], object], stages: dict[str, tuple[object, str]]) -> dict[str, float]:
    """CPU seconds of a run: of each stage, which is a function by its owner and name, of the rest, and of all."""
    spent = dict.fromkeys(stages, 0.0)

    def timed(stage: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            spent[stage] += time.process_time() - start
            return result

        return call

    with ExitStack() as stack:
        for stage, (owner, name) in stages.items():
            stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        start = time.process_time()
        run()
        whole = time.process_time() - start
    return spent | {"rest": whole - sum(spent.values()), "all": whole}


def print_profile(title: str, runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians over runs of the seconds of each stage; printed with their shares."""
    medians = {stage: median(run[stage] for run in runs) for stage in runs[0]}
    print(
        f"  {title}: "
        + ", ".join(
            f"{stage} {seconds:.2f} s ({100 * seconds / medians['all']:.1f} %)" for stage, seconds in medians.items()
        )
    )
    return medians


def our_scores(scan: Scan, reconstruction: np.ndarray, residual: np.ndarray) -> float:
    """What `naive_reference.scores` gives, with our average precision."""
    healthy_l1(scan.image, reconstruction, scan.brain_mask)
    scan_score(residual, scan.brain_mask)
    for threshold in naive_reference.THRESHOLDS:
        score_scan(residual, scan.lesion_mask, scan.brain_mask, threshold, voxel_volume_ml=VOXEL_VOLUME_ML)
    return average_precision(residual, scan.lesion_mask)


def score_volume(pipeline: PatchedReconstructionPipeline, scan: Scan) -> float:
    """AUPRC of a prepared scan, our whole way."""
    reconstruction = pipeline.reconstruct_volume(scan.image, scan.brain_mask, TIMESTEP)
    return _this.our_scores(scan, reconstruction, postprocess.anomaly_map(scan.image, reconstruction, scan.brain_mask))


def same_fields(scan: Scan) -> torch.Tensor:
    """The pipeline's Gaussian fields, `(4 * D, 96, 96)`, by slice and box; zero where it skips a box."""
    brain = torch.from_numpy(scan.brain_mask)[:, None]
    number, box = boxes_with_content(BoxGrid(96, 48).boxes, brain).nonzero().unbind(dim=1)
    fields = torch.zeros(4 * len(brain), 96, 96)
    fields[4 * number + box] = gaussian_noise((len(box), 96, 96), torch.Generator().manual_seed(0))
    return fields


def bench_path(scan: Scan, rounds: int = 3) -> tuple[list[tuple[str, float, float]], dict[str, dict[str, float]]]:
    """From prepared slices to scores: the naive reference, and ours against it and against its network passes.

    Must come first: it times the reference before freed memory is kept.

    Returns:
        The lines, and the CPU seconds of both by stage.
    """
    naive = PatchedReconstructionPipeline.from_pretrained(weights_folder("simulated-t2-pddpm"), low_cpu_mem_usage=False)
    run = partial(naive_reference.score_volume, naive.unet, naive.scheduler, scan, TIMESTEP)
    naive_reference.simplex_field(0)  # compiles
    stages = {
        "network": (UNet2DModel, "forward"),
        "noise": (naive_reference, "simplex_field"),
        "median": (naive_reference, "median"),
        "scores": (naive_reference, "scores"),
    }
    theirs = print_profile("naive reference", [stage_seconds(run, stages) for _ in range(rounds)])
    fields = same_fields(scan)
    reference = run(fields.__getitem__)

    fast_cpu()
    pipeline = load_pipeline(weights_folder("simulated-t2-pddpm")).to("cpu")
    difference = abs(score_volume(pipeline, scan) - reference)
    print(f"  (AUPRC with the same noise fields: reference {reference:.6f}, difference {difference:.1e})")
    pipeline.register_to_config(noise="simplex")
    stages = {
        "network": (type(for_inference(pipeline.unet)), "forward"),
        "noise": (_this, "drawn"),
        "median": (postprocess, "median_filter"),
        "scores": (_this, "our_scores"),
    }
    with patch.dict(NOISES, simplex=lambda *args, **kwargs: _this.drawn(*args, **kwargs)):
        score_volume(pipeline, scan)  # caches
        ours = print_profile(
            "ours", [stage_seconds(partial(score_volume, pipeline, scan), stages) for _ in range(rounds)]
        )
    lines = [
        ("naive reference / ours, slices to scores", theirs["all"] / ours["all"], 2.0),
        ("AUPRC difference to the naive reference", difference, 0.002),
        ("slices to scores / its network passes", ours["all"] / ours["network"], 1.10),
    ]
    return lines, {"naive reference": theirs, "ours": ours}


def bench_training(cache: ScanCache) -> tuple[str, float, float]:
    """A training step against forward, backward and optimiser on ready tensors."""
    rows = [row for row in simulated_rows("T2", 4, 1, 0, 0)]
    train, val = ([row for row in rows if row.split == split] for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder:
        method = make_method("pddpm", load_settings("laptop", {"noise": "simplex"}))
        trainer = method.trainer(HealthySlices(train, cache), HealthySlices(val, cache), Path(folder) / "model")
        batch = trainer.objective.draw(trainer.train, trainer.seed, range(16))

        def bare() -> None:
            prediction = trainer.network(batch.noisy, batch.timesteps).sample
            ((prediction - batch.clean).abs() * batch.mask).mean().backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()

        step, network = cpu_seconds(lambda: trainer.step(0), bare, rounds=7)
        noise, _ = cpu_seconds(lambda: simplex_noise((16, 1, 96, 96)), lambda: None, rounds=15)
    print(f"  (simplex noise: {100 * noise / step:.1f} % of a training step of 16 slices)")
    return "training step / forward + backward + optimiser", step / network, 1.05


def bench_noise() -> tuple[str, float, float]:
    """32 independent simplex fields at once against one field after another from a compiled generator."""
    axis, generator = np.arange(96.0), torch.Generator().manual_seed(0)

    def one_by_one() -> None:
        for seed in range(32):
            opensimplex.seed(seed)
            sum(0.8**k * opensimplex.noise2array(axis / (64 / 2**k), axis / (64 / 2**k)) for k in range(6))

    ours, theirs = cpu_seconds(lambda: simplex_noise((32, 1, 96, 96), generator), one_by_one, rounds=7)
    return "numba one by one / 32 simplex fields at once", theirs / ours, 8.0


def bench_evaluation(scan) -> list[tuple[str, float, float]]:
    """Map, median, three thresholds and all metrics against the reconstruction of the volume."""
    pipeline = load_pipeline(weights_folder("simulated-t2-pddpm")).to("cpu")
    reconstruction = pipeline.reconstruct_volume(scan.image, scan.brain_mask, 499)

    def evaluate() -> None:
        residual = anomaly_map(scan.image, reconstruction, scan.brain_mask)
        average_precision(residual, scan.lesion_mask)
        healthy_l1(scan.image, reconstruction, scan.brain_mask)
        scan_score(residual, scan.brain_mask)
        for threshold in (0.05, 0.1, 0.2):
            score_scan(residual, scan.lesion_mask, scan.brain_mask, threshold, voxel_volume_ml=VOXEL_VOLUME_ML)

    difference, mask = np.abs(scan.image - reconstruction), erode_in_plane(scan.brain_mask)
    whole, work, ours, scipys = cpu_seconds(
        lambda: pipeline.reconstruct_volume(scan.image, scan.brain_mask, 499),
        evaluate,
        lambda: median_filter(difference, mask),
        lambda: ndimage.median_filter(difference, 5),
        rounds=3,
    )
    return [
        ("evaluation / reconstruction of a volume", work / whole, 0.25),
        ("scipy's 5x5x5 median / ours", scipys / ours, 1.0),
    ]


_JOB = """
import sys, tempfile
from pathlib import Path
import numpy as np, torch
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.methods.registry import make_method
from pddm_utils.core.settings import load_settings
from pddm_utils.core.shipped import weights_folder
threads, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
slices = list(np.random.default_rng(0).random((16, 96, 96), np.float32))
pipeline = load_pipeline(weights_folder("simulated-t2-pddpm")).to("cpu")
with tempfile.TemporaryDirectory() as folder:
    trainer = make_method("pddpm", load_settings("laptop")).trainer(slices, slices, Path(folder) / "model")
    trainer.step(0)  # caches and first allocations
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(steps):
        trainer.step(step)
        pipeline.reconstruct_volume(np.stack(slices[:4]), np.ones((4, 96, 96), bool), 499)
"""


def job_seconds(jobs: int, threads: int, steps: int) -> float:
    """Wall seconds of `jobs` processes side by side, each with so many threads and steps, without their start."""
    command = [sys.executable, "-c", _JOB, str(threads), str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    processes = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(jobs)
    ]
    for process in processes:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a job did not start")
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    failed = any([process.wait() for process in processes])
    seconds = time.perf_counter() - start
    for process in processes:
        process.stdin.close()
        process.stdout.close()
    if failed:
        raise RuntimeError("a job failed")
    return seconds


def bench_jobs(steps: int = 4) -> tuple[str, float, float]:
    """The same training steps and reconstructions in two jobs of one thread and in one job of two; wall time."""
    one_thread = job_seconds(2, 1, steps)
    return "two jobs of 1 thread / one job of 2 threads", one_thread / job_seconds(1, 2, 2 * steps), 1.0


TRAINING = """
from pddm_utils.benchmark.models import train_method
overrides = dict(train_subjects={subjects}, val_subjects=1, train_steps=60, checkpoint_every=30)
train_method(load_settings("smoke", overrides), "pddpm", 0, runs, runs / "cache")
"""


def peak_memory(work: str) -> int:
    """Peak resident memory in MB of a piece of code, run in a process of its own with an empty folder `runs`."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom pddm_utils.core.settings import load_settings\n"
        f"runs = Path(sys.argv[1])\n{work}"
    )
    with tempfile.TemporaryDirectory() as folder:
        process = psutil.Popen([sys.executable, "-c", code, folder], stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, process.memory_info().rss)
            except psutil.Error:
                break
            time.sleep(0.05)
        if process.wait():
            raise RuntimeError(f"this failed:\n{work}")
    return peak // 2**20


def main(out: str = "") -> int:
    """Print every ratio beside its limit, and write them to the file `out`; exit code 1 when one is missed."""
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread")
    scan = prepare_scan(ManifestRow("bench", "simulated:210000", "", "insert:tumour:210000", "test", "bench", "T2"))
    with tempfile.TemporaryDirectory() as folder:
        results, profile = bench_path(scan)
        results += [bench_training(ScanCache(folder)), *bench_evaluation(scan)]
    results += [bench_noise(), bench_jobs()]
    few, many = (peak_memory(TRAINING.format(subjects=count)) for count in (10, 100))
    print(f"  (peak memory: {few} MB with 10 subjects, {many} MB with 100)")
    results.append(("peak memory, 100 / 10 subjects", many / few, 1.05))
    missed = 0
    for name, ratio, limit in results:
        at_least = name.startswith(("naive", "numba", "scipy"))
        good = ratio >= limit if at_least else ratio <= limit
        missed += not good
        relation = "at least" if at_least else "at most"
        print(f"{name:<50} {ratio:6.3f}   {relation} {limit:<5} {'ok' if good else 'MISSED'}")
    ratios = {name: round(ratio, 4) for name, ratio, _ in results}
    print(json.dumps(ratios))
    if out:
        seconds = {way: {stage: round(value, 3) for stage, value in spent.items()} for way, spent in profile.items()}
        write_text(Path(out), json.dumps({"ratios": ratios, "cpu_seconds": seconds, **environment()}, indent=1) + "\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
