"""CMU's features and transcripts become feature files, aligned and unaligned."""

import csv
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch

import run
from config.config_regression import DATASETS, REPOSITORY
from data import TextPre
from data.builders.cmu import frames_of_tokens, without_padding
from data.builders.transcripts import ClipName, Transcripts
from data.schema import read_feature_file
from models.pretrained_bert import load_bert, load_tokenizer

MOSI = DATASETS["mosi"]
VOCABULARY = [*tiny.VOCABULARY, "good", "long", "##er", "##est", "don", "'", "t", "!"]
GOOD, LONG, ER, EST, DON, QUOTE, T, MARK = range(len(tiny.VOCABULARY), len(VOCABULARY))
SENTENCE = "good longerest don't word1"  # 4 words, 8 tokens
OWNERS = [0, 1, 1, 1, 2, 2, 2, 3]
FRAMES, WIDTHS = 6, {"audio": 3, "vision": 2}
TEXTS = {  # of each clip, by split
    "train": [SENTENCE, "word1", "good", "word2 good word3 !", "long word4"],
    "valid": ["word5 word6", "good !"],
    "test": ["longer good", "word7"],
}
LABELS = {"train": [-1.0, 2.5, 0.0, -3.0, 1.0], "valid": [1.0, -2.0], "test": [0.4, -0.4]}
IDS = {"train": [f"vid_{number}" for number in range(5)], "valid": ["va_0", "va_1"], "test": ["te_0", "te_1"]}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tiny.write_bert(tmp_path_factory.mktemp("bert"), vocab_size=len(VOCABULARY))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def frame(word: int, key: str) -> np.ndarray:
    return np.arange(1, WIDTHS[key] + 1) + 10 * (word + 1)


def make_cmu(in_front: bool = True) -> dict:
    """A frame for each word of TEXTS, padded at one end, and raw_text."""
    content = {}
    for split, texts in TEXTS.items():
        content[split] = {
            "text": np.zeros((len(texts), FRAMES, 7), np.float32),
            "labels": np.array(LABELS[split]).reshape(-1, 1, 1),
            "id": np.array(IDS[split]),
            "raw_text": list(texts),
        }
        for key, width in WIDTHS.items():
            values = content[split][key] = np.zeros((len(texts), FRAMES, width))
            for clip, text in enumerate(texts):
                count = len(text.split())
                first = FRAMES - count if in_front else 0
                values[clip, first : first + count] = [frame(word, key) for word in range(count)]
    return content


@pytest.fixture
def prepare(tmp_path, bert, capsys):
    """Writes a CMU pickle and runs TextPre.py. Returns the status, what was made (or None) and what was printed."""

    def make(content: object, *words: str):
        tiny.write_features(tmp_path / "cmu.pkl", content)
        output = tmp_path / "out" / "features.pkl"
        flags = ["--features", tmp_path / "cmu.pkl", "--output", output, "--bert", bert, *words]
        status = TextPre.main([str(flag) for flag in flags])
        made = pickle.loads(output.read_bytes()) if output.exists() else None
        return status, made, "".join(capsys.readouterr())

    return make


def write_table(path, numbered_from: int = 0):
    """What is said, as a table with times: clip n from 10 n to 10 n + 5 s."""
    rows = ["video_id,clip_id,text,start,end"]
    for split, texts in TEXTS.items():
        video = IDS[split][0].rsplit("_", 1)[0]
        rows += [f'{video},{n + numbered_from},"{text}",{10 * n},{10 * n + 5}' for n, text in enumerate(texts)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("in_front", [True, False])
def test_each_token_gets_the_frame_of_its_word_and_cls_and_sep_get_zeros(prepare, in_front):
    status, made, printed = prepare(make_cmu(in_front), "--aligned", "--text_length", "12")
    assert status == 0 and "0 clips have more or fewer words than frames" in printed
    train = made["train"]
    assert train["text_bert"][0, 0].tolist() == [2, GOOD, LONG, ER, EST, DON, QUOTE, T, 6, 3, 0, 0]
    for key in WIDTHS:
        expected = np.zeros((12, WIDTHS[key]))
        expected[1:9] = [frame(word, key) for word in OWNERS]
        np.testing.assert_array_equal(train[key][0], expected)
        assert train[key].shape == (5, 12, WIDTHS[key]) and train[key].dtype == np.float32
    assert "audio_lengths" not in train and "vision_lengths" not in train


def test_a_text_that_is_too_long_is_cut_and_sep_stays_last(prepare):
    _, made, printed = prepare(make_cmu(), "--aligned", "--text_length", "5")
    assert made["train"]["text_bert"][0].tolist() == [[2, GOOD, LONG, ER, 3], [1] * 5, [0] * 5]
    expected = [np.zeros(3), *(frame(word, "audio") for word in (0, 1, 1)), np.zeros(3)]
    np.testing.assert_array_equal(made["train"]["audio"][0], expected)
    assert "text: length 5, 2 longer texts cut" in printed


def test_a_face_that_is_not_found_does_not_shift_the_words(prepare):
    content = make_cmu()
    content["train"]["vision"][0, -3:] = 0  # more zeros than the padding has
    content["train"]["vision"][1] = 0
    _, made, printed = prepare(content, "--aligned", "--text_length", "12")
    np.testing.assert_array_equal(made["train"]["vision"][0, 1], frame(0, "vision"))
    assert not made["train"]["vision"][0, 2:].any() and not made["train"]["vision"][1].any()
    assert "0 clips have more or fewer words than frames" in printed


def test_sound_and_face_may_be_padded_at_different_ends():
    sound, face = np.zeros((5, 2), np.float32), np.zeros((5, 2), np.float32)
    sound[2:], face[:3] = np.arange(6).reshape(3, 2) + 1, np.arange(6).reshape(3, 2) + 1
    both = np.concatenate([sound, face], axis=1)
    for frames in (sound, face):
        found = frames_of_tokens(frames, both, 3, [None, 0, 2, 1, None])
        assert found.tolist() == [[0, 0], [1, 2], [5, 6], [3, 4], [0, 0]]


def test_where_both_ends_have_as_many_zeros_words_end_with_the_frames_and_sequences_begin_with_them():
    frames = np.array([[0], [1], [2], [0]], np.float32)
    assert frames_of_tokens(frames, frames, 3, [0, 1, 2])[:, 0].tolist() == [1, 2, 0]
    assert without_padding(frames)[:, 0].tolist() == [0, 1, 2]


def test_clips_with_more_or_fewer_words_than_frames_are_counted(prepare):
    content = make_cmu()
    content["train"]["raw_text"][0] = SENTENCE + " good"
    content["test"]["raw_text"][1] = " ".join(["word1"] * (FRAMES + 1))
    content["test"]["audio"][1] = 1  # as many as the pickle has room for
    _, made, printed = prepare(content, "--aligned", "--text_length", "12")
    assert "1 clips have more or fewer words than frames" in printed
    assert made["test"]["audio"][1, 1:8].sum(axis=1).tolist() == [3] * FRAMES + [0]


def test_words_are_tokenised_as_the_whole_sentence(prepare, bert):
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
    tokenizer = load_tokenizer(str(bert))
    for text, said, (ids, mask, _) in zip(texts, made["train"]["raw_text"], made["train"]["text_bert"], strict=True):
        assert said == " ".join(text.split())
        assert ids[: mask.sum()].tolist() == tokenizer(said, truncation=True, max_length=12)["input_ids"]


def test_text_holds_berts_vectors_of_the_tokens_that_are_kept(prepare, bert):
    _, made, _ = prepare(make_cmu(), "--aligned", "--text_length", "5")
    tokens = torch.from_numpy(made["train"]["text_bert"][0, :1])
    with torch.inference_mode():
        expected = load_bert(str(bert)).eval()(tokens).last_hidden_state[0].numpy()
    np.testing.assert_allclose(made["train"]["text"][0], expected, atol=1e-6)
    assert made["train"]["text"].shape == (5, 5, 16) and not made["train"]["text"][1, 3:].any()


def test_unaligned_sequences_begin_in_front_and_have_their_lengths(prepare):
    content = make_cmu()
    audio = content["train"]["audio"] = np.zeros((5, 9, 3), np.float32)
    audio[0, 6:] = audio[1, :2] = audio[2, 3:7] = audio[3] = 1  # in front; at the end; at either end; without padding
    audio[0, 7] = 0  # zeros inside stay
    status, made, _ = prepare(content)
    train = made["train"]
    assert status == 0 and train["audio_lengths"].tolist() == [3, 2, 6, 9, 1]
    assert [clip.any(axis=1).tolist().index(True) for clip in train["audio"][:4]] == [0] * 4
    assert train["audio"][0, :4, 0].tolist() == [1, 0, 1, 0] and train["audio"][2, :7, 0].tolist() == [1] * 4 + [0] * 3
    assert train["audio"].shape == (5, 9, 3) and made["test"]["audio"].shape == (2, 9, 3)
    assert train["vision_lengths"].tolist() == [4, 1, 1, 4, 2] and train["text_bert"].shape == (5, 3, 50)


def test_what_is_not_finite_becomes_zero_and_is_counted(prepare):
    content = make_cmu()
    content["train"]["audio"][0, -1] = [-np.inf, np.inf, 7]
    content["valid"]["audio"][1, -1, 0] = 1e300  # too large for float32
    content["test"]["vision"][0, 0] = np.nan  # in the padding
    _, made, printed = prepare(content)
    assert made["train"]["audio"][0, 3].tolist() == [0, 0, 7] and made["test"]["vision_lengths"][0] == 2
    assert "made 0, as not finite: 2 in train, 1 in valid, 0 in test" in printed
    assert "made 0, as not finite: 0 in train, 0 in valid, 2 in test" in printed


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


def test_places_count_from_0_and_the_clips_of_mosi_from_1(tmp_path, prepare):
    content = make_cmu()
    for split in TEXTS:
        content[split]["id"] = [name.replace("_", "[") + "]" for name in IDS[split]]
    status, made, printed = prepare(content, "--transcripts", write_table(tmp_path / "label.csv", numbered_from=1))
    assert status == 0 and "video[0] was taken for clip 1" in printed
    assert made["train"]["raw_text"].tolist() == TEXTS["train"] and made["train"]["id"][0] == "vid$_$1"
    for split in TEXTS:  # in a part of a corpus, without any [0], a place is a number
        content[split]["id"] = [f"{name.split('_')[0]}[{clip + 1}]" for clip, name in enumerate(IDS[split])]
    status, made, _ = prepare(content, "--transcripts", tmp_path / "label.csv")
    assert status == 0 and made["train"]["id"][0] == "vid$_$1"
    transcripts = Transcripts(tmp_path / "label.csv")
    transcripts.count_places([ClipName.read("vid[0]")])
    assert transcripts.find(ClipName.read("vid[3]"))[1] == "4" and transcripts.find(ClipName.read("vid_3"))[1] == "3"


def test_transcripts_are_read_as_cmu_ships_them(tmp_path):
    mosi, mosei = tmp_path / "MOSI" / "Segmented", tmp_path / "MOSEI" / "Combined"
    mosi.mkdir(parents=True)
    mosei.mkdir(parents=True)
    (mosi / "a_b.annotprocessed").write_bytes(b"1_DELIM_FIRST ONE\r\n12_DELIM_  IT'S _DELIM_ \r\n\r\n")
    (mosei / "x.txt").write_bytes(b"x____0___0___1.5e1___I said ___ \x93so\x94\nx____1___2.5___3___\n")
    (mosei / "notes.txt").write_text("not a transcript")
    (tmp_path / "x.txt").write_text("x____0___0___15___another of the same clip")
    videos = Transcripts(tmp_path).videos
    assert {clip: line.text for clip, line in videos["a_b"].items()} == {"1": "FIRST ONE", "12": "IT'S _DELIM_"}
    assert set(videos) == {"a_b", "x_"} and set(videos["x_"]) == {"0", "1"}
    assert videos["x_"]["0"].times == (0, 15) and videos["x_"]["0"].text == "I said ___ \u201cso\u201d"


def test_times_that_fit_no_clip_or_two_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "video_id,clip_id,text,start,end\na_1,3,near,1.0,2.0\na_1,4,nearer,1.05,2.0\nb,1,x,1,2\nb,2,y,1,2\nc,1,z,,\n"
    )
    transcripts = Transcripts(path)
    assert transcripts.find(ClipName.read(["a_1", "1.06", 2.01])) == ("a_1", "4", "nearer")
    for name, reason in {
        ("a_1", 1.2, 2): "no transcript of the video from 1.2 to 2 s",
        ("b", 1, 2): "2 transcripts",
        ("c", 1, 2): "say no times",
        ("d_1", "x", "y"): "no transcript of the video d",
        "a": "no transcript of the video a",
        ("b",): "names no clip",
        "b[7]": "no transcript of clip 7 of the video b",
    }.items():
        with pytest.raises(ValueError, match=reason):
            transcripts.find(ClipName.read(name))


def test_clips_that_can_not_be_used_are_listed_and_the_others_written(tmp_path, prepare):
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
        found = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert set(found) == {"vid_1", "vid_2", "vid_4", "va_0"}
    assert "label 3.5" in found["vid_1"] and "label nan" in found["vid_2"] and "empty" in found["vid_4"]
    assert "another clip before it is va$_$0, too" in found["va_0"]
    assert prepare(make_cmu())[0] == 0 and not (tmp_path / "out" / "errors.csv").exists()


def test_ids_that_name_no_clip_stay_as_they_are_where_the_pickle_has_the_words(prepare):
    content = make_cmu()
    content["valid"]["id"] = np.array([["a_1", "1.5", "2"], ["a_1", "2", "3"]])
    content["test"]["id"] = np.array([b"one", b"two[3]"])
    status, made, _ = prepare(content)
    assert status == 0
    assert made["valid"]["id"].tolist() == ["a_1_1.5_2", "a_1_2_3"] and made["test"]["id"].tolist() == [
        "one",
        "two$_$3",
    ]


def test_the_file_is_of_the_official_layout_and_says_what_made_it(tmp_path, prepare):
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
def test_run_trains_on_what_comes_out_by_the_command_that_is_printed(tmp_path, prepare, monkeypatch, flags):
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
    ("content", "words", "complaint"),
    [
        ([1], [], "holds a list"),
        ({"train": {}, "valid": {}}, [], "train: id: expected"),
        ({"train": make_cmu()["train"]}, [], "no split 'valid'"),
        (broken("valid", "id", np.array("one")), [], "valid: id: expected"),
        (broken("valid", "id", []), [], "valid: id: expected"),
        (broken("valid", "audio", np.zeros((2, 4))), [], "valid: audio: expected (N, frames, width)"),
        (broken("valid", "audio", np.zeros((3, 4, 3))), [], "valid: audio: expected (N, frames, width)"),
        (broken("test", "vision", np.zeros((2, 6, 4))), [], "vision has not the same width"),
        (broken("test", "vision", np.zeros((2, 7, 2))), ["--aligned"], "leave out --aligned"),
        (broken("test", "labels", np.zeros((2, 1, 7))), [], "test: labels: expected one number for each clip"),
        (broken("test", "labels", np.array(1.0)), [], "test: labels: expected"),
        (broken("test", "labels", ["good", "bad"]), [], "test: labels: expected an array of numbers"),
        (broken("test", "raw_text", ["one"]), [], "test: raw_text: expected N = 2"),
        (make_cmu(), ["--text_length", "2"], "--text_length 2: expected 3"),
        (make_cmu(), ["--text_length", "65"], "no more than 64"),
        (make_cmu(), ["--transcripts", "nowhere"], "--transcripts nowhere: no transcript there"),
        (make_cmu(), ["--datasetName", "sims"], "--datasetName"),
        (make_cmu(), ["--bert", "./nowhere"], "no such folder"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_writes_nothing(prepare, content, words, complaint):
    status, made, printed = prepare(content, *words)
    assert status == 2 and made is None
    assert complaint in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_a_pickle_without_words_needs_transcripts(prepare):
    content = make_cmu()
    del content["train"]["raw_text"]
    assert "train: raw_text: missing; say with --transcripts" in prepare(content)[2]


def test_tables_that_are_none_are_refused(tmp_path, prepare):
    (tmp_path / "a.csv").write_text("video_id,text\nvid,word1\n")
    assert "has no column clip_id; it has video_id, text" in prepare(make_cmu(), "--transcripts", tmp_path / "a.csv")[2]
    (tmp_path / "a.csv").write_text("")
    assert "no transcript there" in prepare(make_cmu(), "--transcripts", tmp_path / "a.csv")[2]


def test_no_folder_and_no_input_is_overwritten(tmp_path, prepare):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output in ("mine", "cmu.pkl", "label.csv"):
        words = ["--transcripts", write_table(tmp_path / "label.csv"), "--output", tmp_path / output]
        status, _, printed = prepare(make_cmu(), *words)
        assert status == 2 and ("is a folder" in printed or "is to be read" in printed)
    assert (tmp_path / "mine" / "thesis.txt").exists() and pickle.loads((tmp_path / "cmu.pkl").read_bytes())["train"]
    assert (tmp_path / "label.csv").read_text().startswith("video_id")


def test_the_program_starts_from_any_folder(tmp_path):
    command = [sys.executable, REPOSITORY / "data" / "TextPre.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "--transcripts" in done.stdout and not done.stderr
