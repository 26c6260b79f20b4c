"""predict.py says which part of a clip it used, and scores parts of clips. The extractors here are fakes: a clip of 10 s."""

import json
import shutil

import numpy as np
import pytest

import predict
from data.extractors import ClipError, Extracted
from data.extractors.audio import LibrosaAudio
from data.extractors.vision import MediapipeFaces
from features import clips
from features.clips import TEXT

HOP = 512 / 22050  # seconds; the model was trained on 60 audio frames, 4 vision frames of 3 video frames, and 5 tokens
SUBTITLES = "1\n00:00:00,500 --> 00:00:01,500\nword1\n\n2\n00:00:04,000 --> 00:00:05,000\nword2 word3\n"


@pytest.fixture
def clip(monkeypatch, tmp_path):
    """Fakes what is read of a clip; the values depend on the part. Returns its file and the calls."""
    calls = []

    def read_audio(extractor, clip, longest=None):
        calls.append((clip.start, clip.end, longest))
        seconds = (clip.end or clip.seconds) - clip.start
        frames = np.full((min(1 + int(seconds / HOP), 2 * longest), 33), clip.start, np.float32)
        return Extracted(frames, seconds=seconds)

    def read_faces(extractor, clip, longest=None):
        seconds = (clip.end or clip.seconds) - clip.start
        frames = np.full((min(int(np.ceil(seconds * 10 / 3)), longest), 1434), clip.start, np.float32)
        return Extracted(frames, round(10 * seconds), round(10 * seconds), seconds=seconds, fps=10.0, faces=2)

    monkeypatch.setattr("data.extractors.Clip.seconds", 10, raising=False)
    monkeypatch.setattr(LibrosaAudio, "__call__", read_audio)
    monkeypatch.setattr(MediapipeFaces, "__call__", read_faces)
    return clips.write_clip(tmp_path / "clips" / "talk.mp4", None, seconds=1), calls


@pytest.fixture
def scored(checkpoint, capsys):
    """Calls predict.py. Returns the exit status, the rows (the printed table with `plain`) and stderr."""

    def call(*argv: object, plain: bool = False, folder=checkpoint):
        capsys.readouterr()
        flags = ["--checkpoint", folder, "--gpu_ids", -1, *argv, *([] if plain else ["--json"])]
        status = predict.main([str(word) for word in flags])
        captured = capsys.readouterr()
        return status, captured.out if plain else json.loads(captured.out or "[]"), captured.err

    return call


def test_what_was_cut_is_in_the_row_and_in_one_warning_of_each_kind(scored, clip):
    file, calls = clip
    status, (row,), stderr = scored(file, "--text", f"{TEXT} word4")
    assert status == 0 and calls == [(0.0, None, 60)]
    # Vision has the shorter part: 4 x 3 video frames at 10 per second.
    assert (row["seconds"], row["seconds_used"]) == (10, 1.2) and (row["tokens"], row["tokens_used"]) == (6, 5)
    assert (row["fps"], row["faces"], row["video_frames"], row["face_share"]) == (10, 2, 100, 1)
    assert "start" not in row
    warnings = stderr.splitlines()
    assert len(warnings) == 2 and all(line.startswith(f"warning: {file}: ") for line in warnings)
    assert "1.2 s of 10 s used; --segments 1.2" in warnings[0] and "5 of 6 tokens" in warnings[1]
    (file.parent / "more.mp4").write_bytes(file.read_bytes())
    for name in ("talk.txt", "more.txt"):
        (file.parent / name).write_text("word1")
    _, rows, stderr = scored(file.parent)
    assert len(rows) == 2 and stderr.count("\n") == 1 and "more.mp4" in stderr and "and 1 other clips" in stderr


def test_columns_that_say_nothing_are_not_printed(scored, clip, monkeypatch):
    file, _ = clip
    _, table, _ = scored(file, "--text", "word1", plain=True)
    header = table.splitlines()[1].split()
    assert {"seconds", "seconds_used", "tokens", "faces"} <= set(header)
    assert not {"tokens_used", "substituted", "start"} & set(header)
    monkeypatch.setattr("data.extractors.Clip.seconds", 1.2)
    _, table, stderr = scored(file, "--text", "word1", plain=True)
    assert "seconds_used" not in table and not stderr


def test_the_clips_text_is_doubted_if_it_cannot_be_spoken_in_time(scored, clip, monkeypatch):
    monkeypatch.setattr("data.extractors.Clip.seconds", 1.0)
    text = "word1 " * 25  # 27 tokens; at most 10 + 10 in a second
    assert "27 tokens cannot be spoken in 1 s" in scored(clip[0], "--text", text)[2]
    assert "cannot be spoken" not in scored(clip[0], "--text", "word1 " * 17)[2]


@pytest.mark.parametrize("usual, doubted", [(10.5, False), (25, True), (9.0, True), ("x", False), (None, False)])
def test_another_frame_rate_than_in_training_is_told(scored, clip, checkpoint, tmp_path, usual, doubted):
    shutil.copytree(checkpoint, folder := tmp_path / "altered")
    settings = json.loads((folder / "config.json").read_text())
    settings["trained_on"]["extractors"]["vision"]["fps"] = usual
    (folder / "config.json").write_text(json.dumps(settings))
    status, _, stderr = scored(clip[0], "--text", "word1", folder=folder)
    assert status == 0 and ("10 video frames per second, in training" in stderr) == doubted


def test_segments_are_the_lines_of_the_transcript(scored, clip):
    file, calls = clip
    file.with_suffix(".srt").write_text(f"{SUBTITLES}\n3\n00:00:06,000 --> 00:00:07,000\n♪\n")
    file.with_suffix(".txt").write_text("word9")  # has no times
    status, rows, stderr = scored(file, "--segments")
    assert status == 0 and [(row["start"], row["end"], row["tokens"]) for row in rows] == [(0.5, 1.5, 3), (4, 5, 4)]
    assert [call[:2] for call in calls] == [(0.5, 1.5), (4, 5)] and {row["clip"] for row in rows} == {str(file)}
    assert rows[0]["score"] != rows[1]["score"] and rows[0]["seconds"] == rows[0]["seconds_used"] == 1
    assert "1 of 3 segments have no words" in stderr and stderr.count("\n") == 1
    _, rows, stderr = scored(file, "--segments", "--allow_missing")
    assert [row["tokens"] for row in rows] == [3, 4, 2] and not stderr
    text = "[00:00.500 --> 00:01.500] word1\n[00:04.000 --> 00:05.000] word2 word3"
    assert [row["tokens"] for row in scored(file, "--segments", "--text", text)[1]] == [3, 4]


def test_segments_of_some_seconds_have_the_words_spoken_in_them(scored, clip):
    file, _ = clip
    file.with_suffix(".srt").write_text(SUBTITLES)
    _, rows, stderr = scored(file, "--segments", "1")  # the first line's middle is at 1 s, the second's at 4.5 s
    assert [(row["start"], row["end"], row["tokens"]) for row in rows] == [(1, 2, 3), (4, 5, 4)]
    assert "3 of 5 segments have no words" in stderr
    _, rows, _ = scored(file, "--segments", "2.5", "--allow_missing")
    assert [(row["start"], row["end"], row["tokens"]) for row in rows] == [(0, 2.5, 3), (2.5, 5, 4)]
    _, rows, _ = scored(file, "--segments", "3")
    assert [(row["start"], row["end"]) for row in rows] == [(0, 3), (3, 5)]  # up to the end of the last line


def test_a_segment_that_cannot_be_read_costs_no_other(scored, clip, monkeypatch):
    file, _ = clip
    file.with_suffix(".srt").write_text(SUBTITLES)
    read = LibrosaAudio.__call__

    def fail_at_the_start(extractor, clip, longest=None):
        if clip.start < 1:
            raise ClipError("damaged")
        return read(extractor, clip, longest)

    monkeypatch.setattr(LibrosaAudio, "__call__", fail_at_the_start)
    status, rows, stderr = scored(file, "--segments")
    assert status == 2 and [row["start"] for row in rows] == [4] and "from 0.5 to 1.5 s: damaged" in stderr


@pytest.mark.parametrize("cues", ["word1", "00:02 --> 00:01\nword1", "00:01 --> 00:01\nword1", ""])
def test_segments_without_times_are_refused(scored, clip, cues):
    clip[0].with_suffix(".txt").write_text(cues)
    status, rows, stderr = scored(clip[0], "--segments")
    assert status == 2 and not rows and stderr.count("error: ") == 1 and ".srt" in stderr
