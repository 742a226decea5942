"""Groups of lesions by size and by brightness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import results_root
from pddm_utils.publish.lesion_groups import groups_block, lesion_groups


def test_each_lesion_is_in_one_group_of_size_and_one_of_brightness() -> None:
    rng = np.random.default_rng(0)
    names = [f"s{k}" for k in range(95)]
    subjects = pd.DataFrame({"lesion_ml": rng.random(95), "lesion_contrast": rng.normal(2, 2, 95)}, index=names)
    groups = lesion_groups(subjects)
    by_size = [group for name, group in groups.items() if name.startswith("size")]
    by_contrast = [group for name, group in groups.items() if not name.startswith("size")]
    for part in (by_size, by_contrast):
        assert (sum(group.astype(int) for group in part) == 1).all()
    assert subjects.lesion_ml[by_size[0]].max() < subjects.lesion_ml[by_size[1]].min()
    nearest, *others = by_contrast
    assert nearest.sum() == 10  # a tenth of 95, rounded
    size = subjects.lesion_contrast.abs()
    assert size[nearest].max() < size[~nearest].min()
    assert subjects.lesion_contrast[others[0]].max() < subjects.lesion_contrast[others[2]].min()


def test_a_run_without_the_contrast_of_lesions_is_refused() -> None:
    with pytest.raises(InputError, match="real-methods: scored before the contrast of lesions was"):
        groups_block(results_root() / "real-methods", "ixi-t1-tumour")
