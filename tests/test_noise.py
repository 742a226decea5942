"""Gaussian and simplex noise, and the noise levels of the schedules."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.noise import _EDGES, NOISES, _corners, gaussian_noise, radial_spectrum, simplex_noise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(fields: torch.Tensor, down: int, right: int) -> float:
    """Autocorrelation of mean-zero, unit-variance fields at one lag, over all fields and pixels."""
    height, width = fields.shape[-2:]
    here = fields[..., max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    there = fields[..., max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
    return (here * there).mean().item()


@pytest.fixture(scope="module")
def many() -> torch.Tensor:
    return simplex_noise((1500, 1, 64, 64), seeded(0))


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
class TestAnyNoise:
    def test_one_seed_gives_one_draw(self, noise):
        first = noise((3, 1, 16, 20), seeded(5))
        assert first.shape == (3, 1, 16, 20) and first.dtype == torch.float32
        assert torch.equal(first, noise((3, 1, 16, 20), seeded(5)))
        assert not torch.equal(first, noise((3, 1, 16, 20), seeded(6)))

    def test_a_sample_with_its_own_generator_does_not_depend_on_its_batch(self, noise):
        together = noise((70, 1, 16, 20), [seeded(i) for i in range(70)])
        for i in (0, 1, 33, 69):
            assert torch.equal(together[i : i + 1], noise((1, 1, 16, 20), [seeded(i)]))
        pair = noise((2, 1, 16, 20), [seeded(69), seeded(3)])
        assert torch.equal(pair, together[[69, 3]])

    def test_wrong_number_of_generators_is_refused(self, noise):
        with pytest.raises(InputError, match="2 generators for 3 samples"):
            noise((3, 1, 8, 8), [seeded(0), seeded(1)])

    def test_the_global_generator_is_used_without_one(self, noise):
        torch.manual_seed(7)
        first = noise((2, 1, 8, 8))
        torch.manual_seed(7)
        assert torch.equal(first, noise((2, 1, 8, 8)))
        assert not torch.equal(first, noise((2, 1, 8, 8)))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_the_asked_type_is_a_rounding_of_the_same_draw(self, noise, dtype):
        result = noise((2, 1, 8, 8), seeded(0), dtype=dtype)
        assert torch.equal(result, noise((2, 1, 8, 8), seeded(0)).to(dtype))

    def test_may_be_called_first_in_inference_mode_and_then_in_training(self, noise):
        with torch.inference_mode():
            noise((1, 1, 11, 13), seeded(0))
        scale = torch.ones((), requires_grad=True)
        (noise((1, 1, 11, 13), seeded(0)) * scale).sum().backward()
        assert scale.grad is not None

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_a_gpu_with_a_cpu_generator_the_fields_are_the_same(self, noise):
        on_gpu = noise((5, 1, 16, 20), seeded(0), device="cuda")
        assert on_gpu.device.type == "cuda"
        torch.testing.assert_close(on_gpu.cpu(), noise((5, 1, 16, 20), seeded(0)))
        assert noise((5, 1, 16, 20), torch.Generator("cuda").manual_seed(0), device="cuda").std() > 0.5


def test_gaussian_noise_is_what_diffusers_draws():
    shape = (3, 1, 8, 9)
    assert torch.equal(gaussian_noise(shape, seeded(1)), randn_tensor(shape, generator=seeded(1)))
    generators = [[seeded(i) for i in range(3)] for _ in range(2)]
    assert torch.equal(gaussian_noise(shape, generators[0]), randn_tensor(shape, generator=generators[1]))


class TestSimplexStatistics:
    def test_mean_zero_and_unit_variance(self, many):
        assert abs(many.mean().item()) < 0.03
        assert many.square().mean().item() == pytest.approx(1, abs=0.03)

    def test_every_pixel_varies_alike_the_first_too(self, many):
        variance = many.square().mean(dim=(0, 1))  # standard error 0.036
        assert (variance - 1).abs().max() < 0.2
        assert variance[0, 0].item() == pytest.approx(1, abs=0.15)

    @pytest.mark.parametrize("wavelength", [2.0, 3.3, 16.0])
    def test_one_octave_has_unit_variance_at_every_pixel(self, wavelength):
        fields = simplex_noise((6000, 1, 9, 9), seeded(1), octaves=1, wavelength=wavelength)
        variance = fields.square().mean(dim=(0, 1))
        assert (variance - 1).abs().max() < 0.08

    @pytest.mark.parametrize(("octaves", "persistence"), [(1, 0.8), (3, 0.5), (6, 0.8), (4, 1.5)])
    def test_unit_variance_for_any_octaves(self, octaves, persistence):
        fields = simplex_noise((400, 1, 48, 40), seeded(2), octaves=octaves, persistence=persistence, wavelength=16)
        assert fields.square().mean().item() == pytest.approx(1, abs=0.03)

    @pytest.mark.parametrize("power", [1, 2])
    def test_samples_are_independent(self, power):
        """The variance of a mean over n independent fields is 1 / n: of the values, and of their squares."""
        values = simplex_noise((1000, 1, 48, 48), seeded(3), octaves=1, wavelength=8) ** power
        values -= values.mean()
        ratio = len(values) * values.mean(dim=0).square().mean() / values.square().mean()
        assert ratio.item() == pytest.approx(1, abs=0.3)

    def test_neighbours_in_a_batch_are_uncorrelated(self, many):
        assert (many[:-1] * many[1:]).mean().abs().item() < 0.03
        assert (many[:-1, 0, 0, 0] * many[1:, 0, 0, 0]).mean().abs().item() < 0.1

    def test_values_are_symmetric_and_bounded(self, many):
        assert (many**3).mean().abs().item() < 0.1
        assert many.abs().max() < 6


class TestSimplexShape:
    @pytest.mark.parametrize("wavelength", [8, 16, 32])
    def test_an_octave_has_its_wavelength(self, wavelength):
        """Autocorrelation depends on lag / wavelength only, dips near a half, and ends at sqrt(2)."""
        fields = simplex_noise((500, 1, 64, 64), seeded(3), octaves=1, wavelength=wavelength)
        reference = simplex_noise((500, 1, 128, 128), seeded(4), octaves=1, wavelength=64)
        for part in (1 / 8, 1 / 4, 1 / 2, 3 / 4):
            lag = int(part * wavelength)
            expected = correlation(reference, 0, int(part * 64))
            assert correlation(fields, 0, lag) == pytest.approx(expected, abs=0.04)
        assert correlation(fields, 0, wavelength // 8) > 0.7
        assert correlation(fields, 0, wavelength // 2) < -0.1
        assert abs(correlation(fields, 0, math.ceil(1.45 * wavelength))) < 0.03

    def test_each_octave_is_half_the_wavelength_and_persistence_times_the_amplitude(self):
        """Octaves are independent, so their correlations add with the squared amplitudes."""
        fields = simplex_noise((800, 1, 48, 48), seeded(5), octaves=2, persistence=0.5, wavelength=16)
        coarse = simplex_noise((800, 1, 48, 48), seeded(6), octaves=1, wavelength=16)
        fine = simplex_noise((800, 1, 48, 48), seeded(7), octaves=1, wavelength=8)
        for lag in (1, 2, 4, 6, 8):
            expected = (correlation(coarse, lag, 0) + 0.25 * correlation(fine, lag, 0)) / 1.25
            assert correlation(fields, lag, 0) == pytest.approx(expected, abs=0.04)

    def test_all_directions_are_alike(self, many):
        straight = [correlation(many, 0, 7), correlation(many, 7, 0)]
        slanted = [correlation(many, 5, 5), correlation(many, 5, -5)]
        assert max(straight + slanted) - min(straight + slanted) < 0.05

    def test_is_smooth_also_across_the_triangles(self):
        fields = simplex_noise((50, 1, 96, 96), seeded(8), octaves=1, wavelength=64)
        slope = fields.diff(dim=-1).abs().max()
        bend = fields.diff(n=2, dim=-1).abs().max()
        assert 0.05 < slope < 0.25
        assert bend < 0.03

    def test_low_frequencies_dominate_unlike_in_gaussian_noise(self, many):
        frequency = torch.fft.fftfreq(64)
        low = (frequency[:, None] ** 2 + frequency**2).sqrt() < 1 / 12

        def share(fields):
            power = torch.fft.fft2(fields).abs().square().mean(dim=(0, 1))
            return (power[low].sum() / power.sum()).item()

        assert share(many) > 0.6
        assert share(gaussian_noise((200, 1, 64, 64), seeded(0))) == pytest.approx(low.float().mean().item(), rel=0.1)

    def test_three_corners_are_the_whole_sum_over_the_lattice(self):
        """Against the definition: all nodes of the lattice within reach, each with its falloff."""
        points = torch.rand(200, 2, generator=seeded(9), dtype=torch.float64) * 7
        corners, weights = _corners(points, 0)
        near = torch.cartesian_prod(torch.arange(-12, 20), torch.arange(-12, 20))
        distance = points[:, None] - near.double() @ _EDGES
        falloff = (0.5 - distance.square().sum(dim=2)).clamp(min=0) ** 4
        expected = distance * falloff[:, :, None]
        found = torch.zeros_like(expected)
        number = (corners[..., 0] + 12) * 32 + corners[..., 1] + 12
        found.scatter_(1, number[:, :, None].expand(-1, -1, 2), weights)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 17), (96, 96)])
    def test_any_image_size(self, size):
        fields = simplex_noise((2, 1, *size), seeded(0))
        assert fields.shape == (2, 1, *size)
        assert torch.isfinite(fields).all() and not torch.equal(fields[0], fields[1])


class TestSimplexErrors:
    @pytest.mark.parametrize("shape", [(96, 96), (2, 3, 8, 8), (2, 1, 8), (0, 1, 8, 8), (2, 1, 0, 8)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(InputError, match=r"pass \(B, 1, H, W\)"):
            simplex_noise(shape)

    @pytest.mark.parametrize(
        "setting",
        [
            {"octaves": 0},
            {"persistence": 0.0},
            {"persistence": math.inf},
            {"wavelength": -1.0},
            {"wavelength": math.nan},
        ],
    )
    def test_bad_settings_are_refused(self, setting):
        with pytest.raises(InputError, match=next(iter(setting))):
            simplex_noise((1, 1, 8, 8), **setting)


class TestScheduleOracle:
    """The authors' noise levels, compared by abar and not by index."""

    @pytest.mark.parametrize(("index", "abar"), [(249, 0.847), (399, 0.6475), (499, 0.4938), (749, 0.1443)])
    def test_cosine_schedule_has_the_published_levels(self, index, abar):
        schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
        assert schedule.alphas_cumprod[index].item() == pytest.approx(abar, abs=1e-3)

    def test_linear_index_500_is_cosine_index_818(self):
        linear = DDPMScheduler(num_train_timesteps=1000).alphas_cumprod
        cosine = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
        assert linear[500].item() == pytest.approx(0.078, abs=1e-3)
        assert (cosine - linear[500]).abs().argmin().item() == 818

    def test_unit_variance_noise_keeps_the_variance_of_a_unit_variance_image(self):
        schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
        image, noise = gaussian_noise((300, 1, 32, 32), seeded(0)), simplex_noise((300, 1, 32, 32), seeded(1))
        noisy = schedule.add_noise(image, noise, torch.full((300,), 499))
        assert noisy.var().item() == pytest.approx(1, abs=0.04)


def test_white_noise_has_a_flat_spectrum_of_its_variance():
    frequency, power = radial_spectrum(2 * torch.randn(64, 32, 32, generator=seeded(0)))
    torch.testing.assert_close(frequency, torch.arange(1, 17) / 32)
    torch.testing.assert_close(power, torch.full((16,), 4.0, dtype=torch.float64), rtol=0.15, atol=0)


def test_a_wave_has_its_power_at_its_frequency():
    wave = torch.cos(2 * math.pi * 5 * torch.arange(32) / 32).expand(1, 32, 32)
    frequency, power = radial_spectrum(wave)
    assert frequency[power.argmax()] == 5 / 32
    assert power[power.argmax()] > 1e6 * power.sum().sub(power.max())


def test_simplex_noise_has_more_power_in_long_waves(many: torch.Tensor):
    _, power = radial_spectrum(many[:200, 0])
    assert power[1] > 10 * power[15] > 0


def test_a_spectrum_needs_square_images():
    with pytest.raises(InputError, match=r"pass \(B, H, H\)"):
        radial_spectrum(torch.zeros(2, 1, 8, 8))
