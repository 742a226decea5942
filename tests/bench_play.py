"""What a pass of the page Play costs: `python tests/bench_play.py FOLDER`, a folder of `publish playground`.

Starts the models of the first group in Chromium, in one WebAssembly thread, and prints for each the median time of a
pass, and the processor time of the thread that runs it (Linux), which other work on the machine does not lengthen.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from browser import open_browser

PASSES = 40
PAGE = """<!doctype html><title>Play</title><div id="pddm-play" data-folder="{0}/"></div>
<script src="{0}/play.js"></script>"""
RUN = """async ([name, passes]) => {
  const { engine } = document.getElementById("pddm-play").play;
  const times = [];
  const x = new Float32Array(96 * 96).fill(0.1);
  for (let i = 0; i < passes; i++) times.push((await engine.predict(name, x, 500)).milliseconds);
  return times.sort((a, b) => a - b)[passes >> 1];
}"""


def worker_seconds() -> float:
    """Processor time of all worker threads of browsers on this machine."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/task/*/stat"):
        try:
            name, numbers = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:  # it has ended
            continue
        if name.startswith("DedicatedWorker"):
            total += sum(int(number) for number in numbers.split()[11:13])
    return total / os.sysconf("SC_CLK_TCK")


def main(folder: Path) -> None:
    """Print one line for each model."""
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file, open_browser() as browser:
        file.write(PAGE.format(folder.resolve().as_uri()))
        file.flush()
        page = browser.new_page()
        page.goto(Path(file.name).as_uri())
        page.locator('[data-control="start"]').click()
        page.wait_for_function("() => document.getElementById('pddm-play').play?.state.busy === false", timeout=300_000)
        for name in page.evaluate("() => document.getElementById('pddm-play').play.state.models.map((m) => m.name)"):
            before = worker_seconds()
            median = page.evaluate(RUN, [name, PASSES])
            cost = 1000 * (worker_seconds() - before) / PASSES
            print(f"{name}: a pass takes {median:.0f} ms, of which the processor works {cost:.0f} ms")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "_build/playground"))
