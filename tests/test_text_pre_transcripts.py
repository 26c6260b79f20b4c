"""Clips of a CMU pickle find their transcripts by any form of id."""

import numpy as np
import pytest
from cmu_pickles import IDS, TEXTS, make_cmu, write_table

from data.builders.transcripts import ClipName, Transcripts


@pytest.mark.parametrize(
    "form",
    [
        lambda video, clip: f"{video}[{clip}]",
        lambda video, clip: f"{video}_{clip}",
        lambda video, clip: f"{video}$_${clip}".encode(),
        lambda video, clip: [video, f"{10 * clip:.2f}", f"{10 * clip + 5.04:.4f}"],
        lambda video, clip: [f"{video}_{clip}".encode(), b"999", b"1000"],
        lambda video, clip: np.array([video, 10.0 * clip, 10 * clip + 5], object),
        lambda video, clip: (video, clip),
    ],
)
def test_every_form_of_id_finds_its_transcript(tmp_path, prepare, form):
    content = make_cmu()
    for split in TEXTS:
        del content[split]["raw_text"]
        content[split]["id"] = [form(name.rsplit("_", 1)[0], clip) for clip, name in enumerate(IDS[split])]
        if not isinstance(content[split]["id"][0], tuple):
            content[split]["id"] = np.array(content[split]["id"])
    status, made, printed = prepare(content, "--transcripts", write_table(tmp_path / "label.csv"))
    assert status == 0, printed
    for split, texts in TEXTS.items():
        assert made[split]["raw_text"].tolist() == texts
        assert made[split]["id"].tolist() == [name.replace("_", "$_$") for name in IDS[split]]


def test_indices_count_from_0_and_the_clips_of_mosi_from_1(tmp_path, prepare):
    content = make_cmu()
    for split in TEXTS:
        content[split]["id"] = [name.replace("_", "[") + "]" for name in IDS[split]]
    status, made, printed = prepare(content, "--transcripts", write_table(tmp_path / "label.csv", numbered_from=1))
    assert status == 0 and "video[0] is clip 1" in printed
    assert made["train"]["raw_text"].tolist() == TEXTS["train"] and made["train"]["id"][0] == "vid$_$1"
    # In a part of a corpus, without any [0], an index is a clip number.
    for split in TEXTS:
        content[split]["id"] = [f"{name.split('_')[0]}[{clip + 1}]" for clip, name in enumerate(IDS[split])]
    status, made, _ = prepare(content, "--transcripts", tmp_path / "label.csv")
    assert status == 0 and made["train"]["id"][0] == "vid$_$1"
    transcripts = Transcripts(tmp_path / "label.csv")
    transcripts.align_indices([ClipName.read("vid[0]")])
    assert transcripts.find(ClipName.read("vid[3]"))[1] == "4" and transcripts.find(ClipName.read("vid_3"))[1] == "3"


def test_reads_transcripts_as_distributed_by_cmu(tmp_path):
    mosi, mosei = tmp_path / "MOSI" / "Segmented", tmp_path / "MOSEI" / "Combined"
    mosi.mkdir(parents=True)
    mosei.mkdir(parents=True)
    (mosi / "a_b.annotprocessed").write_bytes(b"1_DELIM_FIRST ONE\r\n12_DELIM_  IT'S _DELIM_ \r\n\r\n")
    (mosei / "x.txt").write_bytes(b"x____0___0___1.5e1___I said ___ \x93so\x94\nx____1___2.5___3___\n")
    (mosei / "notes.txt").write_text("not a transcript")
    (tmp_path / "x.txt").write_text("x____0___0___15___another of  the same clip\nx____1___2.5___3___")
    transcripts = Transcripts(tmp_path)
    videos = transcripts.videos
    assert {clip: row["text"] for clip, row in videos["a_b"].items()} == {"1": "FIRST ONE", "12": "IT'S _DELIM_"}
    assert set(videos) == {"a_b", "x_"} and set(videos["x_"]) == {"0", "1"}
    with pytest.raises(ValueError, match="two transcripts of .*I said ___.* and 'another of"):
        transcripts.find(ClipName.read("x_[0]"))
    assert transcripts.find(ClipName.read("x_[1]"))[2] == ""  # the same twice
    assert videos["x_"]["0"]["end"] == "1.5e1" and videos["x_"]["0"]["text"] == "I said ___ \u201cso\u201d"


def test_times_find_the_nearest_transcript(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("video_id,clip_id,text,start,end\na_1,3,near,1.0,2.0\na_1,4,nearer,1.05,2.0\nb,1,x,1,2\nc,1,z,,\n")
    transcripts = Transcripts(path)
    assert transcripts.find(ClipName.read(["a_1", "1.06", 2.01])) == ("a_1", "4", "nearer")
    for name, reason in {
        ("a_1", 1.2, 2): "no transcript within 0.1 s of 1.2 to 2 s",
        ("c", 1, 2): "have no times",
        ("d_1", "x", "y"): "video 'd', clip '1'",
        "a": "video 'a', clip ''",
        ("b",): "video 'b', clip ''",
        "b[7]": "video 'b', clip '7'",
    }.items():
        with pytest.raises(ValueError, match=reason):
            transcripts.find(ClipName.read(name))


def test_a_clip_with_two_transcripts_is_left_out_and_both_are_quoted(tmp_path, prepare):
    table = write_table(tmp_path / "label.csv")
    table.write_text(f"{table.read_text()}\nvid,1,{TEXTS['train'][1]},0,1\nvid,2,bad,,\nvid,3,NaN,,\n")
    status, made, _ = prepare(make_cmu(), "--transcripts", table)
    assert status == 2 and made["train"]["id"].tolist() == ["vid$_$0", "vid$_$1", "vid$_$4"]
    reasons = (tmp_path / "out" / "errors.csv").read_text()
    assert "'good' and 'bad'" in reasons and "'NaN'" in reasons


def test_ids_without_a_clip_stay_as_written_if_the_pickle_has_the_texts(prepare):
    content = make_cmu()
    content["valid"]["id"] = np.array([["a_1", "1.5", "2"], ["a_1", "2", "3"]])
    content["test"]["id"] = np.array([b"one", b"two[3]"])
    status, made, _ = prepare(content)
    assert status == 0
    assert made["valid"]["id"].tolist() == ["a_1_1.5_2", "a_1_2_3"] and made["test"]["id"].tolist() == [
        "one",
        "two$_$3",
    ]


def test_a_pickle_without_texts_needs_transcripts(prepare):
    content = make_cmu()
    del content["train"]["raw_text"]
    complaint = prepare(content)[2]
    assert all(word in complaint for word in ("train", "raw_text", "--transcripts"))


@pytest.mark.parametrize(
    "table, complaint",
    [
        ("video_id,text\nvid,word1\n", "clip_id missing"),
        ("video_id,clip_id,text\nvid,0,well, really\n", "line 2 has 4 values"),
        ("", "video_id, clip_id, text"),
        ("video_id,clip_id,text,start,end\nvid,0,well, really,1\n", "line 2: start is 'really'"),
        ("video_id,clip_id,text,start,end\nvid,0,well,0:01,2\n", "line 2: start is '0:01'; expected seconds"),
        ("video_id,clip_id,text\n", "no transcripts found"),
    ],
)
def test_tables_that_would_be_misread_are_refused(tmp_path, prepare, table, complaint):
    path = tmp_path / "transcripts.csv"
    path.write_text(table)
    status, made, printed = prepare(make_cmu(), "--transcripts", path)
    assert status == 2 and made is None and printed.count("\n") == 1
    assert str(path) in printed and complaint in printed
