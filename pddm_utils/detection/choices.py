"""What can be asked of `detect`: the models by contrast, and the kinds of anomaly map. Imports next to nothing."""

from __future__ import annotations

from pddm_utils.data.scan import INTENSITY_UNIT

DEFAULT_MODELS = {"T2": "simulated-t2-pddpm-simplex", "T1": "ixi-t1-pddpm", "FLAIR": "soop-flair-pddpm"}
MAP_UNITS = {"residual": INTENSITY_UNIT, "z-score": "healthy standard deviations"}
