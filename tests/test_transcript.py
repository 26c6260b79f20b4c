"""Transcripts of every usual kind give their words and times; those whose times would become words are refused."""

import json
import time

import pytest

from data.builders.transcript import beside, find_clips, join, read_cues
from utils.errors import UserError

WHISPER = {
    "text": " I liked it. A lot.",
    "segments": [
        {"id": 0, "start": 0.0, "end": 2.5, "text": " I liked it."},
        {"id": 1, "start": 2.5, "end": 4, "text": " A lot."},
    ],
}
VTT = """WEBVTT - made by hand
Kind: captions

STYLE
::cue { color: red }

intro
00:00.000 --> 00:02.500 align:start position:0%
<v Ann>I <i>liked</i> it.</v>

NOTE a remark
in two lines

NOTE one more

00:00:02.500 --> 00:00:04.000
{\\an8}A <00:00:03.000><c.yellow>lot</c>.
"""
FORMS = {
    "clip.srt": "1\n00:00:00,000 --> 00:00:02,500\nI liked\nit.\n\n2\n00:00:02,500 --> 00:00:04,000\nA lot.\n",
    "no_hours.srt": "1\n00:00,000 --> 00:02,500\nI liked it.\n\n2\n00:02,500 --> 00:04,000\nA lot.\n",
    "no_gaps.SRT": "1\n0:00:00.0 --> 0:00:02.5  X1:40 Y1:20\nI liked it.\n2\n0:00:02.5 --> 0:00:04\nA lot.\n",
    "gap_in_a_cue.srt": "1\n00:00,0 --> 00:02,5\nI liked\n \nit.\n\n2\n00:02,5 --> 00:04,0\nA lot.",
    "old_mac.srt": "1\r00:00,0 --> 00:02,5\rI liked it.\r\r2\r00:02,5 --> 00:04,0\rA lot.\r",
    "clip.vtt": VTT,
    "renamed.srt": VTT,
    "windows.vtt": VTT.replace("\n", "\r\n"),
    "faster_whisper.txt": "[00:00.000 --> 00:02.500]  I liked it.\n[00:02.500 --> 00:04.000]  A lot.\n",
    "clip.json": json.dumps(WHISPER),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_timed_transcript_has_the_same_words_and_times(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], newline="")
    cues = read_cues(tmp_path / name)
    assert [(cue.text, cue.start, cue.end) for cue in cues] == [("I liked it.", 0, 2.5), ("A lot.", 2.5, 4)]
    assert join(cues) == "I liked it. A lot."


def test_entities_numbers_and_comparisons_stay_words():
    times = "00:00.000 --> 00:02.500\n"
    text = f"{times}AT&amp;T&nbsp;has five < six,\n{times}seven > two, and\n42\n\n{times}♪\n\n{times}3:30 it was\n"
    assert [cue.text for cue in read_cues(text)] == [
        "AT&T has five < six,",
        "seven > two, and 42",
        "",
        "3:30 it was",
    ]
    assert join(read_cues("We left at 3:30\nand came back\nat 4")) == "We left at 3:30 and came back at 4"


def test_the_repeated_lines_of_youtubes_captions_are_read_once():
    rolling = (
        "WEBVTT\nKind: captions\n\n00:00:00.000 --> 00:00:02.000 align:start\n \nwell<00:00:01.000><c> it</c>\n\n"
        "00:00:02.000 --> 00:00:02.010\nwell it\n \n\n00:00:02.010 --> 00:00:04.000\nwell it\nwas<00:00:03.000><c> fine</c>\n"
    )
    assert join(read_cues(rolling)) == "well it was fine"
    assert join(read_cues("00:00 --> 00:01\nNo.\n\n00:01 --> 00:02\nNo.\n")) == "No. No."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "name, form", [("a.txt", "{}"), ("a.srt", "00:00 --> 00:01\n{}"), ("a.json", '{{"text": "{}"}}')]
)
def test_utf_8_and_windows_unicode_are_read(tmp_path, encoding, name, form):
    (tmp_path / name).write_text(form.format("café 你好"), encoding=encoding)
    assert join(read_cues(tmp_path / name)) == "café 你好"


@pytest.mark.parametrize(
    "name, content, complaint",
    [
        ("youtube.txt", b"0:00\nI liked it\n0:03\nbut not the end\n", "begin with a clock time"),
        ("lyrics.txt", b"[ar:me]\n[00:12.00]I liked it\n", "begin with a clock time"),
        ("captions.txt", b"0:00:01.000,0:00:03.000\nI liked it\n\n", "begin with a clock time"),
        ("printed.txt", b"[0.00s -> 2.50s] I liked it\n", "has times"),
        ("frames.srt", b"1\n00:00:01:12 --> 00:00:02:00\nI liked it\n", "clock time"),
        ("headless.vtt", b"WEBVTT\nI liked it\n\nThe end\n", "has times .WEBVTT"),
        ("other.json", b'{"video": 1}', "Whisper"),
        ("other.json", b'{"segments": [{"text": "a", "start": "x", "end": 1}]}', "Whisper"),
        ("other.json", b"[1]", "Whisper"),
        ("empty.json", b"", "Whisper"),
        ("deep.json", b"[" * 100_000, "Whisper"),
        ("huge.json", b'{"segments": [{"text": "a", "start": 0, "end": 1%s}]}' % (b"0" * 400), "Whisper"),
        ("latin.txt", "caf\u00e9".encode("cp1252"), "position 3.*UTF-8.*Notepad"),
        ("rich.txt", b"{\\rtf1\\ansi I liked it}", "document"),
        ("word.txt", b"PK\x03\x04\x14\x00\x08\x00", "document"),
        ("page.txt", b"<!DOCTYPE html><p>I liked it", "document"),
        ("wide.txt", "I liked it".encode("utf-16-le"), "binary"),
        ("a.lrc", b"[00:12.00]I liked it", ".vtt"),
        ("nowhere.txt", None, "No such file"),
    ],
)
def test_what_would_be_misread_is_refused_with_the_reason(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*({complaint})"):
        read_cues(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["<a" * 100_000, "<" * 200_000, "{\\" * 100_000, "1" * 200_000, "\n \t" * 70_000, "1 " * 99_999]
)
def test_time_grows_with_the_length_of_the_text(text):
    read_cues(f"00:00 --> 00:01\n{text}")
    read_cues(f"00:00 --> 00:01\n{'a' * 9}\n" * 20_000)


def test_time_grows_with_the_lines_of_a_cue():
    start = time.perf_counter()
    read_cues("00:00 --> 00:01\n" + f"{'a' * 9}\n" * 200_000)
    assert time.perf_counter() - start < 10


def test_a_transcript_is_found_beside_a_clip_in_either_case(tmp_path):
    clip = tmp_path / "a.b.mp4"
    assert beside(clip, timed=False) is None
    for name, text in (
        ("a.b.JSON", json.dumps(WHISPER)),
        ("a.b.Vtt", "WEBVTT\n\n00:00 --> 00:01\nvtt"),
        ("a.b.TXT", "txt"),
    ):
        (tmp_path / name).write_text(text)
        assert (
            join(beside(clip, timed=False))
            == {"a.b.JSON": "I liked it. A lot.", "a.b.Vtt": "vtt", "a.b.TXT": "txt"}[name]
        )
    assert join(beside(clip, timed=True)) == "I liked it. A lot."


def test_no_file_of_a_folder_is_skipped_without_a_word(tmp_path, capsys):
    names = [
        "a.mp4",
        "b.3GP",
        "sub/c.Mts",
        "a.wav",
        "a.txt",
        "a.json",
        "labels.csv",
        ".hidden.mp4",
        "._a.mp4",
        ".Trash/d.mp4",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_clips([tmp_path]) == [tmp_path / name for name in names[:3]] and not capsys.readouterr().err
    for name in ("d.xyz", "e.wav", "sub/f.jpg"):
        (tmp_path / name).touch()
    find_clips([tmp_path])
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1 and "3 other files" in warning
    assert "d.xyz" in warning and "e.wav" in warning
