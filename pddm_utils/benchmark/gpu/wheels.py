"""Wheels for a machine without a package index, made of what is installed here: nothing is downloaded."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, metadata, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import whole_file

NEEDED = ("diffusers", "nibabel")  # what a bare machine with torch and accelerate lacks
PYTHON = "3.12"  # of that machine; markers of requirements are read for it and for the Python at hand
_PACKAGE = Path(__file__).parents[2]
_LEFT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # of an installation, not of a wheel


def pure_requirements(names: Iterable[str] = NEEDED) -> dict[str, str]:
    """Distributions of pure Python that these need, themselves included, and the versions that are asked of each.

    What is compiled, such as numpy, is the other machine's own, and so is what that needs.

    Raises:
        InputError: one of them is not installed here.
    """
    asked: dict[str, set[str]] = {name: set() for name in names}
    waiting = list(asked)
    while waiting:
        found = _installed(waiting.pop())
        for line in found.requires or ():
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if not _applies(requirement) or not _is_pure(name):
                continue
            if name not in asked:
                waiting.append(name)
            asked.setdefault(name, set()).update(map(str, requirement.specifier))
    return {name: ",".join(sorted(specifiers)) for name, specifiers in sorted(asked.items())}


def _applies(requirement: Requirement) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": "", **other}) for other in ({}, {"python_version": PYTHON}))


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise InputError(f"{name} is not installed here; install it to make a bundle: pip install {name}") from None


def _is_pure(name: str) -> bool:
    """Whether an installed distribution has no compiled part; one that is not installed has no part here."""
    try:
        return "Root-Is-Purelib: true" in (distribution(name).read_text("WHEEL") or "")
    except PackageNotFoundError:
        return False


def repack(name: str, folder: Path) -> Path:
    """The wheel of an installed distribution of pure Python, without its tests.

    Returns:
        Its path in `folder`.
    """
    found = _installed(name)
    files = {
        str(file): Path(str(file.locate())).read_bytes()
        for file in found.files or ()
        if file.parts[0] != ".."
        and "tests" not in file.parts
        and file.suffix != ".pyc"
        and not (file.parts[0].endswith(".dist-info") and file.name in _LEFT)
    }
    return _write(found.metadata["Name"], found.version, files, folder)


def own_wheel(folder: Path) -> Path:
    """The wheel of this package as it lies here, without the models and results that it ships."""
    files = {
        path.relative_to(_PACKAGE.parent).as_posix(): path.read_bytes()
        for path in sorted(_PACKAGE.rglob("*"))
        if path.is_file() and not {"__pycache__", "_weights", "_results"} & set(path.parts)
    }
    number = version("pddm-utils")
    place = f"pddm_utils-{number}.dist-info"
    files[f"{place}/METADATA"] = str(metadata("pddm-utils")).encode()
    files[f"{place}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: pddm-utils\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return _write("pddm_utils", number, files, folder)


def _write(name: str, number: str, files: Mapping[str, bytes], folder: Path) -> Path:
    """A wheel of these files, with a list of them that pip accepts."""
    stem = f"{name.replace('-', '_').replace('.', '_')}-{number}"
    place = next(path.split("/")[0] for path in files if ".dist-info/" in path)
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}")
    record = "\n".join([*lines, f"{place}/RECORD,,", ""])
    wheel = folder / f"{stem}-py3-none-any.whl"
    with whole_file(wheel) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in (*files.items(), (f"{place}/RECORD", record.encode())):
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED, 9)
    return wheel
