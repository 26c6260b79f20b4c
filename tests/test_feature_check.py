"""The checker reports what is in a feature file, or in a folder of own clips, and names the mistakes."""

import numpy as np
import tiny

from data import feature_file
from data.sentiment import sentiment_class


def report(path, capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    status = feature_file.main(["CHECK", str(path), *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_report_tells_classes_padding_and_extractors(tmp_path, capsys):
    features = tiny.make_features()
    features["train"]["audio"][0, 0, 0] = np.inf
    features["extractors"] = {"audio": {"name": "librosa", "version": "1", "width": 5, "settings": {"hop_length": 7}}}
    status, said, _ = report(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 0
    lengths = features["train"]["audio_lengths"]
    assert f"{1 - sum(lengths) / (21 * 15):.0%} padding; 1 values not finite" in said
    assert "audio by librosa 1: width 5 hop_length=7" in said and "strongly negative" in said


def test_a_clip_in_two_splits_is_a_mistake(tmp_path, capsys):
    features = tiny.make_features()
    features["test"]["id"][3] = features["train"]["id"][0]
    features["valid"]["id"][1] = features["valid"]["id"][0]
    status, said, complaint = report(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 2 and complaint.count("\n") == 1
    assert (
        "1 ids stand in train and in test, video0$_$0 among them" in said and "valid: 1 ids stand there twice" in said
    )


def test_sequences_padded_at_the_front_are_a_mistake(tmp_path, capsys):
    features = tiny.make_features()
    features["test"]["vision"] = features["test"]["vision"][:, ::-1].copy()
    status, said, complaint = report(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 2 and "test: vision: most clips are padded at the front" in complaint


def test_extractors_that_are_no_table_are_one_line(tmp_path, capsys):
    for content in (3, [1], {"audio": 1}, {"audio": {"settings": 1}}, {"audio": {"x": np.ones(3)}}):
        path = tiny.write_features(tmp_path / "f.pkl", tiny.make_features() | {"extractors": content})
        status, _, complaint = report(path, capsys)
        assert status == 2 and "extractors: expected" in complaint and complaint.count("\n") == 1


def test_a_folder_of_own_clips_is_checked(tmp_path, label_table, capsys):
    label_table("003,2,,1,,test,,,", "003,3,a,9,,test,,,", "003,4,a,x,,test,,,", "003,4,a,y,,test,,,")
    (tmp_path / "Raw" / "001").mkdir(parents=True)
    (tmp_path / "Raw" / "001" / "0001.mp4").write_bytes(b"x")
    (tmp_path / "Raw" / "001" / "0002.mkv").touch()
    status, said, complaint = report(tmp_path, capsys)
    assert status == 2 and complaint.count("\n") == 1
    for mistake in (
        "label is 'x'",
        "003$_$4 (line 9): line 9: label is 'y'",
        "002$_$1: no file",
        "0002.mkv is empty",
        "label 9 is outside",
        "the text is empty",
    ):
        assert mistake in said
    assert "001$_$0001" not in said


def test_classes_are_those_of_the_metrics():
    names = [
        "strongly negative",
        "weakly negative",
        "neutral",
        "neutral",
        "weakly positive",
        "positive",
        "strongly positive",
    ]
    assert [sentiment_class(score, "mosi") for score in (-7, -0.6, -0.5, 0.4, 1.4, 1.6, 2.6)] == names
    names = ["negative", "weakly negative", "neutral", "neutral", "weakly positive", "positive"]
    assert [sentiment_class(score, "sims") for score in (-2, -0.5, -0.05, 0.1, 0.7, 0.75)] == names
