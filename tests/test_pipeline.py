"""The reconstruction pipeline: what it computes, what it skips, how it is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import BoxGrid
from pddm_utils.diffusion.network import make_network
from pddm_utils.diffusion.pipeline import PatchedReconstructionPipeline, load_pipeline, make_scheduler

SIZE = 32


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return make_network("smoke", SIZE).eval()


def make(network, box: int, stride: int | None = None, noise: str = "gaussian") -> PatchedReconstructionPipeline:
    return PatchedReconstructionPipeline(network, make_scheduler(), box, stride or box, noise, 499)


@pytest.fixture
def slices() -> torch.Tensor:
    return torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def by_hand(pipeline, slices: torch.Tensor, timestep: int, seed: int) -> torch.Tensor:
    """One box after another, straight from the paper's equations."""
    scheduler, clean = pipeline.scheduler, slices * 2 - 1
    grid = BoxGrid(SIZE, pipeline.config.box_size, pipeline.config.stride)
    noise = torch.randn(len(slices) * len(grid), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    abar = scheduler.alphas_cumprod[timestep]
    total, count = torch.zeros_like(clean), torch.zeros_like(clean)
    for s in range(len(slices)):
        for b, (top, left, height, width) in enumerate(grid.boxes.tolist()):
            box = (slice(None), slice(top, top + height), slice(left, left + width))
            noisy = abar.sqrt() * clean[s] + (1 - abar).sqrt() * noise[s * len(grid) + b]
            seen = clean[s].clone()
            seen[box] = noisy[box]
            prediction = pipeline.unet(seen[None], torch.tensor([timestep])).sample[0]
            total[s][box] += prediction[box]
            count[s][box] += 1
    return ((total / count).clamp(-1, 1) + 1) / 2


@pytest.mark.parametrize(("box", "stride"), [(16, 16), (16, 8), (12, 12), (SIZE, SIZE)])
def test_equals_the_method_written_out(network, slices, box: int, stride: int) -> None:
    pipeline = make(network, box, stride)
    output = pipeline(slices, timestep=700, seed=5)
    torch.testing.assert_close(output.reconstruction, by_hand(pipeline, slices, 700, 5), atol=2e-5, rtol=0)
    assert output.forward_passes == len(slices) * len(BoxGrid(SIZE, box, stride))


def test_result_depends_on_the_seed_and_not_on_the_chunks(network, slices) -> None:
    pipeline = make(network, 16)
    one = pipeline(slices, seed=1, max_boxes=1).reconstruction
    torch.testing.assert_close(one, pipeline(slices, seed=1, max_boxes=100).reconstruction, atol=2e-5, rtol=0)
    assert torch.equal(one, pipeline(slices, seed=1, max_boxes=1).reconstruction)
    assert not torch.equal(one, pipeline(slices, seed=2).reconstruction)


def test_boxes_without_brain_cost_nothing_and_stay_as_they_are(network, slices) -> None:
    brain = torch.zeros_like(slices, dtype=torch.bool)
    brain[0, :, :16, :16] = True  # one box of one slice
    output = make(network, 16)(slices, brain, seed=0)
    assert output.forward_passes == 1
    torch.testing.assert_close(output.reconstruction[1:], slices[1:])
    torch.testing.assert_close(output.reconstruction[0, :, 16:], slices[0, :, 16:])
    assert not torch.equal(output.reconstruction[0, :, :16, :16], slices[0, :, :16, :16])
    assert make(network, 16)(slices, torch.zeros_like(brain), seed=0).forward_passes == 0


def test_volume_goes_in_and_out_as_numpy(network, slices) -> None:
    image = slices[:, 0].numpy()
    result = make(network, 16).reconstruct_volume(image, np.ones(image.shape, bool), seed=3)
    assert result.shape == image.shape and result.dtype == np.float32
    assert 0 <= result.min() and result.max() <= 1


@pytest.mark.parametrize("noise", ["gaussian", "simplex"])
def test_saved_and_loaded_pipeline_gives_the_same_slices(network, slices, tmp_path, noise: str) -> None:
    pipeline = make(network, 16, noise=noise)
    pipeline.save_pretrained(tmp_path / "model")
    loaded = load_pipeline(tmp_path / "model", SIZE).to("cpu")
    assert loaded.config.noise == noise and loaded.config.box_size == 16
    assert {parameter.data_ptr() % 64 for parameter in loaded.unet.parameters()} == {0}, "as in fresh memory"
    assert torch.equal(loaded(slices, seed=0).reconstruction, pipeline(slices, seed=0).reconstruction)
    assert not [p for p in (tmp_path / "model").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_bad_slices_are_refused(network, slices) -> None:
    pipeline = make(network, 16)
    for bad, words in [
        (slices[:, 0], "pass float"),
        (slices * 3, r"outside \[0, 1\]"),
        (slices * float("nan"), r"outside \[0, 1\]"),
    ]:
        with pytest.raises(InputError, match=words):
            pipeline(bad)
    with pytest.raises(InputError, match="timestep 1000"):
        pipeline(slices, timestep=1000)
    with pytest.raises(InputError, match="brain_mask of shape"):
        pipeline(slices, torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool))
    with pytest.raises(InputError, match="'perlin' does not exist"):
        make(network, 16, noise="perlin")


def test_weights_of_another_network_are_refused(network, tmp_path) -> None:
    folder = tmp_path / "model"
    make(network, 16).save_pretrained(folder)
    with pytest.raises(InputError, match="not 1 of 96"):
        load_pipeline(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="do not belong together or a file is damaged"):
        load_pipeline(folder, SIZE)
    weights.write_bytes(good)
    save_file({key: value[..., :1].contiguous() for key, value in load_file(weights).items()}, weights)
    with pytest.raises(InputError, match="do not belong together or a file is damaged"):
        load_pipeline(folder, SIZE)
    with pytest.raises(InputError, match="no model_index.json"):
        load_pipeline(tmp_path / "nowhere")


def test_config_files_are_plain_json(network, tmp_path) -> None:
    make(network, 16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "sample"
