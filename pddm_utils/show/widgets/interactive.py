"""What all interactive figures share as anywidgets; their pages without a kernel are made in `packing`.

A figure is one Python class with a dictionary of `frames`. What its script computes from them,
`tests/mirrors.py` computes too, so that tests can compare the two pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from pddm_utils.core.errors import InputError
from pddm_utils.show.widgets.packing import figure_html


class InteractiveFigure(anywidget.AnyWidget):
    """A figure as a widget; a page without a kernel shows the same through its `text/html`.

    A figure's class names its module: `_esm = script("forward")`.

    Attributes:
        frames: everything that is drawn, JSON-ready: texts, colours, numbers and packed uint8 arrays.
    """

    frames = traitlets.Dict().tag(sync=True)

    def to_html(self, name: str | None = None) -> str:
        """A self-contained HTML fragment: data and script inside, no request to anywhere.

        Args:
            name: `id` of its element, unique in the page; a random one when left out.
        """
        return figure_html(self.frames, str(self._esm), name)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/html": self.to_html()}, metadata

    @property
    def payload_bytes(self) -> int:
        """Size of the HTML fragment."""
        return len(self.to_html().encode())

    def _reply(self, kind: str, make: Callable[[], dict[str, Any]]) -> None:
        """Answer the front end with what `make` returns, or with what went wrong: always, for it waits.

        Args:
            kind: of the answer.
            make: the `view` it is sent.
        """
        try:
            view = make()
        except Exception as error:
            self.send({"kind": "failed", "message": str(error)})
            if not isinstance(error, InputError):
                raise
        else:
            self.send({"kind": kind, "view": view})

    def _place(self, key: str, value: int) -> int:
        """Where a slice or noise level stands in the frames.

        Raises:
            InputError: it is not there.
        """
        if value not in self.frames[key]:
            raise InputError(f"{value} is not among the {key} of this figure: {self.frames[key]}")
        return self.frames[key].index(value)
