"""The label table of the user's clips is read as intended, or refused with the reason."""

import pytest

from config.config_regression import DATASETS
from data import feature_file
from data.builders.label_table import read_label_table
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
    ],
)
def test_unusable_rows_are_listed_with_the_reason(label_table, row, reason):
    clips, refused = read_label_table(label_table(row), MOSI)
    assert len(clips) == 4 and len(refused) == 1 and reason in next(iter(refused.values()))


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
        ("video_id;clip_id;text;label;mode\n1;1;a;1;train\n", "separated by commas"),
        ("video_id,clip_id,text,label,label,mode\n", "label missing or repeated"),
        ("video_id,clip_id,text,label,mode\n1,1,well, no,1,train\n", "line 2 has 6 values"),
        ('video_id,clip_id,text,label,mode\n1,1,"a\nb",1,train\n2,2\n', "line 4 has 2 values"),
        ("video_id,clip_id,text,label,mode\n1,1,a,nan,train\n", "mode train, valid, test.*line 2: label is 'nan'"),
        (
            "video_id,clip_id,text,label,mode\n"
            + "".join(f"1,{n},a,1,{m}\n" for n, m in enumerate(("train", "valid", "test"))),
            "same sign",
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
