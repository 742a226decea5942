"""Sphinx extension: the project's public address, said in one place, and what depends on it.

The address is the environment variable PDDM_REPOSITORY or `repository_address` in `_config.yml`. Only with one do
notebook pages get buttons for Colab and Binder, and link previews get absolute addresses.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ConfigError

GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
LAUNCHERS = {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"}


def public_address(configured: str) -> str:
    """The address as `https://github.com/owner/name`, or "" where none is set or it is a folder of this machine.

    Raises:
        ConfigError: something else.
    """
    address = os.environ.get("PDDM_REPOSITORY") or configured
    if not address or Path(address).is_dir():  # notebooks can be installed from a folder, pages cannot be launched
        return ""
    match = GITHUB.fullmatch(address)
    if match is None:
        raise ConfigError(f"repository address {address!r}; write https://github.com/owner/name")
    return f"https://github.com/{match[1]}/{match[2]}"


def use_address(app: Sphinx, config: Any) -> None:
    """Switch launch buttons and absolute addresses on, or leave them off."""
    address = public_address(config.repository_address)
    if not address:
        return
    owner, name = address.split("/")[-2:]
    options = config.html_theme_options
    options |= {
        "repository_url": address,
        "repository_branch": config.repository_branch,
        "use_repository_button": True,
        "launch_buttons": {**options.get("launch_buttons", {}), **LAUNCHERS},
    }
    config.html_baseurl = config.html_baseurl or f"https://{owner.lower()}.github.io/{name}/"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the settings and the hook."""
    app.add_config_value("repository_address", "", "html", types=[str])
    app.add_config_value("repository_branch", "main", "html", types=[str])
    app.connect("config-inited", use_address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
