"""The label table of the user's clips is read as intended, or refused with the reason."""

import math

import pytest

from config.config_regression import DATASETS
from data import feature_file
from data.builders.label_table import LabelledClip, parse_number, read_label_table
from data.extractors import ClipError
from utils.errors import UserError

MOSI = DATASETS["mosi"]


def test_reads_clips_and_keeps_leading_zeros(label_table):
    clips, refused = read_label_table(label_table(), MOSI)
    assert not refused
    assert [clip.id for clip in clips] == ["001$_$0001", "001$_$0002", "002$_$1", "003$_$1"]
    assert clips[0].text == "so good, really" and clips[1].split == "train"
    assert clips[0].unimodal == {"text": 1, "audio": 2, "vision": 3} and "audio" not in clips[3].unimodal


@pytest.mark.parametrize(
    "row, reason",
    [
        ("9,1,a,nan,,train,,,", "label is 'nan'"),
        ("9,1,a,-3.5,,train,,,", "label is '-3.5'"),
        ("9,1,a,1,,dev,,,", "mode is 'dev'"),
        ("9,1,a,1,,train,x,,", "label_T is 'x'"),
        (",1,a,1,,train,,,", "is empty"),
        ("001,0001,a,1,,test,,,", "duplicate"),
        ("9,1,,1,,train,,,", "text is empty: ''"),
        ("9,1,\u3000\u200b,1,,train,,,", "text is empty"),
        ("9,1,...,1,,train,,,", "text is empty: '...'"),
        *(
            (f"9,1,{text},1,,train,,,", f"text is empty: '{text}'")
            for text in ("nan", "NaN", "NULL", "N/A", "<NA>", "None")
        ),
        ("9,1,[00:00.000 --> 00:02.500] so good,1,,train,,,", "has times"),
    ],
)
def test_unusable_rows_are_listed_with_the_reason(label_table, row, reason):
    clips, refused = read_label_table(label_table(row), MOSI)
    assert len(clips) == 4 and len(refused) == 1 and reason in next(iter(refused.values()))


@pytest.mark.parametrize(
    "written, value",
    [("1", 1), (" -2.5 ", -2.5), ("+.5", 0.5), ("3.", 3), ("1e-05", 1e-5), ("1,5", 1.5), ("-0,4", -0.4)]
    + [(f"{minus}1.5", -1.5) for minus in "\u2212\u2013\u2014\u2010\u2011"],
)
def test_numbers_are_taken_as_people_write_them(written, value):
    assert parse_number(written) == value


@pytest.mark.parametrize(
    "written",
    [
        "",
        "-",
        "1_0",
        "nan",
        "inf",
        "-Infinity",
        "0x1",
        "\u0661",
        "\uff11",
        "1,000.5",
        "1 5",
        "--1",
        "1e",
        "1-2",
        "True",
    ],
)
def test_other_spellings_are_not_numbers(written):
    assert math.isnan(parse_number(written))


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_as_excel_saves_them_are_read(tmp_path, separator, encoding):
    rows = ["video_id clip_id text label mode", '1 1 "good, really" 1,5 train', "1 2 caf\u00e9 \u22122 train", " " * 4]
    rows += ["2 1 fine 0 valid", "3 1 well 1 test"]
    text = "\r\n".join(row.replace(" ", separator).replace(f",{separator}", ", ") for row in rows)
    (tmp_path / "label.csv").write_text(text, encoding=encoding, newline="")
    clips, refused = read_label_table(tmp_path / "label.csv", MOSI)
    assert not refused and [clip.label for clip in clips] == [1.5, -2, 0, 1]
    assert [clip.text for clip in clips[:2]] == ["good, really", "caf\u00e9"]


def test_a_table_in_another_encoding_names_the_byte_and_the_mend(tmp_path):
    (tmp_path / "label.csv").write_bytes("video_id,clip_id,text,label,mode\n1,1,caf\u00e9,1,train\n".encode("cp1252"))
    with pytest.raises(UserError, match="label.csv: .*position 40.*UTF-8.*Excel"):
        read_label_table(tmp_path / "label.csv", MOSI)


def test_clips_are_found_with_suffixes_in_any_case(tmp_path):
    clip = LabelledClip("v", "1", "a", 1.0, "train")
    (tmp_path / "v").mkdir()
    assert clip.find_video(tmp_path) == tmp_path / "v" / "1.mp4"
    for name in ("11.mp4", "1.mp4.part", "1.WAV", "1.Mp4"):  # a video comes before its sound
        (tmp_path / "v" / name).touch()
        found = clip.find_video(tmp_path).name
        assert found == {"1.WAV": "1.WAV", "1.Mp4": "1.Mp4"}.get(name, "1.mp4")


def test_two_files_of_one_clip_are_refused(label_table, tmp_path, capsys):
    clip = LabelledClip("001", "0001", "a", 1.0, "train")
    for name in ("0001.mp4", "0001.MTS"):
        (tmp_path / "Raw" / "001").mkdir(parents=True, exist_ok=True)
        (tmp_path / "Raw" / "001" / name).write_bytes(b"x")
    with pytest.raises(ClipError, match="0001.mp4 and 0001.MTS"):
        clip.find_video(tmp_path / "Raw")
    label_table()
    assert feature_file.main(["CHECK", str(tmp_path)]) == 2
    assert "mistake: 001$_$0001: " in capsys.readouterr().out


def test_files_that_are_not_label_tables_are_refused(tmp_path, label_table):
    for content in (b"", b"\xff\xfe\x00", b"video_id,clip_id\n1,2\n", b"video_id,clip_id,text,label,mode\n"):
        (tmp_path / "other.csv").write_bytes(content)
        with pytest.raises(UserError, match="other.csv"):
            read_label_table(tmp_path / "other.csv", MOSI)
    with pytest.raises(UserError, match="nowhere.csv: cannot be read"):
        read_label_table(tmp_path / "nowhere.csv", MOSI)


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("video_id|clip_id|text|label|mode\n1|1|a|1|train\n", "separated by commas"),
        ("video_id,clip_id,text,label,mode,label_T,label_T\n1,1,a,1,train,1,2\n", "label_T missing or repeated"),
        ("video_id,clip_id,text,label,label,mode\n", "label missing or repeated"),
        ("video_id,clip_id,text,label,mode\n1,1,well, no,1,train\n", "line 2 has 6 values"),
        ('video_id,clip_id,text,label,mode\n1,1,"a\nb",1,train\n2,2\n', "line 4 has 2 values"),
        ("video_id,clip_id,text,label,mode\n1,1,a,nan,train\n", "mode train, valid, test.*line 2: label is 'nan'"),
        (
            "video_id,clip_id,text,label,mode\n"
            + "".join(f"1,{n},a,1,{m}\n" for n, m in enumerate(("train", "valid", "test"))),
            "both signs$",
        ),
        (
            "video_id,clip_id,text,label,mode\n"
            + "".join(f"1,{n},a,{m}\n" for n, m in enumerate(("1,train", "1_0,train", "1,valid", "1,test"))),
            "both signs; first unusable row: line 3: label is '1_0'",
        ),
        ('video_id,clip_id,text,label,mode\n1,1,"a,1,train\n', "after line 1"),
    ],
)
def test_tables_that_would_be_misread_are_refused(tmp_path, content, complaint):
    (tmp_path / "label.csv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        read_label_table(tmp_path / "label.csv", MOSI)


def test_names_that_are_too_long_for_files_are_missing_files(label_table, tmp_path):
    clips, _ = read_label_table(label_table(f"{'é' * 300},1,a,1,,train,,,"), MOSI)
    assert clips[-1].find_video(tmp_path).suffix == ".mp4"
    assert feature_file.main(["CHECK", str(tmp_path)]) == 2
