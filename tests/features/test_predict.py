"""predict.py scores a clip as it scores the clip's row in a feature file, and rejects what the model cannot score."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import predict
from config.config_regression import REPOSITORY
from features.clips import ODD, TEXT

REAL = REPOSITORY.parent / "shared" / "data" / "clips"


@pytest.fixture
def scored(checkpoint, capsys):
    """Calls predict.py. Returns the exit status, the rows and stderr."""

    def call(*argv: object, folder=checkpoint) -> tuple[int, list[dict], str]:
        capsys.readouterr()
        status = predict.main([str(word) for word in ("--checkpoint", folder, "--json", "--gpu_ids", -1, *argv)])
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if captured.out else [], captured.err

    return call


def test_a_clip_scores_as_its_row_in_the_feature_file(scored, corpus, prepared):
    rows = {}
    for split in ("train", "test"):
        status, split_rows, _ = scored("--features", prepared, "--split", split)
        assert status == 0
        rows |= {row["id"]: row for row in split_rows}
    clips = {
        corpus / "Raw" / "007" / "0000.mp4": ("word0", "007$_$0000"),
        corpus / "Raw" / "007" / "0004.mp4": ("word4 " * 5, "007$_$0004"),  # its text is truncated
        corpus / "Raw" / ODD / f"{ODD}.mp4": (TEXT, f"{ODD}$_${ODD}"),
    }
    for file, (text, clip) in clips.items():
        status, (row,), stderr = scored(file, "--text", text)
        assert status == 0
        for key in ("score", "text_score", "audio_score", "vision_score"):
            assert row[key] == pytest.approx(rows[clip][key], abs=1e-5)
        assert row["class"] == rows[clip]["class"] and row["face_share"] == 1 and row["video_frames"] > 5
    assert rows["007$_$0000"]["label"] == 2.0
    assert len({round(row["score"], 4) for row in rows.values()}) > 3  # scores differ


def test_a_folder_of_clips_is_scored_with_the_transcripts_next_to_them(scored, corpus, tmp_path):
    for name in ("upright", "turned", "silent", "broken"):
        shutil.copy(corpus / "Raw" / "hard" / f"{name}.mp4", tmp_path)
    (tmp_path / "upright.txt").write_text(TEXT)
    (tmp_path / "turned.srt").write_text(
        "1\n00:00:00,000 --> 00:00:01,000\n<i>word1</i>\nword2\n\n2\n00:00:01,000 --> 00:00:02,000\nword3\n"
    )
    (tmp_path / "silent.txt").write_text(TEXT)
    status, rows, stderr = scored(tmp_path, "--csv", tmp_path / "out" / "scores.csv")
    assert status == 2 and [row["clip"].split("/")[-1] for row in rows] == ["turned.mp4", "upright.mp4"]
    assert rows[0]["text_score"] == pytest.approx(rows[1]["text_score"], abs=1e-6)
    lines = stderr.strip().split("\n")
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert "broken.mp4: no text" in lines[0] and "silent.mp4: no sound" in lines[1]
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table["score"].tolist() == pytest.approx([row["score"] for row in rows])


@pytest.mark.parametrize(
    "name, argv, reason",
    [
        ("silent", ["--text", TEXT], "no sound: one frame of zeros"),
        ("faceless", ["--text", TEXT], "no face in any of"),
        ("upright", [], "no text: read as an empty one"),
    ],
)
def test_a_missing_modality_is_an_error_unless_allowed(scored, corpus, name, argv, reason):
    clip = corpus / "Raw" / "hard" / f"{name}.mp4"
    status, rows, stderr = scored(clip, *argv)
    assert status == 2 and not rows and "--allow_missing" in stderr and stderr.count("\n") == 1
    status, (row,), stderr = scored(clip, *argv, "--allow_missing")
    assert status == 0 and "error" not in stderr and np.isfinite(row["score"]) and reason in row["substituted"]


def test_another_version_of_an_extractor_is_rejected(scored, altered, corpus):
    folder = altered(lambda facts: facts["extractors"]["audio"].update(version="0.1"))
    status, _, stderr = scored(corpus / "Raw" / "hard" / "upright.mp4", "--text", TEXT, folder=folder)
    assert status == 2 and "librosa version 0.1, not " in stderr


def test_features_of_another_extractor_are_rejected(scored, altered, prepared):
    folder = altered(lambda facts: facts["extractors"]["vision"]["settings"].update(pool=1))
    status, _, stderr = scored("--features", prepared, folder=folder)
    assert status == 2 and "mediapipe settings {'pool': 1, 'fps': None, 'no_face': 'keep'}, not {'pool': 3" in stderr


def test_a_model_whose_extractors_are_unknown_scores_no_clips(scored, altered, corpus):
    folder = altered(lambda facts: facts.pop("extractors"))
    status, _, stderr = scored(corpus / "Raw" / "hard" / "upright.mp4", "--text", TEXT, folder=folder)
    assert status == 2 and "--features" in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize(
    "extractors",
    [3, ["a"], {"audio": 1}, {"audio": {"settings": 1}}, {"audio": {"name": []}}, {"vision": {"name": "openface"}}],
)
def test_invalid_extractor_metadata_is_one_line(scored, altered, corpus, extractors):
    folder = altered(lambda facts: facts.update(extractors=extractors))
    status, _, stderr = scored(corpus / "Raw" / "hard" / "upright.mp4", "--text", TEXT, folder=folder)
    assert status == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1


def test_flags_of_another_extractor_are_rejected(scored, corpus, tmp_path):
    clip = corpus / "Raw" / "hard" / "upright.mp4"
    status, _, stderr = scored(clip, "--text", TEXT, "--openface_csv", tmp_path)
    assert status == 2 and "mediapipe" in stderr and "leave out" in stderr


def test_wrong_flags_are_one_line(scored, corpus, prepared, tmp_path):
    clip = corpus / "Raw" / "hard" / "upright.mp4"
    for argv in (
        [],
        [clip, "--features", prepared],
        [clip, clip, "--text", TEXT],
        [tmp_path],
        [tmp_path / "nowhere.mp4"],
        [clip, "--text_file", tmp_path / "nowhere.txt"],
        [clip, "--text", "a", "--text_file", "b"],
        ["--features", tmp_path / "nowhere.pkl"],
        [clip, "--text", "a", "--csv", tmp_path],
        [clip, "--text", "a", "--csv", clip],
        [clip, "--text", "a", "--split", "train"],
        [clip, "--text", "a", "--segments"],
        [clip, "--text", "00:00 --> 00:01 a", "--segments", "0.01"],
        [clip, "--text", "[0.00s -> 1.00s] a"],
        [clip, "--text", "NaN"],
        [clip, "--text", "a", "--face", "1"],
        ["--features", prepared, "--segments"],
        ["--features", prepared, "--jobs", 2],
        ["--features", prepared, "--text", "a"],
        ["--text", "a", "--jobs", 2],
        ["--text", "a", "--segments"],
        ["--text", ""],
        [clip, "--text", "a", "--jobs", 0],
        [clip, "--text", "a", "--datasetName", "sims"],
        [clip, "--text", "a", "--openface_csv", tmp_path, "--openface2Path", tmp_path],
    ):
        status, rows, stderr = scored(*argv)
        assert status == 2 and not rows and stderr.startswith("error: ") and stderr.count("\n") == 1, argv


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real clips in ../shared/data/clips")
def test_real_clips_are_scored(scored):
    status, (row,), _ = scored(REAL / "Oz06ZWiO20M_6.mp4", "--text", "word1 word2")
    # Of its 225 video frames at 30 per second, the model reads four times three.
    assert status == 0 and row["video_frames"] == 12 and row["face_share"] > 0.95 and np.isfinite(row["score"])
    assert row["seconds"] == pytest.approx(7.5, abs=0.1) and row["seconds_used"] == 0.4 and row["fps"] == 30
    status, rows, stderr = scored(REAL / "03bSnISJMiM_1.wav", "--text", "word1 word2")
    assert status == 2 and not rows and "no video frames" in stderr
    status, (row,), _ = scored(REAL / "03bSnISJMiM_1.wav", "--text", "word1 word2", "--allow_missing")
    assert status == 0 and "no video frames: one frame of zeros" in row["substituted"]
