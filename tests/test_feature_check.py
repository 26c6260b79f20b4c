"""CHECK reports the content of a feature file or a folder of clips, and lists its mistakes."""

import hashlib

import numpy as np
import tiny

from data import feature_file
from data.schema import OFFICIAL
from utils.metrics import sentiment_class


def check(path, capsys) -> tuple[int, str, str]:
    """Runs CHECK. Returns its exit status, standard output and standard error."""
    capsys.readouterr()
    status = feature_file.main(["CHECK", str(path)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_report_has_classes_padding_and_extractors(tmp_path, capsys):
    features = tiny.make_features()
    features["train"]["audio"][0, 0, 0] = np.inf
    features["extractors"] = {"audio": {"name": "librosa", "version": "1", "width": 5, "settings": {"hop_length": 7}}}
    status, report, _ = check(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 0
    lengths = features["train"]["audio_lengths"]
    assert f"{1 - sum(lengths) / (21 * 15):.0%} padding, 1 non-finite values" in report
    assert "audio by librosa 1: width 5 hop_length=7" in report and "strongly negative" in report


def test_both_sums_are_compared_with_the_official_files(tmp_path, capsys, monkeypatch):
    path = tiny.write_features(tmp_path / "f.pkl")
    sums = {kind: hashlib.new(kind.replace("-", ""), path.read_bytes()).hexdigest() for kind in ("SHA-1", "SHA-256")}
    for official in sums:
        with monkeypatch.context() as patch:
            patch.setitem(OFFICIAL, sums[official], "Somebody's MOSI")
            report = check(path, capsys)[1].splitlines()
        for kind, value in sums.items():
            verdict = "Somebody's MOSI" if kind == official else "not one of the official files"
            assert f"{kind} {value}: {verdict}" in report


def test_repeated_ids_are_mistakes(tmp_path, capsys):
    features = tiny.make_features()
    features["test"]["id"][3] = features["train"]["id"][0]
    features["valid"]["id"][1] = features["valid"]["id"][0]
    status, report, error = check(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 2 and error.count("\n") == 1
    assert "2 ids occur more than once, for example video0$_$0 in train, test" in report


def test_padding_at_the_front_is_a_mistake(tmp_path, capsys):
    features = tiny.make_features()
    features["test"]["vision"] = features["test"]["vision"][:, ::-1].copy()
    status, report, error = check(tiny.write_features(tmp_path / "f.pkl", features), capsys)
    assert status == 2 and "have more zeros at the front of vision than at the end" in report


def test_malformed_extractors_are_refused_in_one_line(tmp_path, capsys):
    for content in (3, [1], {"audio": 1}, {"audio": {"settings": 1}}, {"audio": {"x": np.ones(3)}}):
        path = tiny.write_features(tmp_path / "f.pkl", tiny.make_features() | {"extractors": content})
        status, _, error = check(path, capsys)
        assert status == 2 and "extractors: expected" in error and error.count("\n") == 1


def test_folder_of_clips_is_checked(tmp_path, label_table, capsys):
    label_table("003,2,,1,,test,,,", "003,3,a,9,,test,,,", "003,4,a,x,,test,,,", "003,4,a,y,,test,,,")
    (tmp_path / "Raw" / "001").mkdir(parents=True)
    (tmp_path / "Raw" / "001" / "0001.mp4").write_bytes(b"x")
    (tmp_path / "Raw" / "001" / "0002.mkv").touch()
    status, report, error = check(tmp_path, capsys)
    assert status == 2 and error.count("\n") == 1
    for mistake in (
        "label is 'x'",
        "003$_$4 (line 9): line 9: label is 'y'",
        "002$_$1: ",
        "0002.mkv is missing or empty",
        "label is '9'",
        "the text is empty",
    ):
        assert mistake in report
    assert "001$_$0001" not in report


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
