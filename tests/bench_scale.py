"""Is memory bounded by settings and not by the number of subjects? `make bench-scale`.

Prepares 10, 100 and 1,000 simulated subjects and trains on them, then prepares and scores as many test scans, each
in a process of its own, and prints its peak resident memory. Over 2,000 scans are prepared: it takes its time.
Other numbers of subjects may be given: `python tests/bench_scale.py 10 100`.
"""

from __future__ import annotations

import json
import sys

from bench import TRAINING, peak_memory

SUBJECTS = (10, 100, 1000)
LIMIT = 1.10  # of the peak with the fewest subjects
_WORK = {
    "prepare and train": TRAINING,
    "prepare and score": """
from pddm_utils.benchmark.run import Benchmark, run_benchmark
overrides = dict(train_subjects=1, val_subjects=1, val_lesion_subjects=1, test_subjects={subjects} // 2, seeds=[0],
                 lesion_kinds=["tumour"], methods=["intensity"])
run_benchmark(Benchmark(load_settings("smoke", overrides), False, runs, runs / "results"))
""",
}


def main() -> int:
    """Print the peaks; exit code 1 when one grows with the number of subjects."""
    subjects = tuple(map(int, sys.argv[1:])) or SUBJECTS
    peaks: dict[str, list[int]] = {}
    missed = 0
    for what, code in _WORK.items():
        values = peaks[what] = []
        for count in subjects:
            values.append(peak_memory(code.format(subjects=count)))
        ratio = max(values) / values[0]
        missed += ratio > LIMIT
        listed = ", ".join(f"{value} MB with {count}" for value, count in zip(values, subjects, strict=True))
        print(f"{what}: {listed}; ratio {ratio:.3f}, at most {LIMIT}  {'ok' if ratio <= LIMIT else 'MISSED'}")
    print(json.dumps(peaks))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
