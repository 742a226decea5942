"""Tables as spreadsheets save them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pddm_utils.core.errors import InputError
from pddm_utils.data.text_tables import read_table

ROWS = [{"image": "a.nii", "note": "x"}, {"image": "b.nii", "note": ""}]


@pytest.mark.parametrize(
    "content",
    [
        b"image,note\na.nii,x\nb.nii,\n",
        b"image;note\r\na.nii;x\r\nb.nii;\r\n",
        b"image\tnote\na.nii\tx\nb.nii\t",
        b"\xef\xbb\xbfimage,note\na.nii,x\nb.nii,\n",
        b"image,note\ra.nii,x\rb.nii,\r",
        b"sep=;\r\nimage;note\r\na.nii;x\r\nb.nii;\r\n",
        b"\xef\xbb\xbfsep=,\nimage,note\na.nii,x\nb.nii,\n",
        b"Image, NOTE ,,\na.nii, x,,\n,,,\n\nb.nii\n,,\n",
        b'"image","note"\n"a.nii","x"\n"b.nii",""\n',
        b"\n\nimage,note\na.nii,x\nb.nii,\n",
        "image\tnote\na.nii\tx\nb.nii\t\n".encode("utf-16"),
    ],
)
def test_whatever_a_spreadsheet_writes_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scans.csv").write_bytes(content)
    assert read_table(tmp_path / "scans.csv", ["image"]) == ROWS


def test_cells_may_hold_the_delimiter_or_a_new_line_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "scans.csv").write_text('image,note\n"a,b.nii","two\nlines"\n')
    assert read_table(tmp_path / "scans.csv", ["image"]) == [{"image": "a,b.nii", "note": "two\nlines"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"missing column\(s\) image; the columns are image, separated by commas, semicolons or tabs"),
        (b"image\n", "no rows; list at least one"),
        (b"image,note\n,\n", "no rows; list at least one"),
        (b"picture\na.nii\n", r"missing column\(s\) image"),
        (b"image|note\na.nii|x\n", r"missing column\(s\) image; .* commas, semicolons or tabs"),
        (b"image,note\na,b.nii,x\n", "line 2: more cells than columns; put quotes"),
        (b"image,Image\na.nii,b.nii\n", "the column image stands there twice; keep one"),
        (b'image\n"a.nii\n', "line 2: broken CSV .*; close its quotes"),
        (b"image\nM\xfcller.nii\n", "not a readable text file .*; save it as UTF-8 CSV"),
        (b"image\n\0\n", "not a readable text file .*; save it as UTF-8 CSV"),
        (b"PK\x03\x04[Content_Types].xml", "a spreadsheet's own format, not text; save it as UTF-8 CSV"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "scans.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"scans.csv: {told}"):
        read_table(tmp_path / "scans.csv", ["image"])


@pytest.mark.parametrize("name", ["none.csv", "a\0.csv", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / name, ["image"])
