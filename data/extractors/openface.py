"""OpenFace 2: running its FeatureExtraction, which users build themselves, and reading the table that it writes."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.extractors import ClipError
from utils.errors import UserError, first_line

# With these it writes the table's 709 columns, and neither pictures nor a video.
OUTPUTS = ("-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze")
ACTION_UNITS = "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45".split()


def columns() -> list[str]:
    """The 709 columns, in the order of the features."""
    names = [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
    names += [f"eye_lmk_{axis}_{mark}" for axis in "xyXYZ" for mark in range(56)]
    names += [f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"]
    names += [f"{axis}_{mark}" for axis in "xyXYZ" for mark in range(68)]
    names += ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"] + [f"p_{mode}" for mode in range(34)]
    names += [f"AU{unit}_r" for unit in ACTION_UNITS]
    return names + [f"AU{unit}_c" for unit in [*ACTION_UNITS[:-1], "28", "45"]]


@dataclass
class Table:
    """OpenFace's table of a clip."""

    values: np.ndarray  # (pictures, 709)
    times: np.ndarray  # (pictures,) seconds
    has_face: np.ndarray  # (pictures,) bool


def read_table(path: Path | None) -> Table:
    """Reads a table by its columns' names: builds differ in what stands before the features, and in spaces. Raises ClipError."""
    if path is None or not os.path.isfile(path):
        raise ClipError(f"no OpenFace table at {path}")
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        raise ClipError(f"the OpenFace table {path.name} can't be read: {first_line(error)}") from None
    table.columns = table.columns.str.strip()
    lacking = [name for name in ("timestamp", "success", *columns()) if name not in table.columns]
    if lacking:
        raise ClipError(
            f"the OpenFace table {path.name} lacks {len(lacking)} columns, {lacking[0]} among them; run FeatureExtraction "
            "without flags, or with all of " + " ".join(OUTPUTS)
        )
    if "face_id" in table.columns:  # made for several faces: the first is the speaker's
        table = table[table["face_id"] == table["face_id"].min()]
    try:
        values, times, success = (table[names].to_numpy(np.float64) for names in (columns(), "timestamp", "success"))
    except ValueError as error:
        raise ClipError(
            f"the OpenFace table {path.name} holds something else than numbers: {first_line(error)}"
        ) from None
    if not len(values):
        raise ClipError(f"the OpenFace table {path.name} has no rows")
    if not np.isfinite(values).all() or not np.isfinite(times).all():
        raise ClipError(f"the OpenFace table {path.name} has values that are missing or not finite: was it cut off?")
    return Table(values, times, success > 0)


@contextlib.contextmanager
def run_openface(program: Path, clip: Path) -> Iterator[Path]:
    """Runs FeatureExtraction on a clip. Gives the path of its table, which is there inside the context only. Raises ClipError.

    The exit status says nothing; what counts is the table, once the program has ended.
    """
    with tempfile.TemporaryDirectory(prefix="unfinished-openface-") as folder:
        words = [program, "-f", clip.resolve(), "-out_dir", folder, *OUTPUTS]
        with open(Path(folder) / "said", "w+b") as said:  # a pipe would stay open as long as any child of it lives
            try:
                ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
            except OSError as error:
                raise UserError(
                    f"--openface2Path {program}: can't be run here ({error.strerror}); build it anew"
                ) from None
            said.seek(max(0, said.tell() - 1000))
            words = said.read().decode(errors="replace").strip().splitlines()
        tables = list(Path(folder).glob("*.csv"))
        if len(tables) != 1:
            last = f"; its last words: {words[-1]}" if words else ""
            raise ClipError(f"OpenFace wrote {len(tables)} tables, not one (exit status {ended.returncode}){last}")
        yield tables[0]


def find_openface(named: Path) -> Path:
    """The program that --openface2Path names: itself, or the folder with it. Raises UserError where it can't be run."""
    candidates = [
        named,
        *(named / name for name in ("FeatureExtraction", "bin/FeatureExtraction", "FeatureExtraction.exe")),
    ]
    for program in candidates:
        if program.is_file():
            if not os.access(program, os.X_OK):
                raise UserError(f"--openface2Path {program}: is no program that may be run (chmod +x)")
            return program.resolve()
    raise UserError(
        f"--openface2Path {named}: no FeatureExtraction there; build OpenFace 2 and name its bin/FeatureExtraction, or use "
        "--vision mediapipe, which pip installs"
    )
