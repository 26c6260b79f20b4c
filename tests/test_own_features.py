"""Own data: the label table, files built of parts, and the checker's report."""

import importlib
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import tiny

from config.config_regression import DATASETS
from data import feature_file
from data.builders.assemble import cut_text, padded_length
from data.builders.label_table import read_label_table
from data.builders.transcript import beside, find_clips, read_transcript
from data.schema import read_feature_file
from utils.errors import UserError
from utils.files import replacing
from utils.metrics import sentiment_class

MOSI = DATASETS["mosi"]
HEADER = "video_id,clip_id,text,label,annotation,mode,label_T,label_A,label_V\n"
ROWS = [
    '001,0001,"so good, really",2.0,Positive,train,1,2,3',
    "001,0002,bad,-1,,Train,-1,-1,-1",
    "002,1,fine,0,,valid,0,0,0",
    "003,1,well,1,,test,1,,1",
]


@pytest.fixture
def table(tmp_path):
    def write(*rows: str, header: str = HEADER):
        path = tmp_path / "label.csv"
        path.write_text(header + "\n".join([*ROWS, *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def parts(tmp_path):
    """An array for each clip of ROWS and modality: .npy and .npz."""
    random = np.random.default_rng(0)
    for key, width in (("audio", 6), ("vision", 3)):
        for number, name in enumerate(("001/0001", "001/0002", "002/1", "003/1")):
            file = tmp_path / "parts" / key / name
            file.parent.mkdir(parents=True, exist_ok=True)
            array = random.normal(size=(number + 2, width))
            if number % 2:
                np.savez(f"{file}.npz", whatever=array)
            else:
                np.save(f"{file}.npy", array)
    return tmp_path / "parts"


def build(tmp_path, path, parts, *words) -> int:
    flags = ["BUILD", tmp_path / "own.pkl", "--labels", path, "--parts", parts, *words]
    return feature_file.main([str(flag) for flag in flags])


def test_the_table_keeps_leading_zeros_and_derives_annotations(table):
    clips, refused = read_label_table(table(), MOSI)
    assert not refused
    assert [clip.id for clip in clips] == ["001$_$0001", "001$_$0002", "002$_$1", "003$_$1"]
    assert [clip.annotation for clip in clips] == ["Positive", "Negative", "Neutral", "Positive"]
    assert clips[0].text == "so good, really" and clips[1].split == "train"
    assert clips[0].unimodal == {"text": 1, "audio": 2, "vision": 3} and "audio" not in clips[3].unimodal


@pytest.mark.parametrize(
    "row, reason",
    [
        ("9,1,a,nan,,train,,,", "label is 'nan'"),
        ("9,1,a,-3.5,,train,,,", "label -3.5 is outside [-3, 3]"),
        ("9,1,a,1,,dev,,,", "mode is 'dev'"),
        ("9,1,a,1,,train,x,,", "label_T is 'x'"),
        (",1,a,1,,train,,,", "is empty"),
        ("001,0001,a,1,,test,,,", "twice"),
    ],
)
def test_rows_that_cannot_be_used_are_named(table, row, reason):
    clips, refused = read_label_table(table(row), MOSI)
    assert len(clips) == 4 and len(refused) == 1 and reason in next(iter(refused.values()))


def test_what_is_no_label_table_is_one_line(tmp_path, table):
    for content in (b"", b"\xff\xfe\x00", b"video_id,clip_id\n1,2\n", b"video_id,clip_id,text,label,mode\n"):
        (tmp_path / "other.csv").write_bytes(content)
        with pytest.raises(UserError, match="other.csv"):
            read_label_table(tmp_path / "other.csv", MOSI)
    with pytest.raises(UserError, match="can't be read"):
        read_label_table(tmp_path / "nowhere.csv", MOSI)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("video_id;clip_id;text;label;mode\n1;1;a;1;train\n", "separate the columns by commas"),
        ("video_id,clip_id,text,label,label,mode\n", "label: expected one such column"),
        ("video_id,clip_id,text,label,mode\n1,1,well, no,1,train\n", "line 2 has 6 values, and the header 5"),
        ('video_id,clip_id,text,label,mode\n1,1,"a\nb",1,train\n2,2\n', "line 4 has 2 values"),
        ("video_id,clip_id,text,label,mode\n1,1,a,nan,train\n", "of those left out, line 2: label is 'nan'"),
        (
            "video_id,clip_id,text,label,mode\n"
            + "".join(f"1,{n},a,1,{m}\n" for n, m in enumerate(("train", "valid", "test"))),
            "one sign",
        ),
        ('video_id,clip_id,text,label,mode\n1,1,"a,1,train\n', "line 2: no row"),
    ],
)
def test_a_table_that_would_be_misread_is_one_line(tmp_path, content, complaint):
    (tmp_path / "label.csv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_label_table(tmp_path / "label.csv", MOSI)


def test_long_names_are_no_files(table, tmp_path):
    clips, _ = read_label_table(table(f"{'é' * 300},1,a,1,,train,,,"), MOSI)
    assert clips[-1].find_video(tmp_path).suffix == ".mp4"
    assert feature_file.main(["CHECK", str(tmp_path)]) == 2


def test_no_folder_and_no_input_is_taken_for_the_output(tmp_path, table, parts, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    path = table()
    for output in (tmp_path / "mine", path, "", "."):
        flags = ["BUILD", output, "--labels", path, "--parts", parts]
        assert feature_file.main([str(flag) for flag in flags]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years" and path.read_text().startswith("video_id")
    with pytest.raises(UserError, match="is a folder"), replacing(tmp_path / "mine") as work:
        work.write_text("a file")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_list_of_errors_that_is_not_ours_stays(tmp_path, table, parts):
    (tmp_path / "own.errors.csv").write_text("my,own\n")
    assert build(tmp_path, table(), parts) == 0
    assert (tmp_path / "own.errors.csv").read_text() == "my,own\n"


def test_the_released_rule_of_padding():
    lengths = [3, 5, 10, 4]
    assert padded_length(lengths) == int(np.mean(lengths) + 3 * np.std(lengths))
    assert padded_length([1]) == 1
    assert cut_text(np.array([2, 7, 8, 9, 3]), 4).tolist() == [2, 7, 8, 3]


def test_parts_become_a_feature_file_that_run_py_trains_on(tmp_path, table, parts, capsys, monkeypatch):
    assert build(tmp_path, table(), parts, "--vision_length", 4) == 0
    assert "train on it" in capsys.readouterr().out
    file = read_feature_file(tmp_path / "own.pkl", MOSI, aligned=False)
    train = file.splits["train"]
    assert train.raw_text == ["so good, really", "bad"] and train.text_bert is None
    assert train.audio_lengths.tolist() == [2, 3] and train.vision.shape == (2, 4, 3)
    assert file.splits["test"].vision_lengths.tolist() == [4]  # of five frames
    second = np.load(parts / "audio" / "001" / "0002.npz")["whatever"]
    assert np.array_equal(train.audio[1, :3], second.astype(np.float32)) and not train.audio[1, 3:].any()
    assert set(train.labels) == {"fusion", "text", "vision"}  # one clip has no label_A
    assert file.extractors["audio"] == {
        "name": "own",
        "version": "",
        "width": 6,
        "settings": {},
        "length": train.audio.shape[1],
    }

    import run

    monkeypatch.chdir(tmp_path)
    words = [
        "--dataPath",
        tmp_path / "own.pkl",
        "--bert",
        tiny.write_bert(tmp_path / "bert"),
        "--seeds",
        1,
        "--max_epochs",
        1,
    ]
    assert run.main([str(word) for word in (*words, "--gpu_ids", -1)]) == 0


def test_parts_that_cannot_be_used_are_left_out(tmp_path, table, parts, capsys):
    for name in ("flat", "wide", "odd", "none"):
        np.save(parts / "vision" / "001" / f"{name}.npy", np.ones((2, 3)))
        np.save(parts / "audio" / "001" / f"{name}.npy", np.ones((2, 6)))
    np.save(parts / "audio" / "001" / "flat.npy", np.ones(6))
    np.save(parts / "audio" / "001" / "wide.npy", np.ones((2, 7)))
    (parts / "audio" / "001" / "odd.npy").write_bytes(pickle.dumps([1, 2]))
    (parts / "audio" / "001" / "none.npy").unlink()
    path = table(*(f"001,{name},a,1,,train,,," for name in ("flat", "wide", "odd", "none")), "001,0003,a,9,,train,,,")
    assert build(tmp_path, path, parts) == 2
    assert "5 of 9 clips were left out" in capsys.readouterr().err
    reasons = pd.read_csv(tmp_path / "own.errors.csv").set_index("id")["reason"]
    assert "(6,)" in reasons["001$_$flat"] and "7 wide" in reasons["001$_$wide"]
    assert "can't be read" in reasons["001$_$odd"] and "no file" in reasons["001$_$none"]
    assert len(read_feature_file(tmp_path / "own.pkl", MOSI, aligned=False).splits["train"]) == 2


def test_a_split_that_lost_all_its_clips_leaves_the_old_file(tmp_path, table, parts, capsys):
    assert build(tmp_path, table(), parts) == 0
    before = (tmp_path / "own.pkl").read_bytes()
    (parts / "audio" / "002" / "1.npy").unlink()
    assert build(tmp_path, table(), parts) == 2
    assert "no clip of the split valid" in capsys.readouterr().err
    assert (tmp_path / "own.pkl").read_bytes() == before


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


def test_a_folder_of_own_clips_is_checked(tmp_path, table, capsys):
    table("003,2,,1,,test,,,", "003,3,a,9,,test,,,", "003,4,a,x,,test,,,", "003,4,a,y,,test,,,")
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


@pytest.mark.parametrize(
    "program", ["data.DataPre", "data.TextPre", "data.feature_file", "utils.convert_bert", "predict"]
)
def test_help_is_there_for_who_asks(program, capsys):
    for words in (["--help"], ["-h"]):
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(program).main(words)
        assert ended.value.code == 0 and "usage: " in capsys.readouterr().out


def test_flags_that_contradict_each_other_are_refused(tmp_path, capsys):
    from data import DataPre

    for words in (
        ["--vision", "none", "--openface_csv", "x"],
        ["--vision", "mediapipe", "--openface2Path", "x"],
        ["--sample_rate", "8000", "--vision", "none"],
        ["--fps", "0", "--vision", "none"],
        [],
    ):
        assert DataPre.main(["--data_dir", str(tmp_path / "nowhere"), "--language", "en", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert DataPre.main(["--data_dir", str(tmp_path / "nowhere"), "--language", "en", "--vision", "none"]) == 2
    assert not (tmp_path / "nowhere").exists()


def test_transcripts_beside_clips(tmp_path):
    for name in ("b.mp4", "a.MKV", "c.txt"):
        (tmp_path / "deeper").mkdir(exist_ok=True)
        (tmp_path / "deeper" / name).touch()
    assert [file.name for file in find_clips([tmp_path])] == ["a.MKV", "b.mp4"]
    (tmp_path / "deeper" / "b.txt").write_text("\ufeffOne\n two  three\n", encoding="utf-8")
    assert beside(tmp_path / "deeper" / "b.mp4") == "One two three" and beside(tmp_path / "deeper" / "a.MKV") is None
    subtitles = "1\r\n00:00:00,000 --> 00:00:01,000\r\n<i>In 1984</i>\r\n1984\r\n\r\n2\r\n00:00:01.000 --> 00:00:02.000\r\n{\\an8}it was so.\r\n"
    (tmp_path / "a.srt").write_bytes(subtitles.encode())
    assert read_transcript(tmp_path / "a.srt") == "In 1984 1984 it was so."


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


@pytest.mark.parametrize("package, words", [("librosa", ["none"]), ("mediapipe", ["mediapipe"])])
def test_a_package_that_only_extraction_needs_is_named_with_its_file(
    table, tmp_path, monkeypatch, capsys, package, words
):
    from data import DataPre

    monkeypatch.setitem(sys.modules, package, None)  # as if it weren't installed
    if package != "librosa":
        monkeypatch.setattr("data.extractors.audio.LibrosaAudio.version", "1")
    table()
    bert = tiny.write_bert(tmp_path / "bert")
    capsys.readouterr()
    flags = [
        "--data_dir",
        tmp_path,
        "--language",
        "en",
        "--bert",
        bert,
        "--vision",
        *words,
    ]
    assert DataPre.main([str(flag) for flag in flags]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: {package} can't be imported") and complaint.count("\n") == 1
    assert "pip install -r requirements-features.txt" in complaint
