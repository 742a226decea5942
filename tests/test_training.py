"""Training: what is drawn, what is learnt, and that interruptions and process counts change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from killing import kill_repeatedly, newest_change
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.diffusion.objective import Batch, box_loss
from pddm_utils.methods.registry import make_method, method_class, training_key
from pddm_utils.training.loop import Phase, Trainer, read_training, set_learning_rate

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
SMALL = {"train_steps": 12, "checkpoint_every": 4, "batch_size": 4, "box_size": 16, "stride": 16}


class ArraySlices:
    """Slices in memory: smooth blobs, different for every index."""

    def __init__(self, count: int, size: int = 32) -> None:
        y, x = np.mgrid[:size, :size] / size
        self.slices = [(0.5 + 0.5 * np.sin(3 * x * k + 2 * y)).astype(np.float32) for k in range(1, count + 1)]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.slices[index]


def settings(**overrides) -> Settings:
    return load_settings("smoke", SMALL | overrides)


def trainer(folder: Path, method: str = "pddpm", seed: int = 0, **overrides) -> Trainer:
    return make_method(method, settings(**overrides), seed).trainer(ArraySlices(8), ArraySlices(3), folder)


def draw(method: str, samples: range, seed: int = 0, **overrides) -> Batch:
    """Training samples of a method, for slices of 32 pixels."""
    made = method_class(method)(method, settings(**overrides), image_size=32)
    return made.draw(ArraySlices(8), seed, samples)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def assert_same(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_sample_depends_on_its_number_and_on_nothing_else() -> None:
    together, alone = (draw("pddpm", samples, 3, noise="simplex") for samples in (range(10, 14), range(12, 13)))
    for name in ("clean", "noisy", "mask", "timesteps"):
        assert torch.equal(getattr(together, name)[2:3], getattr(alone, name))
    other = draw("pddpm", range(10, 14), 4, noise="simplex")
    assert not torch.equal(other.noisy, together.noisy)


def test_both_methods_see_the_same_slices_noise_levels_and_noise() -> None:
    whole, boxed = (draw(method, range(6)) for method in ("ddpm", "pddpm"))
    assert torch.equal(whole.clean, boxed.clean) and torch.equal(whole.timesteps, boxed.timesteps)
    assert torch.equal(whole.noisy[boxed.mask], boxed.noisy[boxed.mask])
    assert torch.equal(boxed.noisy[~boxed.mask], boxed.clean[~boxed.mask])
    assert whole.mask.all() and boxed.mask.float().mean() == 0.25


@pytest.mark.parametrize(("power", "above_818"), [(1.0, 0.18), (3.0, 1 - 0.818**3)])
def test_the_power_shifts_the_drawn_noise_levels_upwards(power: float, above_818: float) -> None:
    class Uniform:
        """A generator that gives a set number."""

        def __init__(self, number: int) -> None:
            self.number = number

        def integers(self, upper: int) -> int:
            return self.number

    made = method_class("ddpm")("ddpm", settings(timestep_power=power))
    levels = made.timesteps([Uniform(number) for number in range(1000)], 1000)
    assert min(levels) >= 0 and max(levels) == 999 and levels == sorted(levels)
    assert np.mean(np.array(levels) >= 818) == pytest.approx(above_818, abs=0.003)
    assert levels == list(range(1000)) or power != 1


def test_loss_counts_the_inside_of_the_box_only() -> None:
    clean, prediction = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 100.0)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, :2, :2] = mask[1, :, :, :1] = True
    prediction[0, :, :2, :2], prediction[1, :, :, :1] = 1.0, 3.0
    assert box_loss(prediction, clean, mask).item() == pytest.approx(2.0)


def learning_rates(chosen: Settings, steps: int) -> list[float]:
    group = {"params": [torch.zeros(1)], "initial_lr": chosen.learning_rate}
    optimizer, rates = torch.optim.SGD([group], lr=chosen.learning_rate), []
    for step in range(steps):
        set_learning_rate(optimizer, Phase(("",), step, steps), chosen)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@hypothesis_settings(max_examples=40)
@given(st.integers(1, 60), st.integers(0, 20), st.sampled_from(["cosine", "none"]))
def test_learning_rate_is_a_function_of_the_step(steps: int, warmup: int, decay: str) -> None:
    chosen = settings(warmup_steps=warmup, learning_rate=0.3, learning_rate_decay=decay)
    expected = []
    for step in range(steps):
        after = max(step - warmup, 0) / max(steps - warmup, 1)
        share = (1 + np.cos(np.pi * after)) / 2 if decay == "cosine" else 1.0
        expected.append(0.3 * ((step + 1) / warmup if step < warmup else share))
    np.testing.assert_allclose(learning_rates(chosen, steps), expected, rtol=1e-12)


@pytest.mark.parametrize(("method", "decay"), [("pddpm", 0.5), ("pddpm", 0.0), ("fanogan", 0.5)])
def test_averaged_weights_follow_all_parts_of_the_network(tmp_path, method: str, decay: float) -> None:
    made = trainer(tmp_path / "model", method, ema_decay=decay, learning_rate=0.01)
    expected = [value.double() for value in made.averaged.values()]
    for step in range(8):  # f-AnoGAN's generator moves at the fifth and the encoder from the seventh
        made.step(step)
        kept = min(decay, (1 + step) / (10 + step)) if step else 0.0
        expected = [
            kept * mean + (1 - kept) * now.double()
            for mean, now in zip(expected, made.network.parameters(), strict=True)
        ]
    for mean, value in zip(expected, made.averaged.values(), strict=True):
        np.testing.assert_allclose(value.numpy(), mean.detach().numpy(), atol=1e-6)


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    chosen = settings(warmup_steps=4, learning_rate=0.1)
    rates = learning_rates(chosen, 20)
    assert rates[0] == pytest.approx(0.025) and max(rates) == pytest.approx(0.1) and rates[-1] < 0.002
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_training_lowers_the_fixed_validation_loss(tmp_path) -> None:
    chosen = settings(train_steps=80, checkpoint_every=10, learning_rate=0.01, ema_decay=0.8)
    folder = make_method("ddpm", chosen).trainer(ArraySlices(2), ArraySlices(2), tmp_path / "model").run()
    history = [entry["validation_loss"] for entry in read_training(folder)["history"]]
    assert len(history) == 8 and history[-1] < 0.8 * history[0]


@pytest.mark.parametrize("changes", [{"noise": "gaussian"}, {"noise": "simplex", "micro_batch_size": 3}])
def test_resumed_training_ends_with_the_same_weights(tmp_path, changes: dict) -> None:
    whole = trainer(tmp_path / "whole", **changes).run()
    stopped = trainer(tmp_path / "stopped", **changes)
    original, done = stopped.step, []

    def stop_at_step_six(step: int) -> float:
        if step == 6:
            raise KeyboardInterrupt
        done.append(step)
        return original(step)

    stopped.step = stop_at_step_six
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert not (tmp_path / "stopped").exists() and stopped.checkpoint.is_file()
    resumed = trainer(tmp_path / "stopped", **changes)
    assert_same(whole, resumed.run())
    moments = [value for state in resumed.optimizer.state.values() for value in state.values()]
    assert {value.data_ptr() % 64 for value in moments} == {0}, "those of the checkpoint too lie as in fresh memory"
    losses = [entry["loss"] for entry in read_training(whole)["history"]]
    assert [entry["loss"] for entry in read_training(tmp_path / "stopped")["history"]] == losses
    assert not resumed.checkpoint.exists()


def flat_gradient(made: Trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in made.network.parameters()])


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_parts_of_a_batch_add_up_to_the_whole_batch(tmp_path, micro: int) -> None:
    whole, parts = trainer(tmp_path / "whole"), trainer(tmp_path / "parts", micro_batch_size=micro)
    losses = [made.add_gradients(range(20, 24)).item() for made in (whole, parts)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    first, second = flat_gradient(whole), flat_gradient(parts)
    assert (first - second).norm() < 1e-5 * first.norm() and first.norm() > 0
    steps = [[made.step(step) for step in range(3)] for made in (whole, parts)]
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-4)
    assert training_key(whole.settings, "ddpm", 0) == training_key(parts.settings, "ddpm", 0)


def test_constant_learning_rate_has_its_own_key() -> None:
    constant = settings(learning_rate_decay="none", warmup_steps=0, learning_rate=1e-4)
    assert set(learning_rates(constant, 20)) == {1e-4}
    cosine = settings(warmup_steps=0, learning_rate=1e-4)
    assert training_key(constant, "ddpm", 0) != training_key(cosine, "ddpm", 0)


def test_seed_decides_and_a_finished_run_is_left_alone(tmp_path) -> None:
    first = trainer(tmp_path / "a").run()
    assert_same(first, trainer(tmp_path / "b").run())
    other = weights(trainer(tmp_path / "c", seed=1).run())
    assert any(not torch.equal(value, other[key]) for key, value in weights(first).items())
    before = (first / WEIGHTS).stat().st_mtime_ns
    trainer(tmp_path / "a").run()
    assert (first / WEIGHTS).stat().st_mtime_ns == before


def test_checkpoint_of_other_settings_or_damaged_is_refused(tmp_path) -> None:
    def fail_at_step_five(step: int) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return original(step)

    stopped = trainer(tmp_path / "model")
    original, stopped.step = stopped.step, fail_at_step_five
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    with pytest.raises(InputError, match="written with other settings; delete it"):
        trainer(tmp_path / "model", learning_rate=0.5).run()
    with pytest.raises(InputError, match="damaged, or a checkpoint of another network"):
        trainer(tmp_path / "model", network="laptop").run()
    stopped.checkpoint.write_bytes(stopped.checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path / "model").run()


def test_no_training_slices_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(InputError, match="no training slices"):
        make_method("pddpm", settings()).trainer(ArraySlices(0), ArraySlices(3), tmp_path / "model")


def command(runs: Path, *launcher: str) -> list[str]:
    small = ["train_subjects=1", "val_subjects=1", "train_steps=12", "checkpoint_every=1", "batch_size=2"]
    words = ["-m", "pddm_utils", "train", "--profile", "smoke", "--method", "pddpm", "--runs", str(runs)]
    return [*launcher, *words, *(word for item in small for word in ("--set", item))]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PDDM_DATA": ""}


def finished(runs: Path) -> Path:
    (folder,) = [path for path in (runs / "models").iterdir() if (path / "training.json").is_file()]
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(runs, sys.executable), check=True, env=environment(), capture_output=True)
    return finished(runs)


def test_killed_training_goes_on_to_the_same_weights(undisturbed: Path, tmp_path) -> None:
    kill_training(tmp_path, kills=2, seed=0)
    assert_same(undisturbed, finished(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_training_goes_on_to_the_same_weights_often(undisturbed: Path, tmp_path, seed: int) -> None:
    kill_training(tmp_path, kills=4, seed=seed + 1)
    assert_same(undisturbed, finished(tmp_path))


def kill_training(runs: Path, kills: int, seed: int) -> None:
    """SIGKILL the training a random moment after its first sign of life, then let it finish."""
    words = command(runs, sys.executable)
    kill_repeatedly(words, environment(), lambda: newest_change(runs / "models"), kills, seed, longest=0.6)
    subprocess.run(words, check=True, env=environment(), capture_output=True)


def test_two_processes_equal_one_with_the_same_global_batch(undisturbed: Path, tmp_path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    subprocess.run(command(tmp_path, *launcher), check=True, env=environment(), capture_output=True)
    folder = finished(tmp_path)
    one, two = read_training(undisturbed), read_training(folder)
    assert (one["processes"], two["processes"]) == (1, 2)
    np.testing.assert_allclose([e["loss"] for e in two["history"]], [e["loss"] for e in one["history"]], atol=2e-5)
    np.testing.assert_allclose(
        [e["validation_loss"] for e in two["history"]], [e["validation_loss"] for e in one["history"]], atol=2e-5
    )
    # Adam divides by the gradient's size, so single weights with a gradient near zero differ more than the losses.
    first, second = (
        torch.cat([value.float().flatten() for value in weights(path).values()]) for path in (undisturbed, folder)
    )
    assert (first - second).norm() < 2e-3 * first.norm()


def test_checkpoints_are_safetensors_and_json(undisturbed: Path) -> None:
    assert {path.suffix for path in undisturbed.rglob("*") if path.is_file()} == {".safetensors", ".json"}
    json.loads((undisturbed / "training.json").read_text())
