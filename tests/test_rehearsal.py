"""The run on a GPU, rehearsed: from the bundle, on a bare Python without a network, on the processor.

What no GPU was at hand for is not tested here: kernels of CUDA, graphs, NCCL (`pytest -m gpu` tests those on one).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bare_node import bare_node
from pddm_utils.benchmark.gpu.bundle import make_bundle
from pddm_utils.benchmark.gpu.device_checks import CHECKS
from pddm_utils.benchmark.gpu.pairs import LARGEST_FILE_MIB
from pddm_utils.benchmark.tables import read_results
from pddm_utils.diffusion.pipeline import load_pipeline
from pddm_utils.training.loop import read_training

PROFILE = """extends: smoke
train_subjects: 1
train_steps: 12
noise: simplex
timesteps: [333, 818]
methods: [atlas, blur, dae, ddpm, pddpm]
"""
CALLS = 5  # a busy machine may need more than one; each goes on where the one before had no time left


class Node:
    """A bare machine with a bundle on it."""

    def __init__(self, folder: Path) -> None:
        (folder / "mine.yaml").write_text(PROFILE)
        make_bundle(folder / "bundle", folder / "runs", [str(folder / "mine.yaml")])
        self.folder, (self.python, self.environment) = folder, bare_node(folder)
        self.results = folder / "out" / "results.json"

    def command(self, minutes: float, *words: str) -> list[str]:
        """The one command, with the smallest network."""
        script = [str(self.python), str(self.folder / "bundle" / "run.py"), "--minutes", str(minutes)]
        return [*script, "--out", "out", "--work", "work", "--networks", "smoke", *words]

    def run(self, minutes: float) -> str:
        """What it prints."""
        options: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
        done = subprocess.run(self.command(minutes), cwd=self.folder, env=self.environment, **options)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def content(self) -> dict[str, Any]:
        """Results so far; nothing yet is an empty one."""
        return json.loads(self.results.read_text()) if self.results.is_file() else {}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def finished(node: Node) -> tuple[list[str], str]:
    """Checks that were done when the first call was killed, and what the calls after it printed."""
    process = subprocess.Popen(
        node.command(1), cwd=node.folder, env=node.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(node.content().get("checks", {})) < 3 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done, printed = list(node.content()["checks"]), ""
    for _ in range(CALLS):
        printed += node.run(5)
        if not missing(node.content()):
            break
    return done, printed


def missing(content: dict[str, Any]) -> set[str]:
    """Parts without a result."""
    models = {f"mine-smoke{large}-{method}" for large in ("", "-large") for method in ("ddpm", "pddpm")}
    scores = {f"scores, mine-smoke{large}" for large in ("", "-large")}
    wanted = {f"{name}, {precision}" for name, precision in CHECKS} | models | scores | {"mine-smoke-dae", "scores"}
    wanted |= {
        "smoke",
        "matrix product",
        "reconstruction, smoke",
        "training step, smoke",
        "layouts, smoke",
        "busy share, smoke",
    }
    return wanted - {name for stage in ("checks", "speed", "training", "compiled") for name in content.get(stage, {})}


def test_the_node_is_bare_and_has_no_network(node: Node) -> None:
    code = (
        "import importlib.util, urllib.request\n"
        "names = ('diffusers', 'nibabel', 'nilearn', 'SimpleITK', 'pooch', 'requests', 'anywidget', 'pddm_utils')\n"
        "assert not [name for name in names if importlib.util.find_spec(name)]\n"
        "import torch, accelerate\n"
        "urllib.request.urlopen('http://192.0.2.1/', timeout=5)\n"
    )
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    done = subprocess.run([node.python, "-c", code], cwd=node.folder, env=node.environment, **options)
    assert "this machine has no network" in done.stderr, done.stderr


def test_a_killed_run_goes_on_and_all_stages_end(node: Node, finished: tuple[list[str], str]) -> None:
    done, printed = finished
    assert missing(node.content()) == set(), printed[-3000:]
    assert len(done) >= 3 and not [name for name in done if f"checks: {name}\n" in printed], "what was done is kept"
    assert "failed" not in json.dumps(node.content())


def test_every_check_passed(node: Node, finished: object) -> None:
    checks = node.content()["checks"]
    assert len(checks) == len(CHECKS) and [name for name, check in checks.items() if not check["passed"]] == []


def test_speed_is_measured_against_the_naive_way_and_the_bare_passes(node: Node, finished: object) -> None:
    speed = node.content()["speed"]
    for name in ("training step, smoke", "reconstruction, smoke"):
        assert min(speed[name][key] for key in ("over_bare", "naive_over_ours", "share_of_matrix_product")) > 0
    assert node.content()["compiled"]["smoke"]["seconds_a_step"] > 0
    assert 0 < speed["busy share, smoke"]["busy_share"] <= 1
    assert speed["training step, smoke"]["share_of_peak"] is None, "a processor has no data sheet here"
    assert all(isinstance(seconds, float) for seconds in speed["layouts, smoke"].values())


def test_pairs_have_equal_compute_and_come_back_small(node: Node, finished: object, tmp_path: Path) -> None:
    training, out = node.content()["training"], node.folder / "out"
    for pair in ("mine-smoke", "mine-smoke-large"):
        learners = training[f"plan, {pair}"]["seconds_a_step"]
        steps = {training[f"plan, {pair}"]["steps"], *(training[f"{pair}-{name}"]["steps"] for name in learners)}
        assert len(steps) == 1
    assert min(training["plan, mine-smoke-large"]["whole_training_hours"].values()) > 0
    files = [path for path in out.iterdir() if path.is_file()]
    assert len(files) <= 8 and max(path.stat().st_size for path in files) <= LARGEST_FILE_MIB * 2**20
    for method in ("ddpm", "pddpm"):
        zipfile.ZipFile(out / f"mine-smoke-{method}.zip").extractall(tmp_path / method)
        assert load_pipeline(tmp_path / method).config.noise == "simplex"
        record = read_training(tmp_path / method)
        assert record["method"] == method and record["step"] == training[f"mine-smoke-{method}"]["steps"]


def test_pairs_are_scored_as_by_the_benchmark(node: Node, finished: object, tmp_path: Path) -> None:
    zipfile.ZipFile(node.folder / "out" / "tables.zip").extractall(tmp_path)
    training = node.content()["training"]
    for pair, methods in (
        ("mine-smoke", {"atlas", "blur", "dae", "ddpm", "pddpm"}),
        ("mine-smoke-large", {"ddpm", "pddpm"}),
    ):
        scores, record = read_results(tmp_path / pair)
        assert set(scores.dataset) == {"simulated-t2-tumour", "simulated-t2-healthy"} and set(scores.method) == methods
        assert record["settings"]["train_steps"] == training[f"plan, {pair}"]["steps"]
        assert str(node.folder) not in json.dumps(record), "a record names no place of a machine"
        tumour = scores[scores.dataset == "simulated-t2-tumour"].drop_duplicates(["method", "subject"])
        for method, mean in tumour.groupby("method").auprc.mean().items():
            told = training[f"scores, {pair}"][method]["simulated-t2-tumour"]["auprc"]
            assert told == pytest.approx(mean, abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_from_the_bundle(node: Node) -> None:
    """By `torchrun`, through gloo: the training stage only, one set of results."""
    launcher = [str(node.python), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = node.command(1)[1:]
    words[words.index("out")], words[words.index("work")] = "out-two", "work-two"
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    results = node.folder / "out-two" / "results.json"
    for _ in range(CALLS):
        done = subprocess.run([*launcher, *words], cwd=node.folder, env=node.environment, **options)
        assert done.returncode == 0, done.stderr[-4000:]
        content = json.loads(results.read_text())
        if "not done" not in done.stdout:
            break
    training = content["training"]
    assert set(content) == {"about", "device", "training"} and "failed" not in json.dumps(content)
    assert training["plan, mine-smoke"]["processes"] == 2
    assert training["mine-smoke-ddpm"]["steps"] == training["mine-smoke-pddpm"]["steps"]
