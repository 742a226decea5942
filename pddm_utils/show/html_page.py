"""Pages that need no other file: one HTML text with its style and its pictures inside."""

from __future__ import annotations

import base64
import html
import io

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; background: white; border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; }
td + td { font-variant-numeric: tabular-nums; }
.warning, .notice { border-left: 4px solid #D55E00; padding: .3rem .8rem; margin: .6rem 0; }
.notice { border-color: #0072B2; }
"""


def html_page(title: str, body: str) -> str:
    """A page with this title as its heading.

    Args:
        title: plain text.
        body: HTML below the heading.
    """
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body><main>
<h1>{title}</h1>
{body}
</main></body></html>
"""


def picture(figure: Figure, text: str) -> str:
    """A figure as an `img` element, PNG inside; the figure is closed.

    Args:
        figure: any.
        text: what readers get who do not see it; plain text.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    png = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{png}" alt="{html.escape(text)}">'
