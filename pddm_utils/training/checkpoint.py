"""Training state as one safetensors file: tensors in the body, counters as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file

_ADAM = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    path: Path,
    network: torch.nn.Module,
    averaged: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write weights, averaged weights and Adam's moments in one atomic step.

    Args:
        path: `.safetensors` file; replaced when it exists.
        network: the unwrapped network.
        averaged: EMA of the parameters by name.
        optimizer: Adam over `network.parameters()` in order, in one group or several.
        state: JSON-ready counters, such as the step and the loss history.

    Raises:
        InputError: it cannot be written; an earlier checkpoint stays.
    """
    names = [name for name, _ in network.named_parameters()]
    moments = optimizer.state_dict()["state"]
    tensors = {f"network.{name}": value.detach() for name, value in network.named_parameters()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.items()}
    tensors |= {
        f"adam.{key}.{names[index]}": torch.as_tensor(values[key]) for index, values in moments.items() for key in _ADAM
    }
    tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, {"state": json.dumps(dict(state))})
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from None


def load_checkpoint(
    path: Path, network: torch.nn.Module, averaged: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, in place, and return its counters.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            # Adam keeps these very tensors: in memory of their own, as those it makes, and not in the file's.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(tensors[f"network.{name}"])
                averaged[name].copy_(tensors[f"averaged.{name}"])
        moments = {
            index: {key: tensors[f"adam.{key}.{name}"] for key in _ADAM}
            for index, (name, _) in enumerate(network.named_parameters())
            if f"adam.step.{name}" in tensors  # a part that was never updated has none
        }
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path}: damaged, or a checkpoint of another network ({error}); delete it to start this training anew"
        ) from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return state
