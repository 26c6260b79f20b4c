"""DataPre.py: good clips are in the feature file, bad ones in the error list, and a stopped run resumes."""

import csv
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from config.config_regression import DATASETS, REPOSITORY
from data.builders import prepare
from data.schema import read_feature_file
from features import clips
from features.clips import ODD, data_pre


@pytest.fixture
def content(prepared) -> dict:
    return pickle.loads(prepared.read_bytes())


def rows_of(content: dict) -> dict[str, dict]:
    """Clip id -> its arrays."""
    splits = [content[name] for name in ("train", "valid", "test")]
    return {
        str(clip): {key: split[key][row] for key in split} for split in splits for row, clip in enumerate(split["id"])
    }


def test_good_clips_are_in_the_file_whatever_their_names(content):
    expected = {f"007$_$000{number}" for number in range(5)} | {f"{ODD}$_${ODD}"}
    assert set(rows_of(content)) == expected | {"hard$_$turned", "hard$_$upright", "hard$_$short"}


def test_bad_clips_are_listed_with_the_reason(prepared):
    with open(prepared.with_name("errors.csv"), newline="") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {f"hard$_${name}" for name in ("silent", "faceless", "broken", "nowhere", "unlabelled")}
    assert "no sound" in reasons["hard$_$silent"]
    assert "no face in any of" in reasons["hard$_$faceless"] and "--allow_missing" in reasons["hard$_$faceless"]
    assert "cannot be decoded" in reasons["hard$_$broken"]
    assert "no file" in reasons["hard$_$nowhere"] and "label" in reasons["hard$_$unlabelled"]


def test_the_file_has_the_official_layout(prepared, content):
    file = read_feature_file(prepared, DATASETS["mosi"], aligned=False)
    train = content["train"]
    assert train["text_bert"].shape == (6, 3, 5) and train["text"].shape == (6, 5, 16)
    assert train["audio"].shape == (6, 60, 33) and train["vision"].shape == (6, 4, 478 * 3)
    assert all(array.dtype == np.float32 for array in (train["text"], train["audio"], train["vision"]))
    assert file.extractors["audio"]["settings"] == {"sample_rate": 22050, "hop_length": 512}
    assert {key: facts["length"] for key, facts in file.extractors.items()} == {"text": 5, "audio": 60, "vision": 4}
    assert file.extractors["vision"]["fps"] == clips.FPS
    assert file.extractors["vision"]["name"] == "mediapipe" and file.extractors["vision"]["width"] == 478 * 3


def test_long_texts_keep_their_last_token(content):
    tokens = rows_of(content)["007$_$0004"]["text_bert"]
    assert tokens[0].tolist() == [2, 9, 9, 9, 3] and tokens[1].all()


def test_a_clip_recorded_sideways_is_rotated(content):
    turned, upright = (rows_of(content)[f"hard$_${name}"]["vision"] for name in ("turned", "upright"))
    assert np.abs(turned - upright).max() < 0.02  # of the video frame's width
    marks = upright[0].reshape(478, 3)
    assert marks[10, 1] < marks[152, 1]  # the forehead is above the chin


def test_a_tenth_of_a_second_is_enough(content):
    short = rows_of(content)["hard$_$short"]
    assert 5 <= short["audio_lengths"] < 12 and short["vision_lengths"] == 1  # AAC pads its last frames
    assert np.isfinite(short["audio"]).all()


def test_missing_features_can_be_zeros_and_nothing_is_extracted_twice(corpus, prepared, content, tmp_path, capsys):
    shutil.copytree(prepared.with_name("features.pkl.cache"), cache := tmp_path / "other.pkl.cache")
    damaged = min(cache.glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    output, began = tmp_path / "other.pkl", time.time()
    assert data_pre(corpus, "--allow_missing", "--output", output) == 2  # two clips are still broken
    report = capsys.readouterr().out
    assert "1 clips with zeros: no sound" in report and "1 clips with zeros: no face" in report
    rows = rows_of(pickle.loads(output.read_bytes()))
    assert rows["hard$_$silent"]["audio_lengths"] == 1 and not rows["hard$_$silent"]["audio"].any()
    assert rows["hard$_$faceless"]["vision_lengths"] == 1 and rows["hard$_$faceless"]["audio"].any()
    extracted = {file.name for file in cache.glob("*.npz") if file.stat().st_mtime > began}
    assert damaged.name in extracted and len(extracted) == 2  # the other is the silent clip's vision
    long, cut = rows["007$_$0000"]["audio"], rows_of(content)["007$_$0000"]["audio"]
    assert long.shape[0] > 60 and np.array_equal(long[:60], cut)


def test_a_killed_run_resumes_from_its_cache(corpus, tmp_path):
    labels = [(1, "train"), (-1, "train"), (1, "valid"), (1, "test")] * 3  # enough to be still running at the kill
    rows = [("007", f"{number}", f"word{number}", *label) for number, label in enumerate(labels)]
    (tmp_path / "Raw" / "007").mkdir(parents=True)
    for number in range(len(labels)):
        kind = (".mp4", ".MP4")[number % 2]  # some cameras write upper case
        shutil.copy(corpus / "Raw" / "007" / "0000.mp4", tmp_path / "Raw" / "007" / f"{number}{kind}")
    shutil.copytree(corpus / "bert", tmp_path / "bert")
    clips.write_table(tmp_path, rows)
    flags = ["--data_dir", tmp_path, "--language", "en", "--bert", tmp_path / "bert", "--vision", "mediapipe"]
    command = [sys.executable, REPOSITORY / "data" / "DataPre.py", *flags]
    cache = tmp_path / "Processed" / "features.pkl.cache"

    def cached() -> dict:
        return {file.name: file.stat().st_mtime_ns for file in cache.glob("*.npz")}

    process = subprocess.Popen(command, cwd=tmp_path)
    while len(cached()) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.5)  # until its worker has noticed
    before = cached()
    assert len(before) >= 4 and not (tmp_path / "Processed" / "features.pkl").exists()
    assert data_pre(tmp_path) == 0
    after = cached()
    assert len(after) == 24 and before.items() <= after.items()
    assert len(pickle.loads((tmp_path / "Processed" / "features.pkl").read_bytes())["train"]["id"]) == 6


def test_a_signal_prints_the_command_that_resumes(corpus, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(prepare, "run_isolated", interrupted)
    assert data_pre(corpus, "--output", tmp_path / "new.pkl") == 143
    assert "stopped by SIGTERM; the same command resumes: python data/DataPre.py --data_dir" in capsys.readouterr().err
    assert not (tmp_path / "new.pkl").exists()


def test_run_py_trains_on_the_file(checkpoint):
    assert (checkpoint / "model.safetensors").exists()
