"""TextPre.py joins CMU's features and transcripts to feature files, aligned and unaligned."""

import csv
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from cmu_pickles import (
    DON,
    ER,
    EST,
    FRAMES,
    GOOD,
    LABELS,
    LONG,
    QUOTE,
    SENTENCE,
    WIDTHS,
    T,
    frame,
    make_cmu,
    write_table,
)

import run
from config.config_regression import DATASETS, REPOSITORY
from data.builders.cmu import frames_of_tokens, without_padding
from data.schema import read_feature_file
from models.pretrained_bert import load_bert, load_tokenizer

MOSI = DATASETS["mosi"]
UNEVEN = "clips with more or fewer words than frames (if most: wrong transcripts)"
WORD_IDS = [0, 1, 1, 1, 2, 2, 2, 3]  # the word of each of SENTENCE's tokens


@pytest.mark.parametrize("in_front", [True, False])
def test_each_token_gets_the_frame_of_its_word_and_cls_and_sep_get_zeros(prepare, in_front):
    status, made, printed = prepare(make_cmu(in_front), "--aligned", "--text_length", "12")
    assert status == 0 and UNEVEN not in printed
    train = made["train"]
    assert train["text_bert"][0, 0].tolist() == [2, GOOD, LONG, ER, EST, DON, QUOTE, T, 6, 3, 0, 0]
    for key in WIDTHS:
        expected = np.zeros((12, WIDTHS[key]))
        expected[1:9] = [frame(word, key) for word in WORD_IDS]
        np.testing.assert_array_equal(train[key][0], expected)
        assert train[key].shape == (5, 12, WIDTHS[key]) and train[key].dtype == np.float32
    assert "audio_lengths" not in train and "vision_lengths" not in train


def test_long_texts_are_cut_before_sep(prepare):
    _, made, printed = prepare(make_cmu(), "--aligned", "--text_length", "5")
    assert made["train"]["text_bert"][0].tolist() == [[2, GOOD, LONG, ER, 3], [1] * 5, [0] * 5]
    expected = [np.zeros(3), *(frame(word, "audio") for word in (0, 1, 1)), np.zeros(3)]
    np.testing.assert_array_equal(made["train"]["audio"][0], expected)
    assert "longer texts cut: 2" in printed


def test_frames_without_a_face_do_not_shift_the_words(prepare):
    content = make_cmu()
    content["train"]["vision"][0, -3:] = 0  # more zeros than the padding
    content["train"]["vision"][1] = 0
    _, made, printed = prepare(content, "--aligned", "--text_length", "12")
    np.testing.assert_array_equal(made["train"]["vision"][0, 1], frame(0, "vision"))
    assert not made["train"]["vision"][0, 2:].any() and not made["train"]["vision"][1].any()
    assert UNEVEN not in printed


def test_equal_zeros_at_both_ends_count_as_padding_in_front_for_words_and_at_the_back_for_sequences():
    frames = np.array([[0], [1], [2], [0]], np.float32)
    assert frames_of_tokens(frames, 3, [0, 1, 2])[:, 0].tolist() == [1, 2, 0]
    assert without_padding(frames)[:, 0].tolist() == [0, 1, 2]


def test_mismatches_of_words_and_frames_are_counted(prepare):
    content = make_cmu()
    content["train"]["raw_text"][0] = SENTENCE + " good"
    content["test"]["raw_text"][1] = " ".join(["word1"] * (FRAMES + 1))
    content["test"]["audio"][1] = 1  # a full clip can have more words
    _, made, printed = prepare(content, "--aligned", "--text_length", "12")
    assert f"{UNEVEN}: 1" in printed
    assert made["test"]["audio"][1, 1:8].sum(axis=1).tolist() == [3] * FRAMES + [0]


def test_words_are_tokenized_like_the_whole_sentence(prepare, text_pre_bert):
    texts = [
        " good\u00a0 longer,word1 ",
        "Don't\tLONGEST!!",
        "caf\u00e9 \u4f60\u597dgood [SEP] t",
        "a\x1cgood\u2028t\x85 !",
        "''t",
    ]
    content = make_cmu()
    content["train"]["raw_text"] = texts
    _, made, _ = prepare(content, "--aligned", "--text_length", "12")
    tokenizer = load_tokenizer(str(text_pre_bert))
    for text, stored, (ids, mask, _) in zip(texts, made["train"]["raw_text"], made["train"]["text_bert"], strict=True):
        assert stored == " ".join(text.split())
        assert ids[: mask.sum()].tolist() == tokenizer(stored, truncation=True, max_length=12)["input_ids"]


def test_text_has_berts_vectors_of_the_kept_tokens(prepare, text_pre_bert):
    _, made, _ = prepare(make_cmu(), "--aligned", "--text_length", "5")
    tokens = torch.from_numpy(made["train"]["text_bert"][0, :1])
    with torch.inference_mode():
        expected = load_bert(str(text_pre_bert)).eval()(tokens).last_hidden_state[0].numpy()
    np.testing.assert_allclose(made["train"]["text"][0], expected, atol=1e-6)
    assert made["train"]["text"].shape == (5, 5, 16) and not made["train"]["text"][1, 3:].any()


def test_unaligned_sequences_start_at_frame_0_and_have_lengths(prepare):
    content = make_cmu()
    audio = content["train"]["audio"] = np.zeros((5, 9, 3), np.float32)
    # Padding in front; at the back; at both ends; none. Zeros inside stay.
    audio[0, 6:] = audio[1, :2] = audio[2, 3:7] = audio[3] = 1
    audio[0, 7] = 0
    status, made, _ = prepare(content)
    train = made["train"]
    assert status == 0 and train["audio_lengths"].tolist() == [3, 2, 6, 9, 1]
    assert [clip.any(axis=1).tolist().index(True) for clip in train["audio"][:4]] == [0] * 4
    assert train["audio"][0, :4, 0].tolist() == [1, 0, 1, 0] and train["audio"][2, :7, 0].tolist() == [1] * 4 + [0] * 3
    assert train["audio"].shape == (5, 9, 3) and made["test"]["audio"].shape == (2, 9, 3)
    assert train["vision_lengths"].tolist() == [4, 1, 1, 4, 2] and train["text_bert"].shape == (5, 3, 50)


def test_values_that_are_not_finite_become_0_and_are_counted(prepare):
    content = make_cmu()
    content["train"]["audio"][0, -1] = [-np.inf, np.inf, 7]
    content["valid"]["audio"][1, -1, 0] = 1e300  # too large for float32
    content["test"]["vision"][0, 0] = np.nan  # in the padding
    _, made, printed = prepare(content)
    assert made["train"]["audio"][0, 3].tolist() == [0, 0, 7] and made["test"]["vision_lengths"][0] == 2
    counts = {("audio", "train"): 2, ("audio", "valid"): 1, ("vision", "test"): 2}
    for (key, split), count in counts.items():
        assert f"{key} values in {split} set to 0, as not finite: {count}\n" in printed
    assert printed.count("as not finite") == len(counts)


def test_unusable_clips_are_listed_and_the_others_written(tmp_path, prepare):
    content = make_cmu()
    content["train"]["labels"][1:4, 0, 0] = [3.5, np.nan, -3.000001]
    content["train"]["raw_text"][4] = "  "
    content["valid"]["id"][1] = "va_0"
    status, made, printed = prepare(content)
    assert status == 2 and "4 of 9 clips were left out" in printed and printed.count("error: ") == 1
    assert made["train"]["id"].tolist() == ["vid$_$0", "vid$_$3"]
    assert made["train"]["regression_labels"].round(5).tolist() == [-1, -3] and made["valid"]["id"].tolist() == [
        "va$_$0"
    ]
    with open(tmp_path / "out" / "errors.csv", newline="") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"vid_1", "vid_2", "vid_4", "va_0"}
    assert "3.5" in reasons["vid_1"] and "nan" in reasons["vid_2"] and "empty" in reasons["vid_4"]
    assert "duplicate of va$_$0" in reasons["va_0"]
    assert prepare(make_cmu())[0] == 0 and not (tmp_path / "out" / "errors.csv").exists()


def test_the_file_has_the_official_layout_and_its_extractors(tmp_path, prepare):
    _, made, _ = prepare(make_cmu(), "--aligned", "--text_length", "12")
    file = read_feature_file(tmp_path / "out" / "features.pkl", MOSI, aligned=True)
    assert [len(split) for split in file.splits.values()] == [5, 2, 2]
    train = made["train"]
    assert train["regression_labels"].tolist() == LABELS["train"] and train["classification_labels"].tolist() == [
        0,
        2,
        1,
        0,
        2,
    ]
    assert train["annotations"].tolist() == ["Negative", "Positive", "Neutral", "Negative", "Positive"]
    assert train["text_bert"].dtype == np.int64
    cmu = {"name": "CMU-MultimodalSDK", "version": "", "settings": {"file": "cmu.pkl", "aligned": True}, "length": 12}
    assert file.extractors["audio"] == cmu | {"width": 3} and file.extractors["vision"] == cmu | {"width": 2}
    assert file.extractors["text"]["name"] == "bert" and file.extractors["text"]["length"] == 12


@pytest.mark.parametrize("flags", [[], ["--aligned"]])
def test_the_printed_command_trains_on_the_file(tmp_path, prepare, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    status, _, printed = prepare(make_cmu(), *flags)
    command = printed.strip().split("python run.py ")[1].split()
    quick = ["--max_epochs", "1", "--seeds", "1", "--gpu_ids", "-1", "--set", "batch_size=2", "update_epochs=1"]
    assert status == 0 and ("--aligned" in command) == bool(flags) and run.main(command + quick) == 0


def broken(split: str, key: str, value: object) -> dict:
    content = make_cmu()
    content[split][key] = value
    return content


@pytest.mark.parametrize(
    ("content", "argv", "complaint"),
    [
        ([1], [], "train, valid, test"),
        (make_cmu() | {"train": {}}, [], "train: id: expected"),
        ({"train": make_cmu()["train"]}, [], "valid"),
        (broken("valid", "id", np.array("one")), [], "valid: id: expected"),
        (broken("valid", "id", []), [], "valid: id: expected"),
        (broken("valid", "audio", np.zeros((2, 4))), [], "valid: audio: expected numbers (N, frames, width)"),
        (broken("valid", "audio", np.zeros((3, 4, 3))), [], "valid: audio: expected numbers (N, frames, width)"),
        (broken("test", "vision", np.zeros((2, 6, 4))), [], "vision: the splits have different widths"),
        (broken("test", "vision", np.zeros((2, 7, 2))), ["--aligned"], "leave out --aligned"),
        (broken("test", "labels", np.zeros((2, 1, 7))), [], "test: labels: expected numbers (N,)"),
        (broken("test", "labels", np.array(1.0)), [], "test: labels: expected"),
        (broken("test", "labels", ["good", "bad"]), [], "test: labels: expected numbers (N,)"),
        (broken("test", "raw_text", ["one"]), [], "test: raw_text: expected N = 2"),
        (make_cmu(), ["--text_length", "2"], "--text_length 2: expected 3"),
        (make_cmu(), ["--text_length", "65"], "--text_length 65"),
        (make_cmu(), ["--transcripts", "nowhere"], "--transcripts nowhere"),
        (make_cmu(), ["--datasetName", "sims"], "--datasetName"),
        (make_cmu(), ["--bert", "./nowhere"], "./nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(prepare, content, argv, complaint):
    status, made, printed = prepare(content, *argv)
    assert status == 2 and made is None
    assert complaint in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_folders_and_inputs_are_not_overwritten(tmp_path, prepare):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output in ("mine", "cmu.pkl", "label.csv"):
        argv = ["--transcripts", write_table(tmp_path / "label.csv"), "--output", tmp_path / output]
        status, _, printed = prepare(make_cmu(), *argv)
        assert status == 2 and printed.startswith(f"error: {tmp_path / output}:")
    assert (tmp_path / "mine" / "thesis.txt").exists() and pickle.loads((tmp_path / "cmu.pkl").read_bytes())["train"]
    assert (tmp_path / "label.csv").read_text().startswith("video_id")


def test_starts_from_any_folder(tmp_path):
    command = [sys.executable, REPOSITORY / "data" / "TextPre.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--transcripts" in done.stdout and not done.stderr
