"""Training and measuring on a device: on a GPU against the processor (`-m gpu`), and what needs no GPU to be tested."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from safetensors.torch import load_file

from pddm_utils.benchmark.gpu.device_checks import CHECKS, Check, run_check
from pddm_utils.benchmark.gpu.pairs import pack_folder, then_end_workers
from pddm_utils.benchmark.gpu.record import Clock, Record, peak_of
from pddm_utils.benchmark.gpu.speed import covered, largest_rate, naive_reconstruction
from pddm_utils.benchmark.gpu.stages import GpuRun
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import load_settings
from pddm_utils.diffusion.boxes import noise_boxes
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.noise import simplex_noise
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, make_scheduler
from pddm_utils.methods.dae import NOISE_STD, coarse_noise
from pddm_utils.methods.registry import method_class
from pddm_utils.training.device import DeviceSlices
from pddm_utils.training.loop import read_training
from two_processes import device_trainer

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here; the rehearsal runs these on the processor")
@pytest.mark.parametrize(("name", "precision"), list(CHECKS))
def test_the_gpu_computes_what_the_processor_does(name: str, precision: str) -> None:
    found = run_check(name, precision, torch.device("cuda"))
    assert found.passed, found


def test_a_check_fails_where_the_difference_is_no_number() -> None:
    assert not Check("pipeline", "fp32", float("nan"), 1e-3).passed
    assert not Check("pipeline", "fp32", 2e-3, 1e-3).passed and Check("pipeline", "fp32", 1e-4, 1e-3).passed


def levels(count: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)


def objective(name: str, **changes):
    small = {"box_size": 16, "stride": 16, "noise": "simplex", "timestep_power": 1}
    return method_class(name)(name, load_settings("smoke", small | changes), image_size=32)


def test_draws_on_a_device_are_those_of_the_method() -> None:
    source = DeviceSlices(levels(), "cpu")
    whole, boxed = (objective(name).draw(source, 3, range(64, 96)) for name in ("ddpm", "pddpm"))
    assert torch.equal(whole.clean, boxed.clean) and torch.equal(whole.timesteps, boxed.timesteps)
    assert whole.mask.all() and (boxed.mask.flatten(1).sum(1) == 16 * 16).all()
    assert torch.equal(whole.noisy[boxed.mask], boxed.noisy[boxed.mask])
    rows = torch.tensor(
        [[int(one[0].any(1).nonzero()[0]), int(one[0].any(0).nonzero()[0]), 16, 16] for one in boxed.mask]
    )
    assert torch.equal(noise_boxes(boxed.clean, whole.noisy, rows), boxed.noisy)
    assert len({tuple(row) for row in rows.tolist()}) == 4, "all four cells are drawn"
    abar = make_scheduler().alphas_cumprod[whole.timesteps][:, None, None, None]
    noise = (whole.noisy - abar.sqrt() * whole.clean) / (1 - abar).sqrt()
    assert 0.5 < noise[whole.timesteps > 200].square().mean() < 1.5


def test_a_batch_depends_on_its_first_sample_and_the_seed() -> None:
    source, made = DeviceSlices(levels(), "cpu"), objective("pddpm")
    first, again, later, other = (
        made.draw(source, seed, range(start, start + 4)) for seed, start in ((0, 8), (0, 8), (0, 12), (1, 8))
    )
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert not torch.equal(first.noisy, later.noisy) and not torch.equal(first.noisy, other.noisy)


def test_an_autoencoder_draws_its_noise_on_the_device() -> None:
    source, made = DeviceSlices(levels(), "cpu"), objective("dae")
    first, again, later = (made.draw(source, 0, range(start, start + 4)) for start in (0, 0, 4))
    same = objective("pddpm").draw(source, 0, range(4))
    assert torch.equal(first.clean, same.clean), "the slices that the diffusion models see"
    noises = [coarse_noise(batch) for batch in (first, again, later)]
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])
    assert noises[0].shape == (4, 1, 32, 32) and 0.1 < noises[0].std() < NOISE_STD


@pytest.mark.parametrize("power", [1, 3])
def test_levels_are_drawn_with_the_power_of_the_settings(power: int) -> None:
    source, made = DeviceSlices(levels(), "cpu"), objective("ddpm", timestep_power=power, noise="gaussian")
    drawn = made.draw(source, 0, range(4000)).timesteps
    assert 0 <= drawn.min() and drawn.max() <= 999
    assert (drawn >= 500).float().mean().item() == pytest.approx(1 - 0.5**power, abs=0.03)


def test_a_method_with_boxes_of_its_own_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="one generator for each sample"):
        objective("pddpm-random").draw(DeviceSlices(levels(), "cpu"), 0, range(2))


def test_training_on_a_device_learns_and_says_its_loss_where_a_checkpoint_is_due(tmp_path: Path) -> None:
    trainer = device_trainer(tmp_path / "model", steps=30, checkpoint_every=10)
    assert np.isnan(trainer.step(0)) and np.isfinite(trainer.step(9))
    history = read_training(device_trainer(tmp_path / "model", steps=30, checkpoint_every=10).run())["history"]
    assert [entry["step"] for entry in history] == [10, 20, 30]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]


def test_two_processes_see_what_one_sees_in_halves(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(script), str(tmp_path / "two")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    one = device_trainer(tmp_path / "one", micro_batch_size=2).run()
    first, second = (read_training(folder) for folder in (one, tmp_path / "two"))
    assert (first["processes"], second["processes"]) == (1, 2)
    for name in ("loss", "validation_loss"):
        losses = [[entry[name] for entry in record["history"]] for record in (first, second)]
        np.testing.assert_allclose(*losses, atol=1e-4)
    a, b = (
        torch.cat([value.float().flatten() for value in load_file(folder / WEIGHTS).values()])
        for folder in (one, tmp_path / "two")
    )
    assert (a - b).norm() < 2e-3 * a.norm()


def sleep_side_by_side() -> None:
    Parallel(n_jobs=2)(delayed(time.sleep)(0.01) for _ in range(4))


def test_a_process_that_scores_ends_with_its_work_and_not_with_its_idle_workers() -> None:
    process = multiprocessing.get_context("spawn").Process(target=then_end_workers, args=(sleep_side_by_side,))
    process.start()
    process.join(120)  # idle workers live for 300 s
    alive = process.is_alive()
    process.terminate()
    assert not alive and process.exitcode == 0


def test_the_naive_reference_gives_what_the_pipeline_gives() -> None:
    torch.manual_seed(0)
    network = make_network("smoke").eval()
    image = np.random.default_rng(0).random((2, 96, 96), np.float32)
    fields = torch.cat([simplex_noise((1, 1, 96, 96), torch.Generator().manual_seed(number)) for number in range(8)])
    pipeline = PatchedReconstructionPipeline(network, make_scheduler(), 48, 48)
    ours = pipeline.reconstruct_volume(image, np.ones(image.shape, bool), 333, noise=fields)
    np.testing.assert_allclose(naive_reconstruction(network, image, torch.device("cpu")), ours, atol=1e-4)


def test_the_batch_grows_while_it_pays_and_fits() -> None:
    assert largest_rate(lambda size: {8: 10, 16: 18, 32: 18.5, 64: 99}[size], 8, 64) == (16, 18)
    assert largest_rate(lambda size: size, 8, 32) == (32, 32)

    def full(size: int) -> float:
        if size > 16:
            raise torch.cuda.OutOfMemoryError
        return size

    assert largest_rate(full, 8, 1024) == (16, 16)


def test_busy_time_counts_what_overlaps_once() -> None:
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 1.7)]) == 4
    assert covered([]) == 0


def test_peaks_are_those_of_the_card_that_is_named() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12 and peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("some other card") is None


def test_a_record_keeps_what_is_done_and_refuses_another_run(tmp_path: Path) -> None:
    Record(tmp_path, {"card": None}).put("speed", "laptop", {"seconds": 1})
    record = Record(tmp_path, {"card": None})
    assert record.has("speed", "laptop") and record.get("speed", "laptop") == {"seconds": 1}
    Record(tmp_path, {"card": None}, writes=False).put("speed", "paper", {})
    assert not Record(tmp_path, {"card": None}).has("speed", "paper")
    with pytest.raises(InputError, match="another run \\(card differ"):
        Record(tmp_path, {"card": "H100"})
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Record(tmp_path, {"card": None})


def test_a_model_that_is_too_large_does_not_travel(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(np.random.default_rng(0).bytes(16 * 2**20))
    assert pack_folder(tmp_path / "model", tmp_path / "model.zip") == "not packed: 16 MiB"
    assert not (tmp_path / "model.zip").exists()


def test_bad_choices_are_one_clear_error(tmp_path: Path) -> None:
    places = (tmp_path, tmp_path / "out", tmp_path / "work")
    for options, words in (
        ({"networks": ("laptop", "paper")}, "give one or three of"),
        ({"networks": ("none",)}, "give one or three of"),
        ({"stages": ("spee",)}, "choose among checks, speed, training, compiled"),
        ({"minutes": 0}, "more than 0"),
    ):
        with pytest.raises(InputError, match=words):
            GpuRun(*places, **options)
    with pytest.raises(InputError, match="python -m pddm_utils bundle"):
        _ = GpuRun(*places).cohorts
    assert Clock(1).left() <= 60
