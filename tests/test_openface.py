"""OpenFace tables: columns by name, frames without a face, pooling, frame rate."""

import time

import numpy as np
import pandas as pd
import pytest

from data.extractors import Clip, ClipError
from data.extractors.openface import columns, find_openface, read_table
from data.extractors.vision import OpenFace
from utils.errors import UserError

FAILED = [2, 5]
RANDOM = np.random.default_rng(0).normal(size=(8, 709))


def write(path, values=RANDOM, space="", face_id=True, **changes) -> Clip:
    """Writes a table as OpenFace does, at 10 video frames per second. space: before each name, as in older builds."""
    table = pd.DataFrame(values, columns=columns())
    table.insert(0, "frame", np.arange(1, len(values) + 1))
    if face_id:
        table.insert(1, "face_id", 0)
    table.insert(1, "timestamp", np.arange(len(values)) / 10)
    table.insert(2, "confidence", 0.98)
    table.insert(3, "success", [int(row not in FAILED) for row in range(len(values))])
    table = table.assign(**changes)
    table.columns = [space + name for name in table.columns]
    table.to_csv(path, index=False)
    return Clip(path, path)


def pooled(rows: np.ndarray, size: int = 3) -> np.ndarray:
    return np.stack([rows[start : start + size].mean(axis=0) for start in range(0, len(rows), size)])


def test_there_are_709_columns_in_openfaces_order():
    names = columns()
    assert len(names) == len(set(names)) == 709
    assert names[:8] == [*(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"), "gaze_angle_x", "gaze_angle_y"]
    assert (names[8], names[287], names[288]) == ("eye_lmk_x_0", "eye_lmk_Z_55", "pose_Tx")
    assert names[294] == "x_0" and names[430] == "X_0" and names[634] == "p_scale" and names[673] == "p_33"
    assert names[674] == "AU01_r" and names[691] == "AU01_c" and names[-2:] == ["AU28_c", "AU45_c"]


def test_groups_of_three_frames_are_averaged_and_the_last_may_be_smaller(tmp_path):
    extracted = OpenFace()(write(tmp_path / "a.csv"))
    assert extracted.frames.dtype == np.float32
    assert np.allclose(extracted.frames, pooled(RANDOM), atol=1e-6)  # failed frames' as released, stale values count
    assert (extracted.video_frames, extracted.frames_with_face) == (8, 6)


def test_headers_of_old_builds_give_the_same_features(tmp_path):
    new, old = (OpenFace()(write(tmp_path / f"{space}.csv", space=space, face_id=not space)) for space in ("", " "))
    assert np.array_equal(new.frames, old.frames)


def test_columns_are_found_by_name(tmp_path):
    clip = write(tmp_path / "a.csv")
    expected = OpenFace()(clip).frames
    table = pd.read_csv(tmp_path / "a.csv")
    table[table.columns[::-1]].assign(another=1).to_csv(tmp_path / "a.csv", index=False)
    assert np.array_equal(OpenFace()(clip).frames, expected)


def test_frames_without_a_face_can_be_zeros_or_skipped(tmp_path):
    clip = write(tmp_path / "a.csv")
    zeroed = RANDOM.copy()
    zeroed[FAILED] = 0
    assert np.allclose(OpenFace(no_face="zero")(clip).frames, pooled(zeroed), atol=1e-6)
    assert np.allclose(OpenFace(no_face="skip")(clip).frames, pooled(np.delete(RANDOM, FAILED, axis=0)), atol=1e-6)


def test_fps_takes_the_first_row_of_each_slot(tmp_path):
    extracted = OpenFace(fps=5, pool=1)(write(tmp_path / "a.csv"))
    assert np.allclose(extracted.frames, RANDOM[::2], atol=1e-6)


def test_a_table_without_any_face_counts_as_missing(tmp_path):
    extracted = OpenFace()(write(tmp_path / "a.csv", success=0))
    assert extracted.missing == "no face in any of 8 video frames" and extracted.frames.shape == (1, 709)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"frame, timestamp\n1, 0\n", b"\xff\xfe\n", b'"a'])
def test_files_that_are_not_tables_are_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ClipError, match="the OpenFace table .*a.csv"):
        read_table(tmp_path / "a.csv")


def test_truncated_empty_and_absent_tables_are_refused(tmp_path):
    write(tmp_path / "a.csv")
    whole = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "a.csv").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ClipError, match="a.csv .*non-finite"):
        read_table(tmp_path / "a.csv")
    write(tmp_path / "a.csv", values=RANDOM[:0])
    with pytest.raises(ClipError, match="a.csv .*no rows"):
        read_table(tmp_path / "a.csv")
    with pytest.raises(ClipError, match="b.csv .*No such file"):
        read_table(tmp_path / "b.csv")


def test_the_program_is_found_in_its_folder_or_refused(tmp_path):
    program = tmp_path / "bin" / "FeatureExtraction"
    program.parent.mkdir()
    with pytest.raises(UserError, match="no executable FeatureExtraction"):
        find_openface(tmp_path)
    program.touch(0o755)
    assert find_openface(tmp_path) == find_openface(program.parent) == find_openface(program) == program
    program.chmod(0o644)
    with pytest.raises(UserError, match="chmod"):
        find_openface(program)


@pytest.mark.parametrize("content", [b"\x7fELF nonsense", b"#!/no/such/interpreter\n"])
def test_a_program_that_cannot_run_is_a_user_error(tmp_path, content):
    program = tmp_path / "FeatureExtraction"
    program.write_bytes(content)
    program.chmod(0o755)
    with pytest.raises(UserError, match="--openface2Path .*FeatureExtraction: cannot run"):
        OpenFace(program=program)(Clip(tmp_path / "clip.mp4"))


def test_background_children_of_the_program_are_not_waited_for(tmp_path):
    program = tmp_path / "FeatureExtraction"
    program.write_text("#!/bin/sh\nsleep 20 &\necho no licence\n")
    program.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(ClipError, match="wrote 0 tables.*no licence"):
        OpenFace(program=program)(Clip(tmp_path / "clip.mp4"))
    assert time.monotonic() - began < 10
