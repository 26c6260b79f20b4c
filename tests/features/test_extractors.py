"""Audio features against the released recipe, MediaPipe on real decoding, and OpenFace as a stand-in script."""

import contextlib
import os
import pickle
import re
import shutil
import stat
import sys
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.extractors import Clip, ClipError
from data.extractors.audio import LibrosaAudio
from data.extractors.media import read_sound, read_video_frames
from data.extractors.openface import columns
from data.extractors.vision import MediapipeFaces
from features import clips
from features.clips import data_pre


def write_wav(file: Path, samples: np.ndarray, rate: int) -> Path:
    """samples: (frames, channels) int16."""
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file


@pytest.mark.parametrize("rate, channels", [(22050, 1), (44100, 2), (16000, 1)])
def test_audio_features_match_the_released_recipe(tmp_path, rate, channels):
    import librosa

    random = np.random.default_rng(rate)
    time = np.arange(2 * rate) / rate
    tone = 8000 * np.sin(2 * np.pi * 220 * time * (1 + 0.1 * time)) + random.normal(0, 500, len(time))
    samples = np.stack([tone, tone[::-1]][:channels], axis=1).astype(np.int16)
    file = write_wav(tmp_path / "a.wav", samples, rate)

    signal, sample_rate = librosa.load(file)  # resampled to 22,050 Hz, one channel
    assert sample_rate == 22050
    crossings = librosa.feature.zero_crossing_rate(signal, hop_length=512)
    mfcc = librosa.feature.mfcc(y=signal, sr=sample_rate, hop_length=512, htk=True)
    chroma = librosa.feature.chroma_cqt(y=signal, sr=sample_rate, hop_length=512)
    expected = np.concatenate([crossings, mfcc, chroma]).T

    frames = LibrosaAudio()(Clip(file)).frames
    assert frames.shape == expected.shape == (1 + len(signal) // 512, 33)
    assert np.abs(frames - expected).max() < 1e-5


def test_a_few_samples_give_a_frame(tmp_path):
    for samples in (2, 300, 2205):
        file = write_wav(tmp_path / "a.wav", np.arange(samples, dtype=np.int16)[:, None] * 9, 22050)
        frames = LibrosaAudio()(Clip(file)).frames
        assert frames.shape == (1 + samples // 512, 33) and np.isfinite(frames).all()


def test_an_empty_audio_track_counts_as_missing(tmp_path):
    file = write_wav(tmp_path / "a.wav", np.zeros((0, 1), np.int16), 22050)
    assert read_sound(Clip(file))[0].size == 0
    assert LibrosaAudio()(Clip(file)).missing == "no sound"


def test_files_that_are_not_clips_are_refused(tmp_path):
    file = tmp_path / "a.mp4"
    for content in (b"", b"text", bytes(range(256)) * 40):
        file.write_bytes(content)
        for extractor in (LibrosaAudio(), MediapipeFaces()):
            with pytest.raises(ClipError, match="cannot be decoded"):
                extractor(Clip(file))


def test_fps_takes_the_first_video_frame_of_each_slot(corpus):
    file = corpus / "Raw" / "hard" / "faceless.mp4"
    every_frame = list(read_video_frames(Clip(file)))
    every_second = list(read_video_frames(Clip(file), fps=clips.FPS / 2))
    assert len(every_second) == (len(every_frame) + 1) // 2
    assert all(map(np.array_equal, every_second, every_frame[::2]))


def test_the_same_clip_gives_the_same_landmarks(corpus):
    clip = Clip(corpus / "Raw" / "hard" / "upright.mp4")
    extract = MediapipeFaces(pool=2)
    first, second = extract(clip), extract(clip)
    assert np.array_equal(first.frames, second.frames) and first.frames_with_face == first.video_frames


def test_cover_art_is_not_a_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width = stream.height = clips.SIZE
        stream.pix_fmt = "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        container.mux(stream.encode(av.VideoFrame.from_ndarray(clips.face(0), format="rgb24")))
        container.mux(stream.encode())
    assert not list(read_video_frames(Clip(tmp_path / "a.mp4")))
    assert MediapipeFaces()(Clip(tmp_path / "a.mp4")).missing == "no video frames"


def test_a_sample_rate_that_librosa_rejects_is_refused(tmp_path):
    file = write_wav(tmp_path / "a.wav", np.arange(4000, dtype=np.int16)[:, None], 22050)
    with pytest.raises(ClipError, match="sample_rate=8000"):
        LibrosaAudio(sample_rate=8000)(Clip(file))


# Stands in for OpenFace 2, which cannot be shipped. Writes the documented table, with values that depend on the clip's
# size, one row per video frame; the third fails. Like OpenFace, it fails with status 0 and can succeed with another.
STAND_IN = """#!{python}
import av, csv, os, sys
names = [f"gaze_{{eye}}_{{axis}}" for eye in "01" for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
for prefix, marks in (("eye_lmk_", 56), ("", 68)):
    axes = [f"{{prefix}}{{axis}}_{{mark}}" for axis in "xyXYZ" for mark in range(marks)]
    names += axes + ([f"pose_{{kind}}{{axis}}" for kind in "TR" for axis in "xyz"] if prefix else [])
names += ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty", *(f"p_{{mode}}" for mode in range(34))]
units = "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26".split()
names += [f"AU{{unit}}_r" for unit in [*units, "45"]] + [f"AU{{unit}}_c" for unit in [*units, "28", "45"]]
argv = sys.argv[1:]
clip, folder = argv[argv.index("-f") + 1], argv[argv.index("-out_dir") + 1]
assert {{"-2Dfp", "-3Dfp", "-pdmparams", "-pose", "-aus", "-gaze"}} <= set(argv)
size = os.path.getsize(clip)
if "{fails}" and os.path.basename(clip) == "{fails}":
    print("Could not open the video")
    sys.exit(0)
name = os.path.splitext(os.path.basename(clip))[0]
with open(os.path.join(folder, name + ".csv"), "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["frame", "face_id", "timestamp", "confidence", "success", *names])
    with av.open(clip) as video:
        frames = video.streams.video[0].frames
    for row in range(frames):
        table.writerow([row + 1, 0, row / 10, 0.9, int(row != 2), *(f"{{(size + row * 709 + column) % 997}}" for column in range(709))])
sys.exit(1)
"""


@pytest.fixture
def openface(tmp_path) -> Path:
    program = tmp_path / "Open Face" / "FeatureExtraction"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, fails="0003.mp4"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_openface_runs_on_clips_of_any_name(corpus, openface, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "own"
    odd = f"{clips.ODD}.mp4"
    shutil.copytree(corpus / "bert", folder / "bert")
    shutil.copytree(corpus / "Raw" / "007", folder / "Raw" / "-7")
    shutil.copy(corpus / "Raw" / clips.ODD / odd, folder / "Raw" / "-7" / odd)
    names = [
        ("0000", 1, "train"),
        (clips.ODD, -1, "train"),
        ("0001", 1, "valid"),
        ("0002", 1, "test"),
        ("0003", 1, "test"),
    ]
    clips.write_table(folder, [("-7", name, "word1", label, mode) for name, label, mode in names])
    assert data_pre(folder, "--vision", "openface", "--openface2Path", openface.parent) == 2
    content = pickle.loads((folder / "Processed" / "features.pkl").read_bytes())
    assert "Could not open the video" in (folder / "Processed" / "errors.csv").read_text()
    assert content["test"]["id"].tolist() == ["-7$_$0002"]
    assert content["extractors"]["vision"]["name"] == "openface" and content["train"]["vision"].shape[2] == 709

    def values(name: str) -> np.ndarray:
        file = folder / "Raw" / "-7" / f"{name}.mp4"
        rows = np.arange(len(list(read_video_frames(Clip(file)))))
        return (os.path.getsize(file) + rows[:, None] * 709 + np.arange(709)) % 997

    rows = values(clips.ODD)
    rows[2] = rows[1]
    expected = np.stack([rows[start : start + 3].mean(axis=0) for start in range(0, len(rows), 3)])
    assert content["train"]["vision_lengths"][1] == len(expected)
    assert np.allclose(content["train"]["vision"][1][: len(expected)], expected, rtol=1e-6)

    # Existing tables give the same features, and predictions from either agree.
    tables = folder / "OpenFace" / "-7"
    tables.mkdir(parents=True)
    for name in [name for name, *_ in names if name != "0003"]:
        table = pd.DataFrame(values(name), columns=columns())
        table.insert(0, " timestamp", np.arange(len(table)) / 10)
        table.insert(1, " success", (np.arange(len(table)) != 2).astype(int))
        table.to_csv(tables / f"{name}.csv", index=False)
    again = folder / "again.pkl"
    assert data_pre(folder, "--vision", "openface-csv", "--output", again) == 2
    assert np.array_equal(pickle.loads(again.read_bytes())["train"]["vision"], content["train"]["vision"])
    shutil.copytree(folder / "Processed" / "features.pkl.cache", folder / "third.pkl.cache")
    capsys.readouterr()
    data_pre(folder, "--vision", "openface-csv", "--output", folder / "third.pkl")
    report = capsys.readouterr().out
    audio, vision = (re.search(f"  {modality}: .*", report)[0] for modality in ("audio", "vision"))
    assert "extracted in" in vision and "extracted in" not in audio  # audio does not depend on OpenFace

    import predict
    import run

    with contextlib.chdir(folder):
        flags = ["--dataPath", again, "--bert", folder / "bert", "--seeds", 1, "--max_epochs", 1, "--gpu_ids", -1]
        flags += ["--no_figures", "--set", "keep_last_window=True"]  # there are few clips
        assert run.main([str(flag) for flag in flags]) == 0
    scores = []
    for way in (["--openface2Path", openface], ["--openface_csv", tables], ["--openface_csv", tables / "0002.csv"]):
        capsys.readouterr()
        call = [folder / "Raw" / "-7" / "0002.mp4", "--text", "word1", "--csv", folder / "scores.csv", *way]
        checkpoint = next(path for path in folder.glob("results/models/*") if path.is_dir())
        assert predict.main([str(word) for word in ("--checkpoint", checkpoint, *call)]) == 0
        row = pd.read_csv(folder / "scores.csv").iloc[0]
        assert row["video_frames"] > 7 and row["face_share"] == pytest.approx(1 - 1 / row["video_frames"], abs=1e-4)
        scores.append(row["score"])
    assert scores[0] == scores[1] == scores[2]
