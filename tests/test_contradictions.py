"""Two sources that contradict each other are compared: a warning, or one line and exit status 2."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny
from run_files import checkpoint
from transformers import BertModel

import run
from data import feature_file
from data.doubts import find_doubts
from data.schema import OFFICIAL, read_feature_file
from models.pretrained_bert import load_tokenizer


def changed(split="train", **values) -> dict:
    """tiny's features with some arrays of a split replaced, by a value or by a function of the old one."""
    features = tiny.make_features()
    for key, value in values.items():
        features[split][key] = value(features[split][key]) if callable(value) else value
    return features


def doubts(tmp_path, mosi, features) -> list[str]:
    return find_doubts(read_feature_file(tiny.write_features(tmp_path / "f.pkl", features), mosi, False), mosi)


@pytest.fixture
def mosi():
    from config.config_regression import DATASETS

    return DATASETS["mosi"]


def all_padded(frames: np.ndarray) -> list[int]:
    return [frames.shape[1]] * len(frames)


TRAIN = tiny.make_features()["train"]


@pytest.mark.parametrize(
    ("features", "doubt"),
    [
        (changed(audio_lengths=all_padded(TRAIN["audio"])), "train: {} of 21 clips, such as {}, end in zeros within"),
        (changed(audio=TRAIN["audio"][:, ::-1]), "at the front of audio than at the end"),
        (changed(vision_lengths=[1] * 21), "have frames beyond their vision_lengths"),
        (changed(vision=TRAIN["vision"] * np.float32(2.9e7)), "vision values up to"),
        (changed(text_bert=TRAIN["text_bert"] * [[1], [0], [0]] + [[0], [1], [0]]), "end in [PAD] where"),
        (changed(raw_text=["nan", " ", *TRAIN["raw_text"][2:]]), "2 of 21 clips, such as video0$_$0, have no text"),
        (changed("test", id=["video0$_$77", *tiny.make_features()["test"]["id"][1:]]), "1 videos occur more than once"),
    ],
)
def test_doubtful_values_are_named_by_check_and_by_a_run(workplace, capsys, features, doubt):
    tiny.write_features(workplace.features, features)
    assert feature_file.main(["CHECK", str(workplace.features)]) == 2
    checked = capsys.readouterr().out
    expected = doubt.split("{}")[0]
    assert "mistake: " in checked and expected in checked
    assert workplace.run("--max_epochs", "1") == 0
    logged = capsys.readouterr().out
    assert any("warning: " in line and expected in line for line in logged.splitlines())


def test_a_length_that_covers_padding_is_counted_by_hand(tmp_path, mosi):
    features = changed(audio_lengths=all_padded(TRAIN["audio"]))
    shorter = sum(length < 15 for length in TRAIN["audio_lengths"])
    (doubt,) = doubts(tmp_path, mosi, features)
    assert doubt.startswith(f"train: {shorter} of 21 clips, such as video0$_$")


def test_good_files_raise_no_doubt(tmp_path, mosi):
    assert doubts(tmp_path, mosi, tiny.make_features()) == []
    padded_by_standardizing = tiny.make_features()
    for split in padded_by_standardizing.values():
        split["audio"] = (split["audio"] - 0.3) / 1.7
    assert doubts(tmp_path, mosi, padded_by_standardizing) == []


def test_labels_of_a_smaller_range_are_another_datasets(tmp_path, mosi):
    assert "does --datasetName" in doubts(tmp_path, mosi, tiny.make_features(bound=1.0))[0]


@pytest.mark.parametrize("known", ["sha1", "sha256"])
def test_official_files_are_taken_as_they_are(tmp_path, mosi, monkeypatch, known):
    file = read_feature_file(tiny.write_features(tmp_path / "f.pkl", changed(vision_lengths=[1] * 21)), mosi, False)
    assert find_doubts(file, mosi)
    monkeypatch.setitem(OFFICIAL, {"sha1": file.sha1, "sha256": file.sha256()}[known], "an official file")
    assert find_doubts(file, mosi) == []


def test_a_file_without_doubts_is_hashed_once(tmp_path, mosi):
    """A training must not wait for a second hash."""
    file = read_feature_file(tiny.write_features(tmp_path / "f.pkl", tiny.make_features()), mosi, False)
    file.path.unlink()  # reading it again would fail
    assert find_doubts(file, mosi) == []


def test_aligned_for_a_file_with_lengths_of_its_own(fails, workplace):
    features = tiny.make_features()
    for split in features.values():  # long enough for all tokens
        for key in ("audio", "vision"):
            split[key] = np.pad(split[key], ((0, 0), (0, 5), (0, 0)))
    tiny.write_features(workplace.features, features)
    line = fails("--aligned")
    assert "train: audio_lengths: clip " in line and "leave out --aligned" in line


def test_aligned_for_a_checkpoint_trained_unaligned(workplace, capsys):
    assert workplace.run("--max_epochs", "1") == 0
    flags = ["--test_only", str(checkpoint()), "--dataPath", str(workplace.features), "--aligned", "--gpu_ids", "-1"]
    assert run.main(flags) == 2
    assert "--aligned: " in (line := capsys.readouterr().err) and "trained on unaligned" in line


def shuffled_ids(features: dict) -> dict:
    """The same texts in ids of another vocabulary: every id is valid, every word another."""
    words = np.random.default_rng(1).permutation(np.arange(5, 45))
    table = np.concatenate([np.arange(5), words])
    for split in features.values():
        split["text_bert"][:, 0] = table[split["text_bert"][:, 0]]
    return features


def test_ids_of_another_vocabulary_are_refused_with_an_example(fails, workplace):
    tiny.write_features(workplace.features, shuffled_ids(tiny.make_features()))
    line = fails()
    assert "doesn't fit the data" in line and TRAIN["raw_text"][0][:20] in line and "--bert" in line


def test_ids_that_differ_in_a_word_of_most_texts_are_a_warning(workplace, capsys):
    features = tiny.make_features()
    for split in features.values():
        split["text_bert"][:, 0, 1] = 1  # [UNK], as a capital is to a cased tokenizer with an uncased vocabulary
        split["raw_text"] = np.array([f"{text} {text}" for text in split["raw_text"]])
    tiny.write_features(workplace.features, features)
    assert workplace.run("--max_epochs", "1") == 0
    logged = capsys.readouterr().out
    assert "warning: train: the text encoder" in logged and "100% of the texts have other token ids" in logged


def raw_texts(text: str) -> dict:
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
        split["raw_text"] = [text] * len(split["raw_text"])
    return features


def test_texts_in_a_language_that_the_vocabulary_lacks(fails, workplace):
    tiny.write_features(workplace.features, raw_texts("фильм был хорош word1"))
    assert "75% of the words are unknown" in fails()


def test_texts_spelt_letter_by_letter(workplace, capsys):
    letters = [*"cosn", *(f"##{letter}" for letter in "cosn")]
    (workplace.bert / "vocab.txt").write_text("\n".join([*tiny.VOCABULARY[:5], *letters, *tiny.WORDS[13:]]) + "\n")
    tiny.write_features(workplace.features, raw_texts("coso sono no"))
    assert workplace.run("--max_epochs", "1") == 0
    assert "100% of the words are spelt by letters" in capsys.readouterr().out


def test_long_raw_texts_say_that_they_are_cut_and_how_to_keep_them(workplace, capsys):
    tiny.write_features(workplace.features, raw_texts(" ".join(tiny.WORDS[:20] * 3)))
    assert feature_file.main(["CHECK", str(workplace.features)]) == 0
    assert "keeps 50 tokens" in capsys.readouterr().out
    assert workplace.run("--max_epochs", "1") == 0
    assert "warning: train: 21 of 21 texts have more than 50 tokens" in capsys.readouterr().out
    assert workplace.run("--max_epochs", "1", "--set", "text_length=62", "batch_size=4", "update_epochs=2") == 0
    assert "are cut" not in capsys.readouterr().out


def test_a_text_length_for_a_file_with_token_ids(fails):
    assert "text_length: " in fails("--set", "text_length=20")


def test_a_feature_file_replaced_by_one_of_equal_size_and_time(workplace, mosi):
    features = tiny.make_features()
    for split in features.values():  # larger than the samples of the content
        split["padding"] = np.zeros(200_000)
    tiny.write_features(workplace.features, features)
    assert workplace.run("--max_epochs", "1") == 0
    before = os.stat(workplace.features)
    features["train"]["regression_labels"][:] *= -1
    content = pickle.dumps(features)
    assert len(content) == before.st_size
    workplace.features.write_bytes(content)
    os.utime(workplace.features, ns=(before.st_atime_ns, before.st_mtime_ns))
    sha1 = read_feature_file(workplace.features, mosi, False).sha1
    assert workplace.run("--max_epochs", "1") == 0
    assert sha1 in Path("logs/self_mm-mosi.log").read_text()


def test_a_cased_vocabulary_without_tokenizer_config_keeps_capitals(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*tiny.VOCABULARY[:5], "the", "us", "US", "May", "may"]) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert load_tokenizer(str(tmp_path)).tokenize("the US May us") == ["the", "US", "May", "us"]
    (tmp_path / "vocab.txt").write_text("\n".join(tiny.VOCABULARY) + "\n")
    assert load_tokenizer(str(tmp_path)).tokenize("WORD1 Word2") == ["word1", "word2"]


def test_weights_of_more_layers_than_the_config_has(fails, workplace):
    deep = tiny.make_bert(num_hidden_layers=3)
    deep.config.num_hidden_layers = 2
    deep.save_pretrained(workplace.bert)
    line = fails()
    assert "tensors that config.json doesn't describe, such as encoder.layer.2" in line


def test_weights_with_a_pooler_and_heads_are_no_contradiction(workplace, capsys):
    bert = BertModel(tiny.make_bert_config())
    state = {f"bert.{name}": tensor for name, tensor in bert.state_dict().items()}
    state["cls.predictions.bias"] = state["bert.pooler.dense.bias"].clone()
    bert.save_pretrained(workplace.bert, state_dict=state)
    assert workplace.run("--max_epochs", "1") == 0
