"""Trains a small pDDPM on the device at hand into the folder that is named; run alone, or by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from pddm_utils.core.settings import load_settings
from pddm_utils.methods.registry import method_class
from pddm_utils.training.device import DeviceSlices, DeviceTrainer

SMALL = {"train_steps": 6, "checkpoint_every": 2, "batch_size": 4, "box_size": 16, "stride": 16, "noise": "simplex"}


def device_trainer(folder: Path, steps: int = 6, **changes: Any) -> DeviceTrainer:
    """A training on slices of 32 pixels."""
    y, x = np.mgrid[:32, :32] / 32
    levels = np.stack([255 * (0.5 + 0.5 * np.sin(3 * x * k + 2 * y)) for k in range(1, 9)]).astype(np.uint8)
    source = DeviceSlices(levels, PartialState(cpu=not torch.cuda.is_available()).device)
    method = method_class("pddpm")(
        "pddpm", load_settings("smoke", SMALL | {"train_steps": steps} | changes), image_size=32
    )
    return DeviceTrainer(method, 0, source, source, folder)


if __name__ == "__main__":
    device_trainer(Path(sys.argv[1])).run()
