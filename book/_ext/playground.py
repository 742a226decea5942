"""Sphinx extension: the directive `{playground}` puts the models that the reader's browser can run into a page.

Their files are made by `python -m pddm_utils.publish playground`, in `_build/playground` or where PDDM_PLAYGROUND says.
A build without them, or without npm when they were made, says so on the page and in one line of its log. With the
option `on-request` there is one button, which loads all of it and starts the models; nothing at all without them.
"""

from __future__ import annotations

import json
import os
import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx
from sphinx.util import logging

TARGET = "_static/play"
COMMAND = "python -m pddm_utils.publish playground"
RECORDED_TEXT = "A recorded run: a simulated scan with a lesion, the reconstruction of each model, and its anomaly map"
# What a press of the one button does: the page's own script comes, and its start button is pressed for the reader.
ON_REQUEST = """
(function (asked) {
  asked.addEventListener("click", function () {
    asked.disabled = true;
    asked.textContent = "Loading …";
    var root = document.createElement("div"), script = document.createElement("script");
    root.id = "pddm-play";
    root.dataset.folder = asked.dataset.folder;
    asked.after(root);
    script.src = asked.dataset.folder + "play.js";
    script.onload = function () {
      asked.remove();
      root.querySelector("[data-control=start]").click();
      root.querySelector("[data-control=group]").focus();
    };
    script.onerror = function () {
      root.remove();
      asked.textContent = "The models could not be loaded; the page Play may say why.";
    };
    document.head.append(script);
  });
})(document.currentScript.previousElementSibling);
"""
logger = logging.getLogger(__name__)


def made_in(app: Sphinx) -> Path:
    """Folder of the files, which may not be there."""
    return Path(os.environ.get("PDDM_PLAYGROUND") or Path(app.srcdir) / "_build" / "playground")


def contents(app: Sphinx) -> dict[str, Any]:
    """What was built; `missing` says why the models cannot run, and is empty when they can."""
    path = made_in(app) / "contents.json"
    if not path.is_file():
        return {"missing": f"they were not made before this build; make them with: {COMMAND}"}
    return json.loads(path.read_text(encoding="utf-8"))


def files(found: dict[str, Any]) -> list[str]:
    """Names of the files that the page loads."""
    if "models" not in found:
        return []
    if found["missing"]:
        return ["recorded.png"]
    names = [f"runtime-{name}" for name in found["runtimes"]] + [f"model-{one['name']}" for one in found["models"]]
    names += sorted({group["slices"] for group in found["groups"]}) + ["play"]
    return ["recorded.png", "LICENSE-onnxruntime-web.txt", *(f"{name}.js" for name in names)]


def one_button(folder: str, found: dict[str, Any]) -> str:
    """The button that loads the page's script and starts the first models; empty where there are none."""
    if found["missing"]:
        return ""
    weight = round((max(found["runtimes"].values()) + found["groups"][0]["bytes"]) / 1e6)
    text = f"Run the models here (up to {weight} MB)"
    return f'<button type="button" class="run-here" data-folder="{folder}">{text}</button><script>{ON_REQUEST}</script>'


class Playground(Directive):
    """The start button over a recorded picture; only the note where there is nothing to start."""

    option_spec = {"on-request": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Raw HTML, and a warning box where models are missing."""
        environment = self.state.document.settings.env
        found = contents(environment.app)
        environment.note_dependency(str(made_in(environment.app) / "contents.json"))
        above = "../" * environment.docname.count("/")
        folder = f"{above}{TARGET}/"
        if "on-request" in self.options:
            return [nodes.raw("", one_button(folder, found), format="html")]
        parts: list[nodes.Node] = []
        if found["missing"]:
            text = f"The models are not part of this build of the book: {found['missing']}."
            parts.append(nodes.note("", nodes.paragraph("", text)))
        picture = f'<img class="recorded" src="{folder}recorded.png" alt="{escape(RECORDED_TEXT)}">'
        if not found["missing"]:
            parts.append(
                nodes.raw(
                    "",
                    f'<div id="pddm-play" class="pddm-figure" data-folder="{folder}">{picture}'
                    "<noscript>The models need JavaScript; the picture is a recorded run.</noscript></div>"
                    f'<script defer src="{folder}play.js"></script>',
                    format="html",
                )
            )
        elif "models" in found:
            parts.append(nodes.raw("", picture, format="html"))
        return parts


def copy_files(app: Sphinx, error: Exception | None) -> None:
    """Put the files into the site, and say in one line when the models are left out."""
    if error is not None or app.builder.format != "html":
        return
    found, target = contents(app), Path(app.outdir) / TARGET
    shutil.rmtree(target, ignore_errors=True)
    for name in files(found):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy2(made_in(app) / name, target / name)
    if found["missing"]:
        logger.info("the page Play is without models: %s", found["missing"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the hook."""
    app.add_directive("playground", Playground)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
