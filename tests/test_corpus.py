"""A corpus of odd and malformed scans, as real files: each gives the right scan or one clear refusal."""

from __future__ import annotations

import gzip
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pddm_utils.core.errors import InputError
from pddm_utils.data.manifest import ManifestRow
from pddm_utils.data.prepare import ScanCache, load_scan, prepare_scan
from pddm_utils.data.scan import Scan

SHAPE = (80, 90, 60)
GRID = np.array([[2.0, 0, 0, -79], [0, 2, 0, -89], [0, 0, 2, -59], [0, 0, 0, 1]])
DIM, DATATYPE, OFFSET, SLOPE, SROW, MAGIC = 40, 70, 108, 112, 280, 344  # bytes of a NIfTI-1 header


def ellipsoid(shape: tuple[int, ...], affine: np.ndarray, radii: tuple[float, ...] = (62, 76, 48)) -> np.ndarray:
    """`shape` bool: an ellipsoid around the origin of the world, radii in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return ((world / radii) ** 2).sum(axis=-1) < 1


BRAIN = ellipsoid(SHAPE, GRID)
HEAD = np.where(BRAIN, np.random.default_rng(0).integers(60, 121, SHAPE), 0).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One input: how it is made, and what must come of it.

    Attributes:
        name: of the case.
        make: writes files to a folder and returns the row.
        refused: part of the message; empty when the scan is good.
        said: part of the one warning about a scan that is good but doubtful.
        affine: of the file, when its frame is the plain head's under another affine.
        volume: the brain's volume must be right within 6 % and its centre within 1 mm, in place of equal voxels.
    """

    name: str
    make: Callable[[Path], ManifestRow]
    refused: str = ""
    said: str = ""
    affine: np.ndarray | None = None
    volume: bool = False


def row(image: Path | str, brain: Path | str = "", lesion: Path | str = "") -> ManifestRow:
    return ManifestRow("s", str(image), str(brain), str(lesion), "test", "mine", "T1")


def nifti(
    data: np.ndarray = HEAD,
    affine: np.ndarray | None = GRID,
    name: str = "scan.nii.gz",
    dtype: str = "<f4",
    scale: tuple[float, float] | None = None,
    kind: type = nib.Nifti1Image,
    edit: Callable[[nib.Nifti1Image], object] | None = None,
) -> Callable[[Path], ManifestRow]:
    """A file of `data`, stored as `dtype`, with a scale factor and an intercept where given."""

    def make(folder: Path) -> ManifestRow:
        slope, inter = scale or (1, 0)
        image = kind(
            ((data - inter) / slope if scale else data).astype(dtype),
            affine,
            header=kind.header_class(endianness=">" if dtype[0] == ">" else "<"),
        )
        image.set_data_dtype(np.dtype(dtype))
        if scale:
            image.header.set_slope_inter(slope, inter)
        if edit:
            edit(image)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / name)
        return row(folder / name)

    return make


def patched(offset: int, form: str, *values: object, compressed: bool = False) -> Callable[[Path], ManifestRow]:
    """The plain head with bytes of its header overwritten."""

    def make(folder: Path) -> ManifestRow:
        path = Path(nifti(name="scan.nii")(folder).image)
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, offset, *values)
        path.write_bytes(content)
        if compressed:
            path = path.with_suffix(".nii.gz")
            path.write_bytes(gzip.compress(bytes(content), 1))
        return row(path)

    return make


def raw(name: str, content: bytes) -> Callable[[Path], ManifestRow]:
    def make(folder: Path) -> ManifestRow:
        (folder / name).write_bytes(content)
        return row(folder / name)

    return make


def linked(target: str, through_folder: bool = False) -> Callable[[Path], ManifestRow]:
    """The head behind a symbolic link, or behind a link to its folder; `target` may not exist."""

    def make(folder: Path) -> ManifestRow:
        nifti(name="real/scan.nii.gz")(folder)
        (folder / "link.nii.gz").symlink_to(folder / target)
        (folder / "folder").symlink_to(folder / "real")
        return row(folder / "folder" / "scan.nii.gz" if through_folder else folder / "link.nii.gz")

    return make


def masked(mask: np.ndarray, data: np.ndarray = HEAD, affine: np.ndarray = GRID) -> Callable[[Path], ManifestRow]:
    """The head with a mask file."""

    def make(folder: Path) -> ManifestRow:
        image = nifti(data, affine)(folder).image
        dtype = "<u1" if mask.dtype == bool else mask.dtype.str
        return row(image, nifti(mask, affine, "mask.nii.gz", dtype)(folder).image)

    return make


def lesioned(mask: np.ndarray) -> Callable[[Path], ManifestRow]:
    def make(folder: Path) -> ManifestRow:
        image = nifti()(folder).image
        return row(image, "", nifti(mask, GRID, "lesion.nii.gz", "<f4")(folder).image)

    return make


def forms(sform: int, qform: int) -> Callable[[nib.Nifti1Image], None]:
    def edit(image: nib.Nifti1Image) -> None:
        image.set_sform(GRID if sform else None, sform)
        image.set_qform(GRID if qform else None, qform)

    return edit


def sampled(spacing: tuple[float, ...], angles: tuple[float, ...]) -> Callable[[Path], ManifestRow]:
    """The ellipsoid on another grid, tilted against it."""
    shape = tuple(int(np.ceil(176 / size)) + 2 for size in spacing)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    inside = ellipsoid(shape, affine)
    values = np.where(inside, np.random.default_rng(1).uniform(80, 120, shape), 0)
    return nifti(values.astype(np.float32), affine)


def turned(order: str) -> Callable[[Path], ManifestRow]:
    """The head stored along other axes."""
    turn = nib.orientations.axcodes2ornt(order)
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    data = nib.orientations.apply_orientation(HEAD, change)
    return nifti(data, GRID @ nib.orientations.inv_ornt_aff(change, SHAPE))


def tilted(*angles: float) -> np.ndarray:
    return nib.affines.from_matvec(Rotation.from_euler("xyz", angles, degrees=True).as_matrix()) @ GRID


def other_format(name: str, kind: type, data: np.ndarray = HEAD) -> Callable[[Path], ManifestRow]:
    def make(folder: Path) -> ManifestRow:
        nib.save(kind(data, GRID), folder / name)
        return row(folder / name)

    return make


HOLE = ellipsoid(SHAPE, GRID, (20, 20, 20))
COLOURS = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
BLOCK = np.zeros(SHAPE, np.float32)
BLOCK[35:45, 40:50, 25:35] = 1
NAN_EDGE, SHEARED = HEAD.copy(), GRID.copy()
NAN_EDGE[0, 0, 0] = np.nan
SHEARED[0, 1] = 0.4
FAR = nib.affines.from_matvec(np.eye(3), (5000, 0, 0)) @ GRID
GOOD = [
    *[
        Case(f"stored as {dtype}", nifti(dtype=dtype))
        for dtype in ("<u1", "<i2", ">i2", "<u2", ">u2", "<i4", "<u4", "<i8", "<u8", ">f4", "<f8", ">f8")
    ],
    Case("int8 with intercept", nifti(dtype="<i1", scale=(1, 60))),
    Case("int8 big-endian with factor", nifti(dtype=">i1", scale=(2, 60), data=2 * np.round(HEAD / 2))),
    Case("uint16 with factor", nifti(dtype="<u2", scale=(0.01, 0))),
    Case("float64 with factor and intercept", nifti(dtype="<f8", scale=(0.5, -100))),
    Case("int16 with negative factor", nifti(dtype="<i2", scale=(-1, 0))),
    Case("factor of zero counts as none", patched(SLOPE, "<f", 0)),
    Case("factor that is no number counts as none", patched(SLOPE, "<f", float("nan"))),
    Case("infinite factor counts as none", patched(SLOPE, "<f", float("inf"))),
    Case("uncompressed", nifti(name="scan.nii")),
    Case("NIfTI-2", nifti(kind=nib.Nifti2Image)),
    Case("pair of files", nifti(name="scan.img", kind=nib.Nifti1Pair)),
    Case("name with spaces", nifti(name="my scan (1) final.nii.gz")),
    Case("name with unicode", nifti(name="Ünïcødé 脑部扫描 🧠.nii.gz")),
    Case("folder with spaces and quotes", nifti(name='it\'s a "folder" of mine/scan.nii.gz')),
    Case("name with a leading dash", nifti(name="-rf.nii.gz")),
    Case("long name", nifti(name="x" * 240 + ".nii.gz")),
    Case("ending in capitals", nifti(name="SCAN.NII.GZ")),
    Case("symbolic link", linked("real/scan.nii.gz")),
    Case("folder behind a link", linked("real/scan.nii.gz", through_folder=True)),
    Case("fourth and fifth axis of length one", nifti(HEAD[..., None, None])),
    Case("sform only", nifti(edit=forms(1, 0))),
    Case("qform only", nifti(edit=forms(0, 1))),
    Case("sform wins over another qform", nifti(edit=lambda image: image.set_qform(tilted(30, 0, 0), 1))),
    *[Case(f"axes {order}", turned(order)) for order in ("LPS", "PSR", "SAL", "IRP", "LIA")],
    Case("oblique", nifti(affine=tilted(15, -10, 20)), affine=tilted(15, -10, 20)),
    Case("just under 45 degrees", nifti(affine=tilted(0, 0, 44)), affine=tilted(0, 0, 44)),
    Case("far from the origin", nifti(affine=FAR), affine=FAR),
    Case("very small values", nifti(HEAD * np.float32(1e-30))),
    Case("very large values", nifti(HEAD * np.float32(1e34))),
    Case("below zero with a mask", masked(BRAIN, HEAD - 1000)),
    Case("mask of probabilities", masked(BRAIN * np.float32(0.4))),
    Case("mask of labels", masked(BRAIN * np.int16(205))),
    Case("lesion labelled 255", lesioned(BLOCK * 255)),
    Case(
        "bytes behind the image",
        lambda folder: _append(nifti(name="scan.nii")(folder), b"\0" * 1000),
        said="holds more than its header speaks of",
    ),
    Case("plain file named .gz", lambda folder: _renamed(nifti(name="scan.nii")(folder), "scan2.nii.gz")),
    Case("compressed file named .nii", lambda folder: _renamed(nifti()(folder), "scan2.nii")),
    *[
        Case(f"voxels of {spacing} mm, tilted {angles}", sampled(spacing, angles), volume=True)
        for spacing, angles in [
            ((1, 1, 1), (0, 0, 0)),
            ((0.8, 0.8, 6), (0, 0, 0)),
            ((6, 1, 1), (0, 0, 0)),
            ((1.2, 3, 2), (12, -8, 20)),
            ((4, 4, 4), (25, 5, 0)),
            ((2.5, 2.5, 10), (0, 10, 0)),
        ]
    ],
]
BAD = [
    Case("no file", lambda folder: row(folder / "none.nii.gz"), "no such file|cannot be read"),
    Case("a folder", lambda folder: _folder(folder / "scan.nii.gz"), "a folder, not a file"),
    Case("link to nothing", linked("none.nii.gz"), "a link whose content is not on this machine"),
    Case("link to itself", linked("link.nii.gz"), "cannot be read|no such file"),
    Case("empty file", raw("scan.nii.gz", b""), "empty or filled with zeros"),
    Case("text", raw("scan.nii", b"patient,age\n" * 100), "not a readable NIfTI"),
    Case("compressed text", raw("scan.nii.gz", gzip.compress(b"patient,age\n" * 100)), "not a readable NIfTI"),
    Case("MGZ", other_format("scan.mgz", nib.MGHImage), "not a NIfTI file"),
    Case("MINC-like ending", raw("scan.mnc", b"\x89HDF\r\n\x1a\n" + bytes(600)), "not a readable NIfTI"),
    Case("Analyze", other_format("scan.img", nib.AnalyzeImage), "not a NIfTI file"),
    Case("header says more than the file holds", patched(DIM, "<4h", 3, 800, 900, 600), "truncated or damaged"),
    Case("header says far too much", patched(DIM, "<4h", 3, 32000, 32000, 32000), "truncated or damaged"),
    Case("the same, compressed", patched(DIM, "<4h", 3, 32000, 32000, 32000, compressed=True), "truncated or damaged"),
    Case("no dimensions", patched(DIM, "<h", 0), "speaks of 0 axes"),
    Case("axis of length zero", patched(DIM, "<4h", 3, 80, 0, 60), r"speaks of 3 axes of \(80, 0, 60\)"),
    Case("negative axis", patched(DIM, "<4h", 3, 80, -90, 60), r"speaks of 3 axes of \(80, -90, 60\)"),
    Case("unknown data type", patched(DATATYPE, "<h", 999), "NIfTI|damaged"),
    Case("data begin behind the end", patched(OFFSET, "<f", 1e9), "damaged|NIfTI"),
    Case("broken magic", patched(MAGIC, "4s", b"abc\0"), "NIfTI"),
    Case("colours", other_format("scan.nii.gz", nib.Nifti1Image, COLOURS), "not real numbers"),
    Case("complex", other_format("scan.nii.gz", nib.Nifti1Image, HEAD * 1j), "export a magnitude image"),
    Case("time series", nifti(np.stack([HEAD, HEAD], axis=-1)), "4-D image"),
    Case("one slice", nifti(HEAD[30:31]), "one slice that is not axial"),
    Case("one column", nifti(HEAD[:1, :, 30:31]), "3-D image of shape"),
    Case("flat image", nifti(HEAD[:, :, 30]), "2-D image"),
    Case("not a number at the edge", nifti(NAN_EDGE), "1 NaN or infinite"),
    Case("too large for single precision", nifti(HEAD.astype(np.float64) * 1e300, dtype="<f8"), "NaN or infinite"),
    Case("nothing but zeros", nifti(0 * HEAD), "constant image"),
    Case("millimetres given as metres", nifti(affine=np.diag([0.002, 0.002, 0.002, 1])), "no scan of a head"),
    Case("voxels of a metre", nifti(affine=np.diag([1000.0, 1000, 1000, 1])), "no scan of a head"),
    Case("affine with NaN", patched(SROW, "<f", float("nan")), "affine|NIfTI"),
    Case("sheared", nifti(affine=SHEARED), "sheared"),
    Case("empty brain mask", masked(0 * BLOCK), "empty brain mask"),
    Case(
        "brain mask of one voxel",
        masked(np.pad(np.ones((1, 1, 1), bool), ((40, 39), (45, 44), (30, 29)))),
        "do not vary|no voxel left",
    ),
    Case("brain mask in the background", masked(ellipsoid(SHAPE, GRID, (9, 9, 9)), HEAD * ~HOLE), "do not vary"),
    Case("brain mask with NaN", masked(np.where(BLOCK > 0, np.nan, 0).astype(np.float32)), "NaN or infinite"),
    Case("empty lesion mask", lesioned(0 * BLOCK), "empty lesion mask"),
    Case("lesion probabilities", lesioned(BLOCK * np.linspace(0, 1, 60, dtype=np.float32)), "not binary"),
]


def _append(made: ManifestRow, content: bytes) -> ManifestRow:
    with Path(made.image).open("ab") as stream:
        stream.write(content)
    return made


def _folder(path: Path) -> ManifestRow:
    path.mkdir()
    return row(path)


def _renamed(made: ManifestRow, name: str) -> ManifestRow:
    return row(Path(made.image).rename(Path(made.image).with_name(name)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Scan:
    """The head prepared from a plain float32 file."""
    return prepare_scan(nifti()(tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_odd_but_good(case: Case, plain: Scan, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scan = load_scan(case.make(tmp_path), ScanCache(tmp_path / "cache"))
    assert len(caught) == bool(case.said) and all(case.said in str(warning.message) for warning in caught)
    if case.volume:
        index = np.argwhere(scan.brain_mask)[:, ::-1]
        centre = index.mean(axis=0) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
        assert len(index) * 8 == pytest.approx(4 / 3 * np.pi * 62 * 76 * 48, rel=0.06) and np.abs(centre).max() < 1
        return
    np.testing.assert_allclose(scan.image, plain.image, atol=0.02 if "factor" in case.name else 2e-5)
    np.testing.assert_array_equal(scan.brain_mask, plain.brain_mask)
    change = np.eye(4) if case.affine is None else case.affine @ np.linalg.inv(GRID)
    np.testing.assert_allclose(scan.affine, change @ plain.affine, atol=1e-3)
    if "lesion" in case.name:
        assert scan.lesion_mask.sum() == BLOCK.sum()


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_malformed_is_refused_by_name_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    made, cache = case.make(tmp_path), ScanCache(tmp_path / "cache")
    with pytest.raises(InputError, match=case.refused) as caught:
        load_scan(made, cache)
    message = str(caught.value)
    assert message.startswith(tuple(f"{path}: " for path in (made.image, made.brain_mask, made.lesion_mask) if path))
    assert ";" in message and "\n" not in message and list(cache.folder.iterdir()) == []


def test_corpus_is_large_and_its_names_differ() -> None:
    names = [case.name for case in GOOD + BAD]
    assert len(names) >= 60 and len(set(names)) == len(names)


@pytest.mark.skipif(os.name == "nt", reason="named pipes are Unix")
def test_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match="no such file|cannot be read"):
        prepare_scan(row(tmp_path / "scan.nii.gz"))
