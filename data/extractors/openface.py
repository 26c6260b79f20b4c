"""Runs OpenFace 2's FeatureExtraction, which users build themselves, and reads the tables it writes."""

import functools
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


def read_table(path: Path, face: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Reads OpenFace's table of a clip. Raises ClipError.

    face: the face_id to take; None: in each video frame the tracked face of the highest confidence. Returns the values
    (video frames, 709) and times (video frames,) in seconds, float64, whether each video frame has the face, and how many
    face ids were tracked. Finds columns by name: builds differ in the columns before the features, and in spaces.
    """
    try:
        used = {"timestamp", "success", "face_id", "confidence", *columns()}
        table = pd.read_csv(path, skipinitialspace=True, usecols=lambda name: name.strip() in used)
        table = table.rename(columns=str.strip).apply(pd.to_numeric, errors="coerce")  # texts such as -nan(ind)
        table = pd.DataFrame({"face_id": 0, "confidence": 1.0} | dict(table))
        times = np.sort(table["timestamp"].unique())
        faces = table["face_id"][table["success"] > 0].nunique()
        if face is not None:
            table = table[table["face_id"] == face]
        best = table.sort_values(["success", "confidence"], ascending=False, kind="stable").drop_duplicates("timestamp")
        best = best.set_index("timestamp").reindex(times)
        has_face, values = best["success"].to_numpy() > 0, best[columns()].to_numpy(np.float64)
        # OpenFace itself writes non-finite values where it fails.
        values = np.where(has_face[:, None] | np.isfinite(values), values, 0)
        if not len(values):
            raise ValueError("no rows")
        if (bad := ~np.isfinite(np.column_stack([values, times])).all(axis=1)).any():
            raise ValueError(f"video frame {bad.argmax() + 1} has missing or non-finite values, but not success 0")
    except (OSError, KeyError, ValueError, TypeError) as error:  # pandas' errors are ValueErrors
        mend = f"run FeatureExtraction on the clip again, without flags or with {' '.join(OUTPUTS)}"
        raise ClipError(f"the OpenFace table {path} cannot be used ({first_line(error)}); {mend}") from None
    return values, times, has_face, faces


@functools.lru_cache(maxsize=1)  # for the parts of one clip
def run_openface(program: Path, clip: Path, face: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Runs FeatureExtraction on a clip and reads its table. Raises ClipError. The program's exit status means nothing."""
    # A pipe, unlike a file, would stay open as long as any child process of the program runs.
    with tempfile.TemporaryDirectory(prefix="openface-") as folder, tempfile.TemporaryFile() as log:
        command = [program, "-f", clip.resolve(), "-out_dir", folder, *OUTPUTS]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except OSError as error:
            raise UserError(f"--openface2Path {program}: cannot run here ({error.strerror}); rebuild it") from None
        if len(tables := list(Path(folder).glob("*.csv"))) != 1:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no output"]
            raise ClipError(f"OpenFace wrote {len(tables)} tables, expected one: {first_line(lines[-1])}")
        return read_table(tables[0], face)


def find_openface(path: Path) -> Path:
    """Returns the program at --openface2Path: the path itself or a file below it. Raises UserError if there is none."""
    for name in ("", "FeatureExtraction", "bin/FeatureExtraction"):
        if program := shutil.which(path.resolve() / name):
            return Path(program)
    mend = "build OpenFace 2 (or chmod +x the file), or use --vision mediapipe"
    raise UserError(f"--openface2Path {path}: no executable FeatureExtraction there; {mend}")
