"""Boxes: coverage, sampling, noising inside a box, stitching."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pddm_utils.core.errors import InputError
from pddm_utils.diffusion.boxes import (
    BoxGrid,
    box_mask,
    boxes_with_content,
    coverage_probability,
    noise_boxes,
    random_boxes,
    random_grid_boxes,
    stitch,
)

quickly = settings(max_examples=60)


@st.composite
def grids(draw) -> BoxGrid:
    """Any grid on an image of up to 24 x 24 pixels, square or not."""
    image = tuple(draw(st.integers(1, 24)) for _ in range(2))
    box = tuple(draw(st.integers(1, n)) for n in image)
    stride = draw(st.none() | st.tuples(*(st.integers(1, n) for n in box)))
    return BoxGrid(image, box, stride)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_boxes_of(grid: BoxGrid, slices: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every box of every slice, and the slice it belongs to."""
    return grid.boxes.repeat(slices, 1), torch.arange(slices).repeat_interleave(len(grid))


def painted(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Masks made one box at a time, by slicing."""
    masks = torch.zeros(len(boxes), 1, *size, dtype=torch.bool)
    for mask, (top, left, height, width) in zip(masks, boxes.tolist(), strict=True):
        mask[:, top : top + height, left : left + width] = True
    return masks


def stitch_by_loop(predictions, boxes, slice_index, num_slices, weights, fill):
    """The weighted mean written as a loop over boxes."""
    size = tuple(predictions.shape[-2:])
    total = torch.zeros(num_slices, 1, *size, dtype=torch.float64)
    coverage = torch.zeros_like(total)
    for prediction, mask, k, weight in zip(predictions, painted(boxes, size), slice_index, weights, strict=True):
        total[k] += torch.where(mask, weight * prediction, 0)
        coverage[k] += mask * weight
    return torch.where(coverage > 0, total / coverage, fill).float()


class TestBoxGrid:
    @quickly
    @given(grids())
    def test_every_pixel_is_covered_and_no_box_lies_outside(self, grid):
        masks = painted(grid.boxes, grid.image_size)
        assert (grid.boxes[:, :2] >= 0).all()
        assert (grid.boxes[:, :2] + grid.boxes[:, 2:] <= torch.tensor(grid.image_size)).all()
        assert (grid.boxes[:, 2:] == torch.tensor(grid.box_size)).all()
        assert (grid.coverage >= 1).all()
        assert torch.equal(masks.sum(dim=(0, 1)), grid.coverage)
        assert len(grid) == len(grid.boxes) == len(grid.boxes.unique(dim=0))

    def test_paper_grid_is_two_by_two_without_overlap(self):
        grid = BoxGrid(96, 48)
        assert grid.boxes.tolist() == [[0, 0, 48, 48], [0, 48, 48, 48], [48, 0, 48, 48], [48, 48, 48, 48]]
        assert grid.boxes.dtype == torch.int64
        assert (grid.coverage == 1).all()

    def test_one_box_of_the_image_size_is_whole_image_diffusion(self):
        assert BoxGrid((80, 96), (80, 96)).boxes.tolist() == [[0, 0, 80, 96]]
        assert BoxGrid(96, 96, 16).boxes.tolist() == [[0, 0, 96, 96]]

    def test_last_box_of_an_axis_is_shifted_inward(self):
        assert BoxGrid(10, 4).boxes[:, 1].unique().tolist() == [0, 4, 6]
        assert BoxGrid(10, 4, 3).boxes[:, 1].unique().tolist() == [0, 3, 6]

    def test_sizes_are_normalised_so_that_equal_grids_are_equal(self):
        assert BoxGrid(96, 48) == BoxGrid((96, 96), [48, 48], 48)
        assert hash(BoxGrid(96, 48)) == hash(BoxGrid((96, 96), 48))
        assert BoxGrid(96, 48) != BoxGrid(96, 48, 24)

    def test_is_frozen(self):
        with pytest.raises(AttributeError):
            BoxGrid(96, 48).stride = 3

    @pytest.mark.parametrize(
        "sizes, message",
        [
            ((96, 97), "box_size"),
            ((96, (48, 100)), "box_size"),
            ((96, 0), "box_size"),
            ((96, -4), "box_size"),
            ((96, 48.0), "box_size"),
            ((96, True), "box_size"),
            ((96, "48"), "box_size"),
            (((96, 96, 50), 48), "image_size"),
            ((96, 48, 0), "stride"),
            ((96, 48, 49), "stride: .* leaves gaps"),
            ((96, (48, 24), 30), "stride: .* leaves gaps"),
        ],
    )
    def test_bad_sizes_are_refused_with_a_reason(self, sizes, message):
        with pytest.raises(InputError, match=message):
            BoxGrid(*sizes)


class TestRandomBoxes:
    @quickly
    @given(grids(), st.booleans(), st.integers(0, 1000))
    def test_boxes_lie_inside(self, grid, cut, seed):
        boxes = random_boxes(20, grid.image_size, grid.box_size, seeded(seed), cut=cut)
        assert boxes.shape == (20, 4) and boxes.dtype == torch.int64
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] >= 1).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor(grid.image_size)).all()
        if not cut:
            assert (boxes[:, 2:] == torch.tensor(grid.box_size)).all()

    @pytest.mark.parametrize("cut", [False, True])
    def test_coverage_is_the_stated_probability(self, cut):
        draws = 40_000
        counts = box_mask(random_boxes(draws, (7, 9), (3, 4), seeded(0), cut=cut), (7, 9)).sum(dim=(0, 1))
        expected = coverage_probability((7, 9), (3, 4), cut=cut)
        error = (expected * (1 - expected) / draws).sqrt()
        assert ((counts / draws - expected).abs() < 5 * error + 1e-12).all()

    @quickly
    @given(grids())
    def test_probability_of_whole_boxes_is_the_mean_mask_of_all_positions(self, grid):
        every = BoxGrid(grid.image_size, grid.box_size, 1)
        expected = painted(every.boxes, grid.image_size).double().mean(dim=(0, 1))
        torch.testing.assert_close(coverage_probability(grid.image_size, grid.box_size), expected)

    def test_cut_boxes_cover_every_pixel_equally_and_whole_boxes_do_not(self):
        assert len(coverage_probability(96, 48, cut=True).unique()) == 1
        whole = coverage_probability(96, 48)
        assert whole[0, 0] == pytest.approx(1 / 49**2)
        assert whole.max() == pytest.approx((48 / 49) ** 2)

    @pytest.mark.parametrize(("image", "box"), [(4, 2), (5, 2), (6, 3), (6, 4), (7, 3), (8, 2), (9, 3)])
    def test_equal_whole_boxes_cover_uniformly_only_on_a_dividing_grid(self, image, box):
        """The statement in the docstring: solve for start probabilities with equal coverage of all pixels."""
        starts = torch.arange(image - box + 1)
        covers = (torch.arange(image)[:, None] >= starts) & (torch.arange(image)[:, None] < starts + box)
        equal = (covers[1:].double() - covers[:-1].double()) if image > 1 else covers[:0].double()
        kernel = torch.linalg.svd(equal).Vh[torch.linalg.matrix_rank(equal) :]
        if image % box:
            assert len(kernel) == 0
        else:
            grid_cells = (starts % box == 0).double()
            assert len(kernel) == 1
            torch.testing.assert_close(kernel[0].abs(), grid_cells / grid_cells.norm())

    def test_grid_cells_are_drawn_equally_often(self):
        grid = BoxGrid(96, 48)
        drawn, counts = random_grid_boxes(8000, grid, seeded(0)).unique(dim=0, return_counts=True)
        assert torch.equal(drawn, grid.boxes)
        assert ((counts - 2000).abs() < 5 * (8000 * 0.25 * 0.75) ** 0.5).all()

    def test_one_seed_gives_one_draw(self):
        assert torch.equal(random_boxes(9, 96, 48, seeded(3)), random_boxes(9, 96, 48, seeded(3)))
        assert not torch.equal(random_boxes(9, 96, 48, seeded(3)), random_boxes(9, 96, 48, seeded(4)))

    def test_a_sample_with_its_own_generator_does_not_depend_on_its_batch(self):
        grid = BoxGrid(96, 32, 16)
        for draw in (
            lambda batch, g: random_boxes(batch, 96, 48, g),
            lambda batch, g: random_boxes(batch, 96, 48, g, cut=True),
            lambda batch, g: random_grid_boxes(batch, grid, g),
        ):
            together = draw(6, [seeded(i) for i in range(6)])
            alone = torch.cat([draw(1, [seeded(i)]) for i in range(6)])
            assert torch.equal(together, alone)

    def test_wrong_number_of_generators_is_refused(self):
        with pytest.raises(InputError, match="2 generators for 3 samples"):
            random_boxes(3, 96, 48, [seeded(0), seeded(1)])
        with pytest.raises(InputError, match="box_size"):
            random_boxes(3, 96, 100)


class TestBoxMask:
    @quickly
    @given(grids())
    def test_equals_slicing(self, grid):
        mask = box_mask(grid.boxes, grid.image_size)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, painted(grid.boxes, grid.image_size))

    @pytest.mark.parametrize(
        "rows",
        [
            [[-1, 0, 4, 4]],
            [[0, 0, 4, 0]],
            [[0, 5, 4, 4]],
            [[0, 0, 2, 2], [6, 0, 4, 4]],
            [[0.0, 0, 4, 4]],
            [[0, 0, 4]],
        ],
    )
    def test_rows_that_are_not_boxes_inside_are_refused(self, rows):
        with pytest.raises(InputError, match="boxes"):
            box_mask(torch.tensor(rows), 8)


class TestNoiseBoxes:
    @quickly
    @given(grids(), st.integers(0, 1000))
    def test_noise_inside_and_untouched_context_outside(self, grid, seed):
        boxes = random_grid_boxes(3, grid, seeded(seed))
        clean, noisy = torch.randn(2, 3, 1, *grid.image_size, generator=seeded(seed)).unbind()
        mixed = noise_boxes(clean, noisy, boxes)
        mask = painted(boxes, grid.image_size)
        assert torch.equal(mixed[mask], noisy[mask])
        assert torch.equal(mixed[~mask].view(torch.int32), clean[~mask].view(torch.int32))

    def test_one_slice_broadcasts_to_its_boxes(self):
        grid, clean = BoxGrid(8, 4), torch.rand(1, 1, 8, 8)
        mixed = noise_boxes(clean, torch.full((4, 1, 8, 8), 9.0), grid.boxes)
        assert mixed.shape == (4, 1, 8, 8)
        assert ((mixed == 9) == painted(grid.boxes, (8, 8))).all()
        assert torch.equal(mixed.amin(dim=0, keepdim=True), clean)

    def test_the_whole_image_box_gives_the_noisy_image(self):
        clean, noisy = torch.rand(2, 5, 1, 8, 12).unbind()
        assert torch.equal(noise_boxes(clean, noisy, BoxGrid((8, 12), (8, 12)).boxes.expand(5, 4)), noisy)

    def test_different_sizes_are_refused(self):
        with pytest.raises(InputError, match="do not match"):
            noise_boxes(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9), BoxGrid(8, 4).boxes)


class TestStitch:
    @quickly
    @given(grids(), st.integers(1, 3), st.integers(0, 1000))
    def test_boxes_cut_from_slices_give_the_slices_back(self, grid, slices, seed):
        volume = torch.randn(slices, 1, *grid.image_size, generator=seeded(seed))
        boxes, index = all_boxes_of(grid, slices)
        only_box = torch.where(painted(boxes, grid.image_size), volume[index], torch.nan)
        assert torch.equal(stitch(only_box, boxes, index, slices), volume)

    @quickly
    @given(grids(), st.floats(-3, 3, width=32), st.floats(0.125, 3))
    def test_mean_of_constants_is_the_constant(self, grid, value, weight):
        boxes, index = all_boxes_of(grid, 2)
        predictions = torch.full((len(boxes), 1, *grid.image_size), value)
        assert (stitch(predictions, boxes, index, 2) == value).all()
        weighted = stitch(predictions, boxes, index, 2, weights=torch.full((len(boxes),), weight))
        torch.testing.assert_close(weighted, torch.full_like(weighted, value))

    @quickly
    @given(grids(), st.integers(0, 1000))
    def test_equals_a_loop_over_boxes(self, grid, seed):
        generator = seeded(seed)
        boxes, index = all_boxes_of(grid, 2)
        kept = torch.rand(len(boxes), generator=generator) < 0.7
        order = torch.randperm(int(kept.sum()), generator=generator)
        boxes, index = boxes[kept][order], index[kept][order]
        predictions = torch.randn(len(boxes), 1, *grid.image_size, generator=generator)
        weights = torch.rand(len(boxes), generator=generator, dtype=torch.float64)
        expected = stitch_by_loop(predictions, boxes, index, 2, weights, -1.0)
        torch.testing.assert_close(stitch(predictions, boxes, index, 2, weights, fill=-1.0), expected)

    def test_overlaps_are_a_mean_of_all_boxes_not_of_pairs(self):
        grid = BoxGrid((1, 6), (1, 4), 1)
        predictions = torch.tensor([3.0, 6.0, 12.0])[:, None, None, None].expand(3, 1, 1, 6)
        result = stitch(predictions, grid.boxes, torch.zeros(3, dtype=torch.int64), 1)
        assert result.flatten().tolist() == [3.0, 4.5, 7.0, 7.0, 9.0, 12.0]

    def test_weights_may_differ_by_pixel(self):
        boxes = torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2]])
        predictions = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 1, 2)
        weights = torch.tensor([[1.0, 3.0], [1.0, 1.0]])[:, None, None]
        result = stitch(predictions, boxes, torch.zeros(2, dtype=torch.int64), 1, weights=weights)
        assert result.flatten().tolist() == [0.5, 0.25]

    def test_pixels_without_a_box_take_the_fill(self):
        boxes, index = torch.tensor([[0, 0, 2, 2]]), torch.tensor([1])
        background = torch.arange(32.0).view(2, 1, 4, 4)
        result = stitch(torch.full((1, 1, 4, 4), 99.0), boxes, index, 2, fill=background)
        assert (result[1, 0, :2, :2] == 99).all()
        result[1, 0, :2, :2] = background[1, 0, :2, :2]
        assert torch.equal(result, background)

    def test_no_boxes_at_all_gives_the_fill(self):
        nothing = torch.zeros(0, 4, dtype=torch.int64)
        result = stitch(torch.zeros(0, 1, 4, 4), nothing, torch.zeros(0, dtype=torch.int64), 3, fill=-1.0)
        assert result.shape == (3, 1, 4, 4) and (result == -1).all()

    def test_many_predictions_give_the_same_as_few(self):
        grid = BoxGrid(6, 2, 1)
        volume = torch.rand(30, 1, 6, 6)
        boxes, index = all_boxes_of(grid, 30)
        assert len(boxes) == 750
        assert torch.equal(stitch(volume[index], boxes, index, 30), volume)

    def test_half_precision_predictions_are_averaged_in_full_precision(self):
        grid = BoxGrid(8, 4, 2)
        predictions = torch.randn(len(grid), 1, 8, 8).bfloat16()
        index = torch.zeros(len(grid), dtype=torch.int64)
        result = stitch(predictions, grid.boxes, index, 1)
        assert result.dtype == torch.float32
        assert torch.equal(result, stitch(predictions.float(), grid.boxes, index, 1))

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"predictions": torch.zeros(4, 8, 8)}, "predictions"),
            ({"boxes": BoxGrid(8, 8).boxes}, "one box and one slice number"),
            ({"boxes": BoxGrid(16, 8).boxes}, "not inside"),
            ({"slice_index": torch.tensor([0, 0, 0])}, "one box and one slice number"),
            ({"slice_index": torch.tensor([0, 0, 0, 2])}, "slice_index"),
            ({"slice_index": torch.tensor([0, 0, 0, -1])}, "slice_index"),
            ({"weights": torch.tensor([1.0, 1.0, 1.0, -1.0])}, "weights"),
            ({"weights": torch.tensor([1.0, 1.0, 1.0, torch.nan])}, "weights"),
            ({"weights": torch.ones(3)}, "weights"),
            ({"weights": torch.ones(4, 1, 8, 9)}, "weights"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, change, message):
        arguments = {
            "predictions": torch.zeros(4, 1, 8, 8),
            "boxes": BoxGrid(8, 4).boxes,
            "slice_index": torch.tensor([0, 0, 1, 1]),
            "num_slices": 2,
        }
        with pytest.raises(InputError, match=message):
            stitch(**(arguments | change))


class TestBoxesWithContent:
    @quickly
    @given(grids(), st.integers(0, 1000), st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    def test_equals_looking_into_every_box(self, grid, seed, density):
        mask = torch.rand(3, 1, *grid.image_size, generator=seeded(seed)) < density
        expected = (painted(grid.boxes, grid.image_size)[None, :, 0] & mask).any(dim=(2, 3))
        assert torch.equal(boxes_with_content(grid.boxes, mask), expected)

    def test_skipping_empty_boxes_loses_no_brain(self):
        grid = BoxGrid((20, 26), 8, 5)
        mask = torch.zeros(4, 1, 20, 26, dtype=torch.bool)
        mask[1, 0, 3, 25] = mask[2, 0, 10:18, 2:9] = mask[3] = True
        slices, chosen = boxes_with_content(grid.boxes, mask).nonzero(as_tuple=True)
        assert 0 not in slices
        ones = torch.ones(len(slices), 1, 20, 26)
        assert (stitch(ones, grid.boxes[chosen], slices, 4)[mask] == 1).all()

    def test_another_shape_is_refused(self):
        with pytest.raises(InputError, match="mask"):
            boxes_with_content(BoxGrid(8, 4).boxes, torch.zeros(3, 8, 8))
