"""Sphinx extension: a figure on a transparent ground has a twin in light colours, which the dark theme shows instead.

A drawing `NAME.svg` has its variants beside it: `NAME-dark.svg`, and for narrow screens `NAME-narrow.svg` and
`NAME-narrow-dark.svg`.

Figures of notebooks have that ground where `PDDM_BOOK` is set, and one colour of ink, see `pddm_utils.show.style`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from docutils import nodes
from matplotlib.colors import to_rgb
from PIL import Image
from sphinx.application import Sphinx

from pddm_utils.methods.registry import METHOD_COLOURS
from pddm_utils.show.style import INK

VARIANTS = {
    "": ["only-light", "only-wide"],
    "-dark": ["only-dark", "only-wide"],
    "-narrow": ["only-light", "only-narrow"],
    "-narrow-dark": ["only-dark", "only-narrow"],
}
LIGHT = (216, 220, 226)
NEAR = 4  # levels of 255 by which a colour may be off where letters lie on each other; no grey is as near to ink
DARK = 0.08  # relative luminance below which a method's colour is lost on a dark ground


def _levels(colour: str) -> np.ndarray:
    return np.round(np.array(to_rgb(colour)) * 255)


def light_colours() -> list[tuple[np.ndarray, np.ndarray]]:
    """What the dark theme draws in another colour: ink, and the methods' darkest colours, half-way to white."""
    dark = [
        colour for colour in METHOD_COLOURS.values() if np.power(to_rgb(colour), 2.2) @ (0.2126, 0.7152, 0.0722) < DARK
    ]
    return [(_levels(INK), np.array(LIGHT)), *((_levels(c), (_levels(c) + 255) // 2) for c in dark)]


def dark_twin(path: Path, folder: Path) -> Path | None:
    """The picture's copy in light colours, written into a folder; None for a picture without a transparent ground."""
    twin = folder / f"{path.stem}-dark.png"
    if twin.is_file() and twin.stat().st_mtime > path.stat().st_mtime:
        return twin
    with Image.open(path) as picture:
        if picture.mode != "RGBA":
            return None
        pixels = np.array(picture)
    if pixels[..., 3].min() == 255:
        return None
    drawn = pixels[..., :3].astype(int)
    for colour, light in light_colours():
        pixels[..., :3][(np.abs(drawn - colour) <= NEAR).all(axis=-1)] = light
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(twin)
    return twin


def add_twins(app: Sphinx, doctree: nodes.document) -> None:
    """Put the twin beside each such picture; the page's theme shows one of them."""
    folder, page = Path(app.outdir).parent / "dark", Path(app.env.doc2path(app.env.docname))
    for image in list(doctree.findall(nodes.image)):
        if not image["uri"].endswith(".png") or "://" in image["uri"]:
            continue
        path = Path(app.env.relfn2path(image["uri"], app.env.docname)[1])
        found = dark_twin(path, folder) if path.is_file() else None
        if found is None:
            continue
        twin = image.deepcopy()
        twin["uri"] = os.path.relpath(found, page.parent)
        twin["loading"] = "lazy"  # the light theme never loads it
        image["classes"] = [*image["classes"], "only-light"]
        twin["classes"] = [*twin["classes"], "only-dark"]
        image.parent.insert(image.parent.index(image) + 1, twin)


def add_variants(app: Sphinx, doctree: nodes.document) -> None:
    """Put the variants of a drawing beside it; style sheets show one of them, and only that one is loaded."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.env.relfn2path(image["uri"], app.env.docname)[1]) if "://" not in image["uri"] else Path()
        if path.suffix != ".svg" or not path.with_stem(f"{path.stem}-narrow-dark").is_file():
            continue
        twins = []
        for ending, classes in VARIANTS.items():
            twin = image.deepcopy()
            twin["uri"] = image["uri"].removesuffix(".svg") + f"{ending}.svg"
            twin["classes"] = [*image["classes"], *classes]
            twin["loading"] = "lazy"
            twins.append(twin)
        image.replace_self(twins)


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before Sphinx collects the pictures of a page."""
    app.connect("doctree-read", add_twins, priority=400)
    app.connect("doctree-read", add_variants, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
