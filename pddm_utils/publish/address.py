"""Writes the repository's address into the files that need it, and takes it out again.

With an address Colab can install the package, chapters have badges, pages have launch buttons and absolute links in
their previews, and the citation says where the code is. Edits are made in the text: the rest stays byte for byte.
"""

from __future__ import annotations

import re
from pathlib import Path

from pddm_utils.core.errors import InputError
from pddm_utils.core.files import write_text

BRANCH = "main"
_PAGES = ("welcome", "running")  # of the book, which say where the project is
_NOWHERE = "*The project has no public address yet: its folder comes from whoever gave you this page.*\n"
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
_GITHUB = re.compile(r"https://github\.com/([a-z\d-]+/(?!\.+/?$)[\w.-]+?)(?:\.git)?/?", re.ASCII | re.IGNORECASE)
# The place of each edit lies between the groups of its pattern.
_CONFIG = re.compile(r"( *# <address>[^\n]*\n).*?( *# </address>\n)", re.DOTALL)
_CITATION = re.compile(r"(^license: [^\n]*\n)(?:repository-code: [^\n]*\n)?()", re.MULTILINE)
_SET_UP_CELL = re.compile(r'(^ *"address = \\")[^"\\]*(\\"\\n",$)', re.MULTILINE)
_PAGE = re.compile(r"(^<!-- address -->\n).*?(^<!-- /address -->\n)", re.DOTALL | re.MULTILINE)
_FIRST_CELL = re.compile(
    r'(\A\{\s*"cells": \[\s*\{[^][]*"source": \[\n *"# [^\n]*\\n",\n *"\\n",\n)'  # the chapter's title, an empty line
    r'(?: *"\[!\[Open in Colab\][^\n]*\n *"\\n",\n)?()'
)


def set_address(root: Path, address: str | None) -> list[Path]:
    """Write the address into `_config.yml`, `CITATION.cff`, two pages and every notebook, or take it out.

    Args:
        root: the project's folder.
        address: `https://github.com/owner/name`; None takes out what is there.

    Returns:
        The files that changed.

    Raises:
        InputError: no such address, or a file without the place for it; no file is changed then.
    """
    repository = None if address is None else _repository(address)
    edits = _edits(root, repository)
    old = {path: _read(path) for path in edits}
    new = {path: _edited(path, old[path], edits[path]) for path in edits}
    changed = [path for path in edits if new[path] != old[path]]
    for path in changed:
        write_text(path, new[path])
    return changed


def _edits(root: Path, repository: str | None) -> dict[Path, list[tuple[re.Pattern[str], str]]]:
    """What stands in the places of each file, with an address or without."""
    url = f"https://github.com/{repository}" if repository else ""
    clone = f"```bash\ngit clone {url}\n```\n" if url else _NOWHERE
    edits = {
        root / "_config.yml": [(_CONFIG, _config_lines(repository) if repository else "")],
        root / "CITATION.cff": [(_CITATION, f'repository-code: "{url}"\n' if url else "")],
        **{root / "book" / f"{name}.md": [(_PAGE, clone)] for name in _PAGES},
    }
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        badges = f'    "{_badges(repository, path.name)}\\n",\n    "\\n",\n' if repository else ""
        edits[path] = [(_FIRST_CELL, badges), (_SET_UP_CELL, url)]
    return edits


def _repository(address: str) -> str:
    """The part `owner/name` of an address."""
    match = _GITHUB.fullmatch(address)
    if match is None:
        raise InputError(f"{address!r}: not the address of a GitHub repository; write https://github.com/owner/name")
    return match[1]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: cannot be read; run this in the project's folder") from None


def _edited(path: Path, text: str, edits: list[tuple[re.Pattern[str], str]]) -> str:
    """The file's text with what each edit says in its pattern's place."""
    for pattern, new in edits:
        places = list(pattern.finditer(text))
        if len(places) != 1:
            raise InputError(f"{path}: {len(places)} places for the address instead of one; restore the file's form")
        text = text[: places[0].end(1)] + new + text[places[0].start(2) :]
    return text


def _config_lines(repository: str) -> str:
    """Options of the book's theme, and where the site will be."""
    owner, _, name = repository.partition("/")
    return f"""\
      repository_url: https://github.com/{repository}
      repository_branch: {BRANCH}
      use_repository_button: true
      launch_buttons:
        notebook_interface: jupyterlab
        binderhub_url: {BINDER}
        colab_url: {COLAB}
    html_baseurl: https://{owner.lower()}.github.io/{name}/
"""


def _badges(repository: str, notebook: str) -> str:
    """Pictures with links that open a notebook in Colab and in Binder, as one line of Markdown."""
    colab = f"{COLAB}/github/{repository}/blob/{BRANCH}/notebooks/{notebook}"
    binder = f"{BINDER}/v2/gh/{repository}/{BRANCH}?urlpath=lab/tree/notebooks/{notebook}"
    return (
        f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder]({BINDER}/badge_logo.svg)]({binder})"
    )
