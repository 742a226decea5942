"""The simulated cohort as manifest rows: one block of subject numbers for each role."""

from __future__ import annotations

from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.scan import CONTRASTS

# First subject number of each role. A role never outgrows its block, so splits stay disjoint, and a smaller
# cohort is a prefix of a larger one. Lesion seeds equal the subject number, so they are disjoint as well.
BLOCK = 10_000
FIRST_SUBJECT = {
    ("train", "healthy"): 0,
    ("val", "healthy"): 100_000,
    ("val", "tumour"): 110_000,
    ("val", "ms"): 120_000,
    ("test", "healthy"): 200_000,
    ("test", "tumour"): 210_000,
    ("test", "ms"): 220_000,
}


def simulated_rows(contrast: str, train: int, val_healthy: int, val_lesioned: int, test: int) -> list[ManifestRow]:
    """List the simulated cohort in one contrast; nothing is simulated until a row is loaded.

    Args:
        contrast: `"T1"`, `"T2"` or `"FLAIR"`.
        train: number of healthy training subjects.
        val_healthy: number of healthy validation subjects.
        val_lesioned: number of validation subjects for each of tumour and ms (different subjects).
        test: number of test subjects for each of healthy, tumour and ms (different subjects).

    Returns:
        Rows whose image is `simulated:<subject number>`; lesioned ones carry `insert:<kind>:<seed>`. Every
        subject number belongs to one split and one data set, every lesion seed to one subject.

    Raises:
        ValueError: for an unknown contrast, or a count below 0 or above the block of its role.

    Example:
        >>> simulated_rows("T2", 1, 0, 0, 0)[0].dataset
        'simulated-t2-healthy'
    """
    if contrast not in CONTRASTS:
        raise ValueError(f"unknown contrast {contrast!r}; use one of {', '.join(CONTRASTS)}")
    counts = {role: test for role in FIRST_SUBJECT}
    counts |= {("train", "healthy"): train, ("val", "healthy"): val_healthy}
    counts |= {("val", "tumour"): val_lesioned, ("val", "ms"): val_lesioned}
    rows = []
    for (split, kind), count in counts.items():
        if not 0 <= count <= BLOCK:
            raise ValueError(f"{count} {split} subjects ({kind}): the count must be between 0 and {BLOCK}")
        for number in range(FIRST_SUBJECT[split, kind], FIRST_SUBJECT[split, kind] + count):
            rows.append(
                ManifestRow(
                    subject=f"simulated-{number:06d}",
                    image=f"simulated:{number}",
                    brain_mask="",
                    lesion_mask="" if kind == "healthy" else f"insert:{kind}:{number}",
                    split=split,
                    dataset=f"simulated-{contrast.lower()}-{kind}",
                    contrast=contrast,
                )
            )
    return rows
