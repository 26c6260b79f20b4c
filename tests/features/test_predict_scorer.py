"""Scorer, predict.py's Python API, which predict.py uses itself; texts without a clip; clips read by worker processes."""

import importlib
import itertools
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import predict
import utils.progress
from data.extractors import ClipError, Extracted
from features.clips import TEXT
from predict import Scorer
from utils.errors import UserError

CPU = [-1]  # gpu_ids


@dataclass(frozen=True)
class FakeExtractor:
    """Frames that depend on the clip's name. Reading crash.mp4 kills the process; the first clip takes longest."""

    width: int
    sample_rate, hop_length, pool, fps = 22050, 512, 3, None

    def __call__(self, clip, longest=None) -> Extracted:
        if clip.file.stem == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3 * (clip.file.stem == "1"))
        return Extracted(np.full((2, self.width), int(clip.file.stem), np.float32), seconds=1.0)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Three clips with transcripts, for FakeExtractor."""
    monkeypatch.setattr(
        "trains.runs.clip_scorer._rebuild",
        lambda trained, modality: FakeExtractor(trained.extractors[modality]["width"]),
    )
    for name in "123":
        (tmp_path / f"{name}.mp4").touch()
        (tmp_path / f"{name}.txt").write_text(f"word{name}")
    return tmp_path


def printed(capsys, checkpoint, *argv: object) -> tuple[int, str, str]:
    """Calls predict.py. Returns the exit status, stdout and stderr."""
    capsys.readouterr()
    status = predict.main([str(word) for word in ("--checkpoint", checkpoint, "--gpu_ids", -1, *argv)])
    return status, *capsys.readouterr()


def test_a_scorer_returns_what_predict_prints_and_loads_the_model_once(checkpoint, corpus, prepared, tmp_path, capsys):
    scorer = Scorer(str(shutil.copytree(checkpoint, tmp_path / "model")), gpu_ids=CPU)
    shutil.rmtree(tmp_path / "model")
    clip = corpus / "Raw" / "hard" / "upright.mp4"
    for text in (TEXT, "word4"):
        rows = json.loads(printed(capsys, checkpoint, clip, "--text", text, "--json")[1])
        assert [scorer.score(str(clip), text=text)] == rows
    _, output, _ = printed(capsys, checkpoint, "--features", prepared, "--split", "train", "--json")
    assert scorer.score_file(str(prepared), split="train") == json.loads(output)


def test_a_scorer_raises_one_line_for_what_it_cannot_score(checkpoint, corpus):
    scorer, hard = Scorer(checkpoint, gpu_ids=CPU), corpus / "Raw" / "hard"
    for clip, reason in (
        (hard / "nowhere.mp4", "no such file"),
        (hard, "no such file"),
        (hard / "silent.mp4", "no sound"),
    ):
        with pytest.raises(ClipError, match=f"{clip}: {reason}"):
            scorer.score(clip, text=TEXT)
    assert "no sound" in scorer.score(hard / "silent.mp4", TEXT, allow_missing=True)["substituted"]
    for wrong in ({"allow_missng": True}, {"segments": 5}):
        with pytest.raises(TypeError):
            scorer.score(hard / "silent.mp4", TEXT, **wrong)
    with pytest.raises(UserError, match="nowhere"):
        scorer.score(hard / "silent.mp4", hard / "nowhere.txt")
    with pytest.raises(UserError, match="nowhere"):
        Scorer(hard / "nowhere")


def test_scores_are_float32_as_it_is_written(checkpoint, prepared):
    for row in Scorer(checkpoint, gpu_ids=CPU).score_file(prepared, "train"):
        for name in ("score", "text_score", "audio_score", "vision_score", "label"):
            assert repr(row[name]) == str(np.float32(row[name])), name


def test_a_text_alone_is_scored_by_the_text_head_of_any_model(altered, corpus, checkpoint, tmp_path, capsys):
    clip = Scorer(checkpoint, gpu_ids=CPU).score(corpus / "Raw" / "hard" / "upright.mp4", text="word1 word2")

    def as_official(facts: dict) -> None:  # of a model whose features can't be extracted
        del facts["extractors"]
        facts["epoch"] = 3

    model, file = altered(as_official), tmp_path / "talk.srt"
    file.write_text("1\n00:00:00,500 --> 00:00:01,500\nword1\n\n2\n00:00:04,000 --> 00:00:05,000\nword2\n")
    scorer = Scorer(model, gpu_ids=CPU)
    for text in ("word1 word2", file):
        row = scorer.score(text=text)
        assert row.keys() == {"text", "text_score", "tokens", "tokens_used"}  # no score of a clip
        assert row["text_score"] == pytest.approx(clip["text_score"], abs=1e-6) and row["text"] == "word1 word2"
    status, output, stderr = printed(capsys, model, "--text", "word1 word2", "--csv", tmp_path / "scores.csv")
    assert status == 0 and not stderr and "not the score of a clip" in output
    header = (tmp_path / "scores.csv").read_text().splitlines()[0]
    assert header == "text,text_score,tokens,tokens_used"
    assert printed(capsys, model, "--text", "word1 " * 80)[2] == "warning: the text: 50 of 82 tokens of the text used\n"
    warning = "warning: 2 of 5 tokens are unknown to the model's vocabulary: word1 nonsense 词\n"
    assert printed(capsys, model, "--text", "word1 nonsense 词")[2] == warning


def test_an_untrained_text_head_scores_no_text(altered, checkpoint, capsys):
    status, output, stderr = printed(capsys, checkpoint, "--text", "word1")  # its best epoch is the first
    assert status == 2 and not output and "from epoch 3 on" in stderr and stderr.count("\n") == 1
    model = altered(lambda facts: facts.update(epoch=9))
    assert printed(capsys, model, "--text", "word1")[0] == 0
    config = json.loads((model / "config.json").read_text())
    config["hyper_parameters"]["tasks"] = "MAV"
    (model / "config.json").write_text(json.dumps(config))
    status, output, stderr = printed(capsys, model, "--text", "word1")
    assert status == 2 and not output and "T among --tasks" in stderr and stderr.count("\n") == 1


def test_a_text_needs_a_tokenizer(altered, capsys):
    shutil.rmtree((model := altered(lambda facts: facts.update(epoch=9))) / "tokenizer")
    status, output, stderr = printed(capsys, model, "--text", "word1")
    assert status == 2 and not output and "no tokenizer" in stderr and stderr.count("\n") == 1


def test_clips_read_by_several_processes_score_the_same_and_a_crash_costs_one(checkpoint, folder, capsys):
    _, output, _ = printed(capsys, checkpoint, folder, "--json")
    assert [Path(row["clip"]).stem for row in json.loads(output)] == ["1", "2", "3"]
    for name in ("crash.mp4", "crash.txt", "4.mp4"):  # the last has no text
        (folder / name).write_text("word1")
    status, again, stderr = printed(capsys, checkpoint, folder, "--json", "--jobs", 2)
    assert status == 2 and again == output
    lines = sorted(stderr.splitlines())
    assert len(lines) == 2 and "4.mp4: no text" in lines[0] and "crash.mp4: worker process died" in lines[1]


def test_a_folder_is_followed_without_a_terminal(checkpoint, folder, capsys, monkeypatch):
    monkeypatch.setattr("os.isatty", lambda handle: False)
    importlib.reload(utils.progress)
    assert "reading" not in printed(capsys, checkpoint, folder)[2]  # within a minute
    monkeypatch.setattr("tqdm.std.time", itertools.count(0, 40).__next__)  # seconds
    assert "reading:  67%" in printed(capsys, checkpoint, folder)[2]
    assert list(utils.progress.slow_progress("abc", "extracting")) == ["a", "b", "c"]  # as DataPre.py and --jobs
    assert "extracting:  67%" in capsys.readouterr().err
