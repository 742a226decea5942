"""Tables and JSON texts with bytes changed at random: each is read, or refused with a line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fuzzing import for_an_hour, is_taken, mutated_text
from pddm_utils.core.shipped import weights_folder
from pddm_utils.data.manifest import COLUMNS, read_manifest
from pddm_utils.data.sources.bids import bids_rows
from pddm_utils.data.sources.decathlon import decathlon_rows
from pddm_utils.data.sources.folder import folder_rows
from pddm_utils.detection.model import detection_facts

PIECES = (
    *(b",", b";", b"\t", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"sep=;\n", b"\xe4", b"'"),
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b":",
        b"null",
        b"NaN",
        b"1e999",
        b"-1",
        b"true",
        b"[" * 3000,
        b'{"a":' * 3000,
        b"\\u0000",
    ),
    *(b"T2", b"train", b"image", b"../" * 20, b"~", b"~nobody/", b"sub-", b"n/a", b"x" * 5000, b"\xc3\xa4", b" "),
)


@pytest.fixture
def readers(tmp_path: Path) -> dict[Path, Callable[[], object]]:
    """Sound files, and what reads each of them."""
    scan = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4))
    for name in ("mine/a.nii", "study/sub-01/anat/sub-01_T2w.nii", "study/sub-01/anat/sub-01_lesion.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(scan, tmp_path / name)
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "decathlon" / name).mkdir(parents=True)
    four = nib.Nifti1Image(np.ones((3, 3, 3, 4), np.uint8), np.eye(4))
    nib.save(four, tmp_path / "decathlon" / "imagesTr" / "B.nii")
    nib.save(scan, tmp_path / "decathlon" / "labelsTr" / "B.nii")
    (tmp_path / "model").mkdir()
    shutil.copy(weights_folder("simulated-t2-pddpm") / "detection.json", tmp_path / "model")
    texts = {
        "scans.csv": ",".join(COLUMNS) + "\ns1,mine/a.nii,,,test,mine,T2\ns2,mine/a.nii,,,train,mine,T2\n",
        "mine/scans.csv": "image;contrast;split\r\na.nii;t2;val\r\n;;\r\n",
        "study/participants.tsv": "participant_id\tsplit\tgroup\nsub-01\ttrain\tpatient\n",
        "decathlon/dataset.json": json.dumps(
            {
                "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
                "training": [{"image": "./imagesTr/B.nii", "label": "./labelsTr/B.nii"}],
            }
        ),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {
        tmp_path / "scans.csv": partial(read_manifest, tmp_path / "scans.csv"),
        tmp_path / "mine" / "scans.csv": partial(folder_rows, tmp_path / "mine", "T2"),
        tmp_path / "study" / "participants.tsv": partial(bids_rows, tmp_path / "study", "T2"),
        tmp_path / "decathlon" / "dataset.json": partial(
            decathlon_rows, tmp_path / "decathlon", "T2", tmp_path / "derived"
        ),
        tmp_path / "model" / "detection.json": partial(detection_facts, tmp_path / "model"),
    }


def fuzz(readers: dict[Path, Callable[[], object]], root: Path, seed: int, count: int) -> int:
    """Change each file so many times; how often one was taken."""
    rng, taken = np.random.default_rng(seed), 0
    for path, read in readers.items():
        sound = path.read_bytes()
        for number in range(count):
            path.write_bytes(mutated_text(sound, rng, PIECES))
            taken += is_taken(read, (path.name, seed, number), str(root), lines=12)
        path.write_bytes(sound)
        assert is_taken(read, path.name, str(root))
    return taken


def test_changed_bytes_are_read_or_refused(readers, tmp_path) -> None:
    assert fuzz(readers, tmp_path, seed=0, count=150) > 30


@pytest.mark.slow
def test_changed_bytes_of_tables_for_an_hour(readers, tmp_path) -> None:
    for_an_hour(lambda seed: fuzz(readers, tmp_path, seed, count=150))
