"""Runs OpenFace 2's FeatureExtraction, which users build themselves, and reads the tables it writes."""

import os
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


def read_table(path: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads OpenFace's table of a clip. Raises ClipError.

    Returns the values (video frames, 709) and times (video frames,) in seconds, float64, and whether each video frame has
    a face. Finds columns by name: builds differ in the columns before the features, and in spaces.
    """
    if path is None or not os.path.isfile(path):
        raise ClipError(f"no OpenFace table at {path}")
    try:
        table = pd.read_csv(path, skipinitialspace=True)
        table.columns = table.columns.str.strip()
        if "face_id" in table.columns:  # made for several faces: the first is the speaker's
            table = table[table["face_id"] == table["face_id"].min()]
        values, times, success = (table[names].to_numpy(np.float64) for names in (columns(), "timestamp", "success"))
    except KeyError as error:
        raise ClipError(
            f"the OpenFace table {path.name} lacks columns: {first_line(error)}; run FeatureExtraction without flags, or "
            f"with {' '.join(OUTPUTS)}"
        ) from None
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        raise ClipError(f"the OpenFace table {path.name} cannot be read: {first_line(error)}") from None
    if not len(values):
        raise ClipError(f"the OpenFace table {path.name} has no rows")
    if not np.isfinite(values).all() or not np.isfinite(times).all():
        raise ClipError(f"the OpenFace table {path.name} has missing or non-finite values; it may be truncated")
    return values, times, success > 0


def run_openface(program: Path, clip: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs FeatureExtraction on a clip, and reads its table. Its exit status means nothing. Raises ClipError."""
    with tempfile.TemporaryDirectory(prefix="openface-") as folder:
        command = [program, "-f", clip.resolve(), "-out_dir", folder, *OUTPUTS]
        # A file, as a pipe would stay open as long as any child process of the program runs.
        with open(Path(folder) / "log", "w+b") as log:
            try:
                process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            except OSError as error:
                raise UserError(
                    f"--openface2Path {program}: cannot run on this machine ({error.strerror}); rebuild it"
                ) from None
            log.seek(0)
            lines = log.read().decode(errors="replace").split("\n")
        tables = list(Path(folder).glob("*.csv"))
        if len(tables) != 1:
            last = next(filter(str.strip, reversed(lines)), "no output")
            raise ClipError(
                f"OpenFace wrote {len(tables)} tables, expected one (exit status {process.returncode}): {last}"
            )
        return read_table(tables[0])


def find_openface(path: Path) -> Path:
    """Returns the program at --openface2Path: the path itself or a file below it. Raises UserError if it cannot run."""
    names = ("", "FeatureExtraction", "bin/FeatureExtraction", "FeatureExtraction.exe")
    program = next((path / name for name in names if (path / name).is_file()), None)
    if program is None:
        raise UserError(
            f"--openface2Path {path}: no FeatureExtraction there; build OpenFace 2 and name its bin/FeatureExtraction, or use "
            "--vision mediapipe, which pip installs"
        )
    if not os.access(program, os.X_OK):
        raise UserError(f"--openface2Path {program}: is not executable (chmod +x)")
    return program.resolve()
