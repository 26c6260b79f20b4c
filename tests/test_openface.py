"""OpenFace tables: columns by name, frames without a face, pooling, frame rate."""

import time

import numpy as np
import pandas as pd
import pytest

from data.extractors import Clip, ClipError, vision
from data.extractors.media import Facts
from data.extractors.openface import columns, find_openface, read_table
from data.extractors.vision import OpenFace
from utils.errors import UserError

FAILED = [2, 5]
RANDOM = np.random.default_rng(0).normal(size=(8, 709))


@pytest.fixture(autouse=True)
def says(monkeypatch):
    """Sets what the clip's file says about itself; by default nothing. PyAV is not installed here."""

    def say(facts: Facts) -> None:
        monkeypatch.setattr(vision, "read_facts", lambda _: facts)

    say(Facts())
    return say


def write(path, values=RANDOM, space="", face_id=0, **changes) -> Clip:
    """Writes a table as OpenFace does, at 10 video frames per second. space: before each name, as in older builds."""
    table = pd.DataFrame(values, columns=columns())
    table.insert(0, "frame", np.arange(1, len(values) + 1))
    if face_id is not None:
        table.insert(1, "face_id", face_id)
    table.insert(1, "timestamp", np.arange(len(values)) / 10)
    table.insert(2, "confidence", 0.98)
    table.insert(3, "success", [int(row not in FAILED) for row in range(len(values))])
    table = table.assign(**changes)
    table.columns = [space + name for name in table.columns]
    table.to_csv(path, index=False)
    return Clip(path, path)


def pooled(rows: np.ndarray, size: int = 3) -> np.ndarray:
    return np.stack([rows[start : start + size].mean(axis=0) for start in range(0, len(rows), size)])


def kept(rows: np.ndarray) -> np.ndarray:
    """Failed rows repeat the row before them."""
    rows = rows.copy()
    for row in FAILED:
        rows[row] = rows[row - 1]
    return rows


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
    assert np.allclose(extracted.frames, pooled(kept(RANDOM)), atol=1e-6)
    assert (extracted.video_frames, extracted.frames_with_face) == (8, 6)


def test_headers_of_old_builds_give_the_same_features(tmp_path):
    new, old = (
        OpenFace()(write(tmp_path / f"{space}.csv", space=space, face_id=None if space else 0)) for space in ("", " ")
    )
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
    assert np.allclose(OpenFace(no_face="released")(clip).frames, pooled(RANDOM), atol=1e-6)


def test_frames_before_the_first_face_are_zeros_unless_as_released(tmp_path):
    values = RANDOM.copy()
    values[:2] = 2e7  # OpenFace leaves garbage there
    clip = write(tmp_path / "a.csv", values, success=[0, 0, 1, 1, 1, 1, 1, 1])
    assert not OpenFace(pool=2)(clip).frames[0].any()
    assert np.all(OpenFace(pool=2, no_face="released")(clip).frames[0] == 2e7)


def test_values_that_are_no_numbers_matter_only_where_a_face_was_tracked(tmp_path):
    clip = write(tmp_path / "a.csv", AU01_r=[1, 1, "-nan(ind)", 1, 1, "inf", 1, 1])
    assert np.isfinite(OpenFace()(clip).frames).all()
    released = OpenFace(no_face="released", pool=1)(clip).frames[:, columns().index("AU01_r")]
    assert released.tolist() == [1, 1, 0, 1, 1, 0, 1, 1]
    write(tmp_path / "a.csv", AU01_r=[1, 1, 1, 1, "nan", 1, 1, 1])
    with pytest.raises(ClipError, match="a.csv .*video frame 5"):
        OpenFace()(clip)


def test_of_several_faces_each_video_frame_has_the_most_confident(tmp_path):
    values = np.repeat(np.arange(6.0), 709).reshape(6, 709)
    clip = write(
        tmp_path / "a.csv",
        values,
        frame=[1, 1, 2, 2, 3, 3],
        timestamp=[0, 0, 0.1, 0.1, 0.2, 0.2],
        face_id=[0, 1] * 3,
        confidence=[0.9, 0.8, 0.7, 0.8, 0.99, 0.6],
        success=[1, 1, 1, 1, 0, 1],
    )
    both = OpenFace(pool=1)(clip)
    assert both.frames[:, 0].tolist() == [0, 3, 5] and (both.video_frames, both.faces) == (3, 2)
    assert OpenFace(pool=1, face=0)(clip).frames[:, 0].tolist() == [0, 2, 2]  # it fails in the last video frame
    assert OpenFace(pool=1, face=1)(clip).frames[:, 0].tolist() == [1, 3, 5]
    assert OpenFace(face=4, no_face="released")(clip).missing == "no face 4 in any of 3 video frames"


def test_a_table_of_another_clip_is_refused(tmp_path, says):
    clip = write(tmp_path / "a.csv")  # 8 video frames, to second 0.7
    for facts in (Facts(0.8, 0.8, 10, 8), Facts(0.8, 0.8, 10), Facts(1.0, 1.0), Facts(0.8, 0.8, 10, 30)):
        says(facts)  # 30: of a file whose edit list hides most frames
        OpenFace()(clip)
    for facts in (Facts(2, 2, 10, 20), Facts(0.8, 0.8, 30), Facts(7.5, 7.5), Facts(0.3, 0.3, 10, 3)):
        says(facts)
        with pytest.raises(ClipError, match="rows for .* of the clip's"):
            OpenFace()(clip)


def test_a_part_of_a_table_is_read(tmp_path):
    whole = write(tmp_path / "a.csv", success=1)
    part = Clip(whole.file, whole.openface_csv, 0.2, 0.6)
    assert np.allclose(OpenFace(pool=1)(part).frames, RANDOM[2:6], atol=1e-6)
    assert np.allclose(OpenFace(pool=2)(whole, longest=3).frames, pooled(RANDOM[:6], 2), atol=1e-6)
    failing = write(tmp_path / "a.csv")
    assert len(OpenFace(pool=2, no_face="skip")(failing, longest=2).frames) == 2


def test_fps_takes_the_first_row_of_each_slot(tmp_path):
    extracted = OpenFace(fps=5, pool=1)(write(tmp_path / "a.csv"))
    assert np.allclose(extracted.frames, RANDOM[[0, 0, 4, 6]], atol=1e-6)  # the second fails


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
    (tmp_path / "a.csv").write_bytes(whole[: len(whole) * 3 // 5])
    with pytest.raises(ClipError, match="a.csv .*video frame"):
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
