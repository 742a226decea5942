"""Every method of the comparison: its formula on numbers, its size, and that interruptions change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file

from pddm_utils.benchmark import evaluate
from pddm_utils.benchmark.models import model_folder
from pddm_utils.benchmark.run import Benchmark, run_benchmark
from pddm_utils.benchmark.tables import read_results
from pddm_utils.core.errors import InputError
from pddm_utils.core.settings import Settings, load_settings
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, load_twin
from pddm_utils.data.scan import Scan
from pddm_utils.diffusion.network import NETWORKS, parameter_count
from pddm_utils.diffusion.objective import Batch
from pddm_utils.diffusion.pipeline import make_scheduler
from pddm_utils.diffusion.sampling import ddim_reverse, trailing_timesteps
from pddm_utils.methods.anoddpm import posterior_mean
from pddm_utils.methods.autoencoders import kl_to_standard_normal
from pddm_utils.methods.cddpm import LEVELS, augment_intensity
from pddm_utils.methods.dae import NOISE_CELL, NOISE_STD, coarse_noise
from pddm_utils.methods.fanogan import AdversarialNetworks, FAnoGAN, gradient_penalty
from pddm_utils.methods.mddpm import frequencies, with_rectangles
from pddm_utils.methods.network_method import NetworkMethod, SliceBatch
from pddm_utils.methods.registry import (
    METHODS,
    NOISE_LEVEL_METHODS,
    PATCHED_METHODS,
    SEEDED_METHODS,
    TRAINED_METHODS,
    make_method,
    method_class,
    open_method,
    training_key,
)
from pddm_utils.training.loop import read_training
from test_training import ArraySlices

SMALL = {"train_steps": 12, "checkpoint_every": 4, "batch_size": 4, "box_size": 16, "stride": 16, "warmup_steps": 2}
METHOD_PAGE = (Path(__file__).parents[1] / "book" / "other_methods.md").read_text(encoding="utf-8")
PUBLISHED = set(load_settings("methods").methods)  # those with results in the project
NETWORK_METHODS = [name for name in TRAINED_METHODS if issubclass(method_class(name), NetworkMethod)]


TINY = {
    "train_subjects": 1,
    "val_subjects": 1,
    "train_steps": 2,
    "checkpoint_every": 2,
    "batch_size": 2,
    "seeds": [0],
    "timesteps": [499],
    "selection_slice_step": 1,
    "noise_levels": ["validation"],
    "lesion_kinds": ["tumour"],
    "ddim_steps": 2,
    "methods": list(METHODS),
}


def settings(**overrides) -> Settings:
    return load_settings("smoke", SMALL | overrides)


def made(name: str, size: int = 32, **overrides) -> NetworkMethod:
    """A method for slices of another size."""
    return method_class(name)(name, settings(**overrides), image_size=size)


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + number) for number in range(count)]


def make_scan(size: int = 96) -> Scan:
    image = np.stack([ArraySlices(3, size)[index] for index in range(3)])
    brain = np.ones(image.shape, dtype=bool)
    return Scan("s1", "mine", "T2", image, brain, np.zeros_like(brain), np.eye(4))


def test_every_method_that_learns_has_a_class_and_every_noise_level_a_learner() -> None:
    assert all(make_method(name, settings()).name == name for name in METHODS)
    assert set(NOISE_LEVEL_METHODS) <= set(TRAINED_METHODS)
    assert set(load_settings("methods").methods) <= set(METHODS)


def test_an_unknown_method_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"method pddm does not exist; choose among {', '.join(METHODS)}"):
        Benchmark(load_settings("smoke", {"methods": ["pddm"]}), False, tmp_path, tmp_path)
    with pytest.raises(InputError, match="choose among"):
        make_method("pddm", settings())
    with pytest.raises(InputError, match="pddpm learns and no folder of its weights is given"):
        open_method("pddpm", settings())


# PCA


def test_pca_rebuilds_what_lies_in_a_low_rank_set_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    axes, slices = rng.random((3, 16, 16)), ArraySlices(0)
    slices.slices = [np.tensordot(rng.dirichlet(np.ones(3)), axes, 1).astype(np.float32) for _ in range(40)]
    method = make_method("pca", settings(train_steps=20))
    method.fit(slices, slices, tmp_path / "pca")
    image = np.stack(slices.slices[:5])
    scan = dataclasses.replace(make_scan(16), image=image)
    np.testing.assert_allclose(method.reconstruct(scan), image, atol=1e-5)
    lesion = image.copy()
    lesion[:, 2, 3] = 1 - lesion[:, 2, 3]
    assert np.abs(method.reconstruct(dataclasses.replace(scan, image=lesion)) - lesion).max() > 0.05
    record = read_training(tmp_path / "pca")
    assert record["step"] == 20 and record["cpu_seconds"] > 0 and record["history"][0]["validation_loss"] < 1e-5
    before = (tmp_path / "pca" / "training.json").stat().st_mtime_ns
    method.fit(slices, slices, tmp_path / "pca")
    assert (tmp_path / "pca" / "training.json").stat().st_mtime_ns == before


# AE, VAE, SVAE


def test_kl_divergence_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)
    assert kl_to_standard_normal(torch.zeros(1, 9), torch.zeros(1, 9)).item() == 0


def test_vae_loss_is_l1_plus_divergence_per_pixel_and_ae_loss_is_l1() -> None:
    batch = SliceBatch(torch.rand(2, 1, 32, 32) * 2 - 1, generators(2))
    for name in ("ae", "vae", "svae"):
        objective = made(name)
        network = objective.make_network().eval()
        with torch.no_grad():
            mean, log_variance = network.encode(batch.clean)
            loss = objective.loss(network, SliceBatch(batch.clean, generators(2)))
            if name == "ae":
                expected = (network.decode(mean) - batch.clean).abs().mean()
            else:
                assert mean.ndim == (4 if name == "svae" else 2)
                noise = SliceBatch(batch.clean, generators(2)).normal(*mean.shape[1:])
                latent = mean + (log_variance / 2).exp() * noise
                divergence = kl_to_standard_normal(mean, log_variance).mean() / 32**2
                expected = (network.decode(latent) - batch.clean).abs().mean() + divergence
        torch.testing.assert_close(loss, expected)


# DAE


def test_coarse_noise_has_the_spread_of_interpolated_normal_values() -> None:
    size, count = 32, 1500
    noise = coarse_noise(SliceBatch(torch.zeros(count, 1, size, size), generators(count)))
    place = torch.arange(size) * (size // NOISE_CELL - 1) / (size - 1)  # of each pixel between the coarse values
    part = place - place.floor()
    along = (part**2 + (1 - part) ** 2).mean()  # variance of a weighted sum of two, averaged along an axis
    assert noise.shape == (count, 1, size, size) and abs(noise.mean()) < 0.01
    assert noise.std().item() == pytest.approx(NOISE_STD * along.item(), rel=0.03)
    assert noise.var(dim=0).std() / noise.var(dim=0).mean() < 0.1  # shifted at random: no pixel is special
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.var()
    assert neighbours > 0.85  # coarse, not pixel noise


def test_dae_leaves_the_background_alone() -> None:
    objective = made("dae")
    network = objective.make_network().eval()
    black = torch.full((1, 1, 32, 32), -1.0)
    assert objective.loss(network, SliceBatch(black, generators(1))).item() == 0
    assert torch.equal(objective.rebuild(network, black, None, torch.Generator()), black)


# f-AnoGAN


def test_gradient_penalty_of_a_linear_critic_is_known() -> None:
    weights = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    real, fake = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)

    def critic(slices: torch.Tensor) -> torch.Tensor:
        return (slices * weights).flatten(1).sum(1, keepdim=True)

    penalty = gradient_penalty(critic, real, fake, torch.rand(3, 1, 1, 1))
    torch.testing.assert_close(penalty, (weights.norm() - 1) ** 2)
    assert gradient_penalty(lambda x: critic(x) / weights.norm(), real, fake, torch.rand(3, 1, 1, 1)) < 1e-10


def test_encoder_loss_weighs_slice_and_features() -> None:
    network = AdversarialNetworks("smoke", 32).eval()
    slices = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        rebuilt = network.generator(network.encoder(slices))
        features = network.critic["features"]
        expected = ((rebuilt - slices) ** 2).mean() + ((features(rebuilt) - features(slices)) ** 2).mean()
        torch.testing.assert_close(FAnoGAN.encoder_loss(network, slices), expected)
    assert rebuilt.abs().max() <= 1


def test_each_part_of_fanogan_is_updated_in_its_phase_only(tmp_path: Path) -> None:
    trainer = make_method("fanogan", settings(train_steps=12)).trainer(
        ArraySlices(4, 32), ArraySlices(2, 32), tmp_path / "model"
    )

    def changed(step: int) -> set[str]:
        parameters = dict(trainer.network.named_parameters())
        before = {name: p.detach().clone() for name, p in parameters.items()}
        trainer.step(step)
        return {name.split(".")[0] for name, p in parameters.items() if not torch.equal(p, before[name])}

    assert changed(0) == {"critic"} and changed(4) == {"critic", "generator"} and changed(6) == {"encoder"}
    assert [trainer.objective.phase(step, 12).step for step in (0, 5, 6, 11)] == [0, 5, 0, 5]


# Diffusion models


def test_reverse_process_starts_at_the_noise_level_and_is_evenly_spaced() -> None:
    assert trailing_timesteps(499, 10) == list(range(499, -1, -50))
    uneven = trailing_timesteps(818, 10)
    assert uneven[0] == 818 and len(uneven) == 10 and set(-np.diff(uneven)) <= {81, 82, 83} and uneven[-1] < 83
    with pytest.raises(InputError, match="there are 1 to 5"):
        trailing_timesteps(4, 6)


def test_ddim_with_one_step_is_the_one_step_prediction_and_more_steps_are_those_of_diffusers() -> None:
    alphas = make_scheduler().alphas_cumprod
    clean, noise = torch.rand(2, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()

    def predict(noisy: torch.Tensor, index: int) -> torch.Tensor:
        return (0.3 * noisy + 0.001 * index).tanh()

    noisy = make_scheduler().add_noise(clean, noise, torch.tensor([499, 499]))
    torch.testing.assert_close(ddim_reverse(predict, noisy, [499], alphas), predict(noisy, 499))
    scheduler = DDIMScheduler(
        1000, beta_schedule="squaredcos_cap_v2", prediction_type="sample", timestep_spacing="trailing", clip_sample=True
    )
    scheduler.set_timesteps(20)
    expected = noisy
    for index in scheduler.timesteps[scheduler.timesteps <= 499]:
        expected = scheduler.step(predict(expected, int(index)), index, expected).prev_sample
    torch.testing.assert_close(ddim_reverse(predict, noisy, trailing_timesteps(499, 10), alphas), expected)


def test_a_perfect_predictor_walks_back_to_the_clean_slice() -> None:
    clean = torch.rand(1, 1, 8, 8) * 2 - 1
    noisy = make_scheduler().add_noise(clean, torch.randn(1, 1, 8, 8), torch.tensor([818]))
    back = ddim_reverse(lambda noisy, index: clean, noisy, trailing_timesteps(818, 7), make_scheduler().alphas_cumprod)
    torch.testing.assert_close(back, clean)


def test_anoddpm_learns_as_published_whatever_the_profile_says() -> None:
    method = made("anoddpm", learning_rate=0.5, ema_decay=0.5, timestep_power=3, noise="gaussian")
    chosen = method.settings
    assert (chosen.schedule, chosen.noise, chosen.timestep_power) == ("linear", "simplex", 1)
    assert (chosen.learning_rate, chosen.learning_rate_decay, chosen.ema_decay) == (1e-4, "none", 0.9999)
    batch = method.draw(ArraySlices(4), 0, range(600))
    assert abs(batch.timesteps.float().mean() - 499.5) < 50 and (batch.timesteps < 250).float().mean() > 0.15
    alphas = make_scheduler("linear").alphas_cumprod
    level = alphas[batch.timesteps].view(-1, 1, 1, 1)
    noise = (batch.noisy - level.sqrt() * batch.clean) / (1 - level).sqrt()
    assert noise.std() == pytest.approx(1, abs=0.05)
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.var()
    assert neighbours > 0.5  # simplex, not pixel noise

    class Guess(torch.nn.Module):
        def forward(self, noisy, timesteps):
            return type("Output", (), {"sample": torch.zeros_like(noisy)})

    torch.testing.assert_close(method.loss(Guess(), batch), noise.square().mean(), rtol=1e-3, atol=1e-3)  # eps, L2


def test_anoddpm_walks_back_with_fresh_noise_in_the_steps_set() -> None:
    clean, alphas = torch.rand(1, 1, 32, 32) * 1.6 - 0.8, make_scheduler("linear").alphas_cumprod
    seen: list[tuple[int, torch.Tensor]] = []

    def knows(noisy: torch.Tensor, index: int):
        seen.append((index, (noisy - alphas[index] ** 0.5 * clean) / (1 - alphas[index]) ** 0.5))
        return type("Output", (), {"sample": seen[-1][1]})

    for steps, expected in ((3, [299, 199, 99]), (1000, list(range(299, -1, -1)))):
        seen.clear()
        method = made("anoddpm", ddim_steps=steps)
        rebuilt = method.rebuild(knows, clean, 299, torch.Generator().manual_seed(0))
        assert [index for index, _ in seen] == expected
        torch.testing.assert_close(rebuilt, clean, atol=1e-4, rtol=1e-4)
        noises = [noise for _, noise in seen]
        assert not torch.allclose(noises[0], noises[1], atol=0.05)  # fresh noise came in
        assert all(0.5 < noise.std() < 1.5 for noise in noises)  # and the level's variance stayed


def test_posterior_mean_of_neighbours_is_that_of_diffusers() -> None:
    scheduler = DDPMScheduler(1000, beta_schedule="linear", prediction_type="sample", clip_sample=False)
    clean, noisy = torch.rand(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    generator = torch.Generator().manual_seed(1)
    expected = scheduler.step(clean, 300, noisy, generator=generator).prev_sample
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    now, then = scheduler.alphas_cumprod[300].item(), scheduler.alphas_cumprod[299].item()
    spread = scheduler._get_variance(300) ** 0.5
    torch.testing.assert_close(posterior_mean(clean, noisy, now, then), expected - spread * noise, atol=1e-5, rtol=1e-5)


def test_frequencies_of_both_kinds_add_up_and_low_ones_are_smooth() -> None:
    plane = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    low, high = frequencies(plane, 3, low=True), frequencies(plane, 3, low=False)
    torch.testing.assert_close(low + high, plane, atol=1e-5, rtol=1e-5)
    assert low.diff().abs().mean() < 0.2 * high.diff().abs().mean() and abs(high.mean()) < 1e-5


def test_rectangles_are_few_small_inside_the_brain_and_its_frequencies() -> None:
    size, brain = 64, slice(8, 58)  # 50 pixels high: sides of 4 to 9
    plane = torch.full((1, 1, size, size), -1.0)
    plane[..., brain, brain] = torch.rand(50, 50, generator=torch.Generator().manual_seed(0))
    slices = plane.expand(200, -1, -1, -1)
    changed = with_rectangles(slices, generators(200)) != slices
    assert not changed[..., :13, :].any() and not changed[..., 53:, :].any()  # a margin of five pixels
    areas = changed.flatten(1).sum(1)
    assert (areas == 0).float().mean() == pytest.approx(1 / 6, abs=0.1)  # none at all, one time in six
    assert areas.max() <= 5 * 9 * 9 and areas[areas > 0].min() >= 4 * 4 - 2
    lower = sum(map(frequency_kind, with_rectangles(slices, generators(200)), changed)) / (areas > 0).sum()
    assert lower == pytest.approx(0.5, abs=0.2)  # low and high ones in turn
    small = torch.full((1, 1, 12, 12), 0.5)
    assert torch.equal(with_rectangles(small, generators(1)), small)


def frequency_kind(damaged: torch.Tensor, changed: torch.Tensor) -> bool:
    """Whether rectangles of a brain of about 0.75 in [0, 1] show low frequencies; high ones are about 0 there."""
    return bool(changed.any() and damaged[changed].mean() > 0)


def test_mddpm_sees_damage_inside_and_outside_its_box_and_learns_the_undamaged_slice() -> None:
    source = ArraySlices(4, 64)
    batch, pddpm = (
        method_class(name)(name, settings(noise="simplex", timestep_power=1), image_size=64).draw(source, 0, range(40))
        for name in ("mddpm", "pddpm")
    )
    assert torch.equal(batch.clean, pddpm.clean) and torch.equal(batch.mask, pddpm.mask)
    assert torch.equal(batch.timesteps, pddpm.timesteps)
    assert batch.mask.float().mean() == pytest.approx((16 / 64) ** 2)  # the loss stays inside the box of the grid
    differs = batch.noisy != pddpm.noisy
    assert (differs & batch.mask).any() and (differs & ~batch.mask).any() and differs.float().mean() < 0.2
    assert made("mddpm").settings.noise == "simplex" and "mddpm" in PATCHED_METHODS


def test_random_boxes_weigh_every_pixel_alike() -> None:
    objective = made("pddpm-random")
    source = ArraySlices(2)
    masks = torch.cat([objective.draw(source, 0, range(start, start + 500)).mask for start in range(0, 3000, 500)])
    share = masks.float().mean(0)
    expected = (16 / (32 + 15)) ** 2
    assert (share - expected).abs().max() < 4.5 * (expected * (1 - expected) / len(masks)) ** 0.5
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in masks[:50]}) > 20  # anywhere, not on a grid

    class One(torch.nn.Module):
        def forward(self, noisy, timesteps):
            return type("Output", (), {"sample": torch.ones_like(noisy)})

    full = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    batch = Batch(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32), full, torch.tensor([0]))
    assert objective.loss(One(), batch).item() == pytest.approx(1 / expected)  # area over mean area, error 1
    assert objective.grid.boxes.shape == (4, 4)  # at test time the fixed grid


def test_condition_reaches_the_prediction() -> None:
    objective = made("cddpm")
    network = objective.make_network().eval()
    noisy, steps = torch.randn(1, 1, 32, 32), torch.tensor([500])
    with torch.no_grad():
        first, second = (network(noisy, steps, torch.full((1, 1, 32, 32), value)) for value in (-0.5, 0.5))
    assert first.shape == (1, 1, 32, 32) and not torch.allclose(first, second)


def test_cddpm_rebuilds_with_the_mean_over_three_levels() -> None:
    method = made("cddpm", noise="gaussian")
    assert method.settings.noise == "simplex"
    slices, seen = torch.rand(2, 1, 32, 32) * 2 - 1, []

    class Spy(torch.nn.Module):
        def encoder(self, slices):
            return slices.mean((1, 2, 3))

        def unet(self, noisy, level, class_labels):
            seen.append((level, noisy.clone(), class_labels))
            return type("Output", (), {"sample": torch.full_like(noisy, float(level))})

    rebuilt = method.rebuild(Spy(), slices, 17, torch.Generator().manual_seed(0))
    assert [level for level, *_ in seen] == list(LEVELS) and torch.equal(
        rebuilt, torch.full_like(rebuilt, sum(LEVELS) / 3)
    )
    alphas = make_scheduler().alphas_cumprod.double()
    ratio = ((1 - alphas) / alphas).sqrt()  # noise to signal; the authors' noise has a standard deviation of 0.58
    for level, published in zip(LEVELS, (250, 500, 750), strict=True):
        assert ratio[level] == pytest.approx(0.58 * ratio[published - 1].item(), rel=0.01)
    noises = [(noisy - alphas[level].sqrt() * slices) / (1 - alphas[level]).sqrt() for level, noisy, _ in seen]
    assert not torch.allclose(noises[0], noises[1], atol=0.1)


def test_cddpm_learns_slices_of_changed_intensities() -> None:
    source = ArraySlices(4)
    batch, plain = (
        method_class(name)(name, settings(noise="simplex", timestep_power=1), image_size=32).draw(source, 0, range(200))
        for name in ("cddpm", "ddpm")
    )
    changed = (batch.clean != plain.clean).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(1 - 0.5 * 0.75 * 0.75, abs=0.12)
    assert batch.clean.min() >= -1 and batch.clean.max() <= 1
    black = torch.full((20, 1, 8, 8), -1.0)
    rngs = [np.random.default_rng(number) for number in range(20)]
    assert torch.equal(augment_intensity(black, rngs), black)


# All of them

SIZES = {
    "ae": (490_817, 1_511_857),
    "vae": (564_673, 1_585_713),
    "svae": (353_009, 1_408_993),
    "dae": (647_297, 37_513_345),
    "fanogan": (659_762, 2_181_954),
    "cddpm": (852_593, 38_478_289),
}


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_size_their_docstring_states(name: str) -> None:
    for size, expected in zip(("laptop", "paper"), SIZES[name], strict=True):
        with torch.device("meta"):
            network = made(name, 96, network=size).make_network()
        assert parameter_count(network) == expected
        assert f"{expected:,}" in method_class(name).__doc__ and f"| {expected:,} |" in METHOD_PAGE


@pytest.mark.parametrize("name", NETWORK_METHODS)
def test_parameters_are_all_the_state_of_a_network(name: str) -> None:
    with torch.device("meta"):
        assert not list(made(name, 96).make_network().buffers())


@pytest.mark.parametrize("name", [name for name in TRAINED_METHODS if hasattr(method_class(name), "make_network")])
def test_every_method_has_a_network_of_every_size(name: str) -> None:
    with pytest.raises(InputError, match=f"choose one of {', '.join(NETWORKS)}$"):
        settings(network="none")
    counts = []
    for size in NETWORKS:
        with torch.device("meta"):
            counts.append(parameter_count(made(name, 96, network=size).make_network()))
    assert counts == sorted(set(counts)), "each is larger than the one before"


@pytest.mark.parametrize("name", ["vae", "fanogan"])
def test_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path, name: str) -> None:
    def run(folder: Path, stop: int | None) -> Path | None:
        trainer = make_method(name, settings()).trainer(ArraySlices(8), ArraySlices(3), folder)
        original = trainer.step

        def step(number: int) -> float:
            if number == stop:
                raise KeyboardInterrupt
            return original(number)

        trainer.step = step
        try:
            return trainer.run()
        except KeyboardInterrupt:
            return None

    whole = run(tmp_path / "whole", None)
    assert run(tmp_path / "stopped", 5) is None and run(tmp_path / "stopped", 10) is None  # one stop in each phase
    assert run(tmp_path / "stopped", None) == tmp_path / "stopped"
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / "stopped"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert read_training(whole)["history"] == read_training(tmp_path / "stopped")["history"]


def test_weights_of_another_network_are_one_clear_error(tmp_path: Path) -> None:
    make_method("ae", settings(train_steps=1)).fit(ArraySlices(2, 96), ArraySlices(2, 96), tmp_path / "ae")
    for name, size in (("vae", "smoke"), ("ae", "laptop"), ("fanogan", "smoke"), ("cddpm", "smoke")):
        with pytest.raises(InputError, match="weights of another network than"):
            open_method(name, settings(network=size), folder=tmp_path / "ae")
    with pytest.raises(InputError, match="weights of another method"):
        open_method("pca", settings(), folder=tmp_path / "ae")
    with pytest.raises(InputError, match="no such file; train vae first"):
        open_method("vae", settings(), folder=tmp_path)
    path = tmp_path / "ae" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        open_method("ae", settings(), folder=tmp_path / "ae")


def test_training_keys_depend_on_what_the_method_uses_only() -> None:
    plain = settings()
    for change, methods in [
        ({"noise": "simplex"}, {"ddpm", "pddpm", "pddpm-random"}),
        ({"schedule": "linear", "timestep_power": 2}, {"ddpm", "pddpm", "pddpm-random"}),
        ({"learning_rate": 0.5}, set(SEEDED_METHODS) - {"pca", "fanogan", "anoddpm"}),
        ({"network": "laptop"}, set(SEEDED_METHODS) - {"pca"}),
        ({"box_size": 8}, {"pddpm", "pddpm-random", "mddpm"}),
        ({"ddim_steps": 3, "threads": 2, "timesteps": [249]}, set()),
        ({"train_steps": 13}, set(SEEDED_METHODS)),
        ({"train_subjects": 3}, set(TRAINED_METHODS)),
    ]:
        other = settings(**change)
        changed = {name for name in TRAINED_METHODS if training_key(plain, name, 0) != training_key(other, name, 0)}
        assert changed & PUBLISHED == methods & PUBLISHED


def five(scan: Scan) -> slice:
    """The slices around the lesion, or around the middle."""
    middle = int(scan.lesion_mask.sum((1, 2)).argmax()) if scan.lesion_mask.any() else len(scan.image) // 2
    return slice(middle - 2, middle + 3)


def five_slices(row: ManifestRow, cache: ScanCache) -> Scan:
    """A scan cut to the slices around its lesion, or around its middle: every step is real, on fewer slices."""
    scan = load_scan(row, cache)
    part = five(scan)
    arrays = {name: getattr(scan, name)[part].copy() for name in ("image", "brain_mask", "lesion_mask")}
    return dataclasses.replace(scan, **arrays)


def test_all_methods_pass_through_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "load_scan", five_slices)
    monkeypatch.setattr(evaluate, "load_twin", lambda row, cache: load_twin(row, cache)[five(load_scan(row, cache))])
    made = Benchmark(load_settings("smoke", TINY), False, tmp_path / "runs", tmp_path / "results", jobs=1)
    run_benchmark(made)
    scores, run = read_results(made.results)
    assert set(scores.method) == set(METHODS) and set(run["models"]) == {f"{name}-seed0" for name in TRAINED_METHODS}
    assert set(scores[scores.noise_level == "validation"].method) == set(NOISE_LEVEL_METHODS)
    assert set(scores[scores.noise_level == "none"].method) == set(METHODS) - set(NOISE_LEVEL_METHODS)
    assert scores.groupby("method").size().nunique() == 1  # the same scans and rules for every method
    lesioned = scores[scores.dataset == "simulated-t2-tumour"]
    assert lesioned.auprc.between(0, 1).all() and lesioned.groupby("method").auprc.first().nunique() == len(METHODS)
    models = run["models"]
    assert all(models[f"{name}-seed0"]["steps"] == 2 for name in SEEDED_METHODS) and models["atlas-seed0"]["steps"] == 0
    assert all(model["cpu_seconds"] >= 0 for model in models.values())
    assert models["ddpm-seed0"]["parameters"] == models["anoddpm-seed0"]["parameters"] == 47_505
    assert models["fanogan-seed0"]["parameters"] < 185_570  # without the critic

    parts = {path.name for path in (made.runs / "parts").iterdir()}
    again = dataclasses.replace(made, settings=load_settings("smoke", TINY | {"ddim_steps": 1}))
    run_benchmark(again)
    new = {path.name for path in (made.runs / "parts").iterdir()} - parts
    assert {name.split("-")[1] for name in new} == {"anoddpm"}  # everything else was there
    with pytest.raises(InputError, match="weights of another network"):
        open_method("vae", made.settings, folder=model_folder(made.settings, "ae", 0, made.runs))
