"""Tables that people write: CSV and TSV as spreadsheets of any country save them."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pddm_utils.core.errors import InputError

_DELIMITERS = (",", ";", "\t")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what spreadsheets call Unicode text


def read_table(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Records of a table with a header line.

    Columns are parted by commas, semicolons or tabs, whichever gives the header the columns that are asked for.
    Names of columns are taken in small letters, cells without the spaces around them. Empty rows and a byte order
    mark do no harm.

    Args:
        path: text in UTF-8, or UTF-16 with a byte order mark.
        columns: those that must be there, in small letters; further ones are kept.

    Returns:
        One dictionary a row; a short row has empty cells at its end.

    Raises:
        InputError: it cannot be read, lacks a column, has no rows, or a row with more cells than columns.
    """
    text = _text_of(Path(path))
    first, _, rest = text.partition("\n")
    if first.strip().lower() in {f"sep={delimiter}" for delimiter in _DELIMITERS}:  # a note of Excel to itself
        text = rest
    header, delimiter = _header(path, text, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records = []
    try:
        next(reader)
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells[len(header) :]):
                raise InputError(
                    f"{path}: line {reader.line_num}: more cells than columns; put quotes around a cell that holds "
                    f"{delimiter!r}"
                )
            if any(cells):
                cells += [""] * (len(header) - len(cells))
                records.append({name: cell for name, cell in zip(header, cells, strict=False) if name})
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: broken CSV ({error}); close its quotes") from None
    if not records:
        raise InputError(f"{path}: no rows; list at least one")
    return records


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); check the path and the file") from None
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{path}: a spreadsheet's own format, not text; save it as UTF-8 CSV")
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable text file ({error}); save it as UTF-8 CSV") from None
    if "\0" in text:
        raise InputError(f"{path}: not a readable text file (it holds zeros); save it as UTF-8 CSV")
    return text.lstrip("\r\n")


def _header(path: str | Path, text: str, columns: Sequence[str]) -> tuple[list[str], str]:
    """The columns' names, and the delimiter that gives the most of those asked for."""
    readings = [(_first_row(text, delimiter), delimiter) for delimiter in _DELIMITERS]
    names, delimiter = max(readings, key=lambda reading: len(set(columns) & set(reading[0])))
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(
            f"{path}: missing column(s) {', '.join(missing)}; the columns are {', '.join(columns)}, separated by "
            "commas, semicolons or tabs"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: the column {twice[0]} stands there twice; keep one")
    return names, delimiter


def _first_row(text: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in cells]
