"""Where scans come from: each source lists its scans as manifest rows."""

from __future__ import annotations

import os
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import user_path


def data_root() -> Path | None:
    """Folder of the real scans: the environment variable `PDDM_DATA`, or None when it is unset or empty."""
    value = os.environ.get("PDDM_DATA", "").strip()
    return user_path(value) if value else None


def require_data_root() -> Path:
    """Folder of the real scans.

    Raises:
        InputError: `PDDM_DATA` is unset or names no folder.
    """
    root = data_root()
    if root is None:
        raise InputError("PDDM_DATA: not set; set it to the folder that holds ixi-t1-2mm/, mslub-mni/ and soop-flair/")
    if not root.is_dir():
        raise InputError(
            f"PDDM_DATA: {root} is no folder; set it to the folder that holds ixi-t1-2mm/, mslub-mni/ and soop-flair/"
        )
    return root
