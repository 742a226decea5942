"""Shipped models for a browser: the network as ONNX with half-precision weights, and the facts that the page needs."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pddm_utils.core.errors import InputError
from pddm_utils.core.shipped import stored_parameters, weights_root
from pddm_utils.data.scan import SLICE_SIZE
from pddm_utils.diffusion.noise import NOISES
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.evaluation.thresholds import DEFAULT_RULE
from pddm_utils.methods.base import open_recorded
from pddm_utils.methods.dae import DAE
from pddm_utils.methods.registry import METHODS
from pddm_utils.training.loop import read_training

_OPSET = 17
_FIELDS = 24  # noise fields that travel where a browser cannot draw the model's noise itself
FIELD_STEP = 32  # levels a unit of noise
BETTER = "-simplex"  # ends the name of a model that takes another's place in the page


@dataclass(frozen=True)
class WebModel:
    """One shipped model as the page takes it.

    Attributes:
        folder: where it is shipped.
        facts: JSON-ready: `name`, `label`, `colour`, `contrast`, `kind` (`diffusion` or `autoencoder`), `threshold`
            of the residual map, where its training data came from; of a diffusion model `box`, `stride`, `timestep`,
            `noise` and `anywhere` (whether its boxes were trained at any place) too.
        network: from `x`, float32 `(B, 1, 96, 96)` in [-1, 1], and `t`, float32 `(B,)`, to `y` like `x`, as ONNX.
        alpha_bars: share of the signal's variance left at each noise level; empty for an autoencoder.
        fields: int8 `(n, 96, 96)` in steps of 1/32, noise that the browser cannot draw itself; None for Gaussian.
    """

    folder: Path
    facts: dict[str, Any]
    network: bytes
    alpha_bars: list[float]
    fields: np.ndarray | None


class _Prediction(nn.Module):
    """The network's tensor alone, for an exporter that knows no other outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.network(x, t).sample


def to_onnx(network: nn.Module, image_size: int = SLICE_SIZE) -> bytes:
    """A network that takes slices and timesteps as an ONNX file with half-precision weights.

    Shipped weights are half-precision, so nothing is lost; all arithmetic is float32.

    Args:
        network: called as `network(x, t).sample`, with x `(B, 1, H, W)` and t float32 `(B,)`.
        image_size: H and W, pixels.

    Raises:
        InputError: the package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("the package onnx is not installed; install it with: pip install 'pddm-utils[book]'") from None
    example = (torch.zeros(1, 1, image_size, image_size), torch.zeros(1))
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing branches on sizes, which are fixed here
        torch.onnx.export(
            _Prediction(network).eval(),
            example,
            stream,  # type: ignore[arg-type]  # which this exporter takes too
            dynamo=False,  # the other exporter needs two more packages
            opset_version=_OPSET,
            input_names=["x", "t"],
            output_names=["y"],
            dynamic_axes={name: {0: "batch"} for name in ("x", "t", "y")},
        )
    model = onnx.load_from_string(stream.getvalue())
    _halve_weights(model.graph)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _halve_weights(graph: Any) -> None:
    """Store float32 tensors as float16 where that loses nothing; the graph casts them back, once, when it is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        name, values = tensor.name, numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and np.array_equal(half := values.astype(np.float16), values):
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def web_models(root: Path | None = None) -> Iterator[WebModel]:
    """Every shipped model that a page can run: diffusion pipelines, and the DAE; patched ones first.

    Of two with one name, one of them with `-simplex` behind it, that one.

    Args:
        root: folder of the models; the shipped ones when left out.
    """
    folders = [path.parent for path in sorted((root or weights_root()).glob("*/training.json"))]
    folders = [path for path in folders if path.with_name(path.name + BETTER) not in folders]
    for folder in sorted(folders, key=lambda path: not METHODS[read_training(path)["method"]].patched):
        if (folder / "model_index.json").is_file():
            yield _diffusion_model(folder)
        elif METHODS[read_training(folder)["method"]].made_by == "dae.DAE":
            yield _autoencoder(folder)


def _diffusion_model(folder: Path) -> WebModel:
    pipeline = load_pipeline(folder)
    facts = _shared_facts(folder) | {
        "kind": "diffusion",
        "box": pipeline.config.box_size,
        "stride": pipeline.config.stride,
        "timestep": pipeline.config.timestep,
        "noise": pipeline.config.noise,
    }
    facts["anywhere"] = facts["method"] == "pddpm-random"
    alpha_bars = [float(f"{value:.8g}") for value in pipeline.scheduler.alphas_cumprod.tolist()]
    return WebModel(folder, facts, to_onnx(pipeline.unet.cpu()), alpha_bars, _noise_fields(pipeline.config.noise))


def _autoencoder(folder: Path) -> WebModel:
    method = open_recorded(folder)
    assert isinstance(method, DAE) and method.network is not None
    facts = _shared_facts(folder) | {"kind": "autoencoder"}
    return WebModel(folder, facts, to_onnx(method.network.cpu()), [], None)


def _shared_facts(folder: Path) -> dict[str, Any]:
    method = METHODS[(name := read_training(folder)["method"])]
    detection = json.loads((folder / "detection.json").read_text(encoding="utf-8"))
    return {
        "name": folder.name,
        "method": name,
        "label": method.label,
        "colour": method.colour,
        "contrast": detection["contrast"],
        "cohort": detection["cohort"],
        "parameters": stored_parameters(folder),
        "threshold": detection["thresholds"][DEFAULT_RULE],
    }


def _noise_fields(kind: str) -> np.ndarray | None:
    if kind == "gaussian":
        return None
    fields = NOISES[kind]((_FIELDS, 1, SLICE_SIZE, SLICE_SIZE), torch.Generator().manual_seed(0))[:, 0].numpy()
    return (fields * FIELD_STEP).round().clip(-127, 127).astype(np.int8)
