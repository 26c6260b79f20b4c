"""Runs OpenFace 2's FeatureExtraction, which users build themselves, and reads the tables it writes."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from data.extractors import ClipError
from utils.errors import UserError, first_line

# Flags for the 709 feature columns, without images or a video.
OUTPUTS = ("-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze")
ACTION_UNITS = "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45".split()


def columns() -> list[str]:
    """Returns the names of the 709 columns, in the order of the features."""
    names = [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
    names += [f"eye_lmk_{axis}_{mark}" for axis in "xyXYZ" for mark in range(56)]
    names += [f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"]
    names += [f"{axis}_{mark}" for axis in "xyXYZ" for mark in range(68)]
    names += ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"] + [f"p_{mode}" for mode in range(34)]
    names += [f"AU{unit}_r" for unit in ACTION_UNITS]
    return names + [f"AU{unit}_c" for unit in [*ACTION_UNITS[:-1], "28", "45"]]


def read_table(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads OpenFace's table of a clip. Raises ClipError.

    Returns the values (video frames, 709) and times (video frames,) in seconds, float64, and whether each video frame has
    a face. Finds columns by name: builds differ in the columns before the features, and in spaces.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
        table.columns = table.columns.str.strip()
        if "face_id" in table:  # several faces: the first is the speaker's
            table = table[table["face_id"] == table["face_id"].min()]
        values, times, success = (table[names].to_numpy(np.float64) for names in (columns(), "timestamp", "success"))
        if not (len(values) and np.isfinite(values).all() and np.isfinite(times).all()):
            raise ValueError("no rows, or missing or non-finite values")
    except (OSError, KeyError, ValueError) as error:  # pandas' errors are ValueErrors
        raise ClipError(
            f"the OpenFace table {path} cannot be used ({first_line(error)}); run FeatureExtraction on the clip again, "
            f"without flags or with {' '.join(OUTPUTS)}"
        ) from None
    return values, times, success > 0


def run_openface(program: Path, clip: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs FeatureExtraction on a clip and reads its table. Raises ClipError. The program's exit status means nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="openface-") as folder,
        # A pipe would stay open as long as any child process of the program runs.
        open(Path(folder) / "log", "w+", encoding="utf-8", errors="replace") as log,
    ):
        command = [program, "-f", clip.resolve(), "-out_dir", folder, *OUTPUTS]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except OSError as error:
            raise UserError(f"--openface2Path {program}: cannot run here ({error.strerror}); rebuild it") from None
        tables = list(Path(folder).glob("*.csv"))
        if len(tables) != 1:
            log.seek(0)
            lines = log.read().strip().splitlines() or ["no output"]
            raise ClipError(f"OpenFace wrote {len(tables)} tables, expected one: {first_line(lines[-1])}")
        return read_table(tables[0])


def find_openface(path: Path) -> Path:
    """Returns the program at --openface2Path: the path itself or a file below it. Raises UserError if there is none."""
    for name in ("", "FeatureExtraction", "bin/FeatureExtraction"):
        if program := shutil.which(path.resolve() / name):
            return Path(program)
    raise UserError(
        f"--openface2Path {path}: no executable FeatureExtraction there; build OpenFace 2 (or chmod +x the file), or use "
        "--vision mediapipe"
    )
