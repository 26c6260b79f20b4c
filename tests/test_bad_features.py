"""Feature files with typical mistakes: one line names the file, split, key and fix, and nothing is written."""

import os
import shutil

import numpy as np
import pytest
import tiny


def write_spoiled(workplace, split: str, key: str, value) -> None:
    """Rewrites the feature file with one array changed; value None removes it."""
    features = tiny.make_features()
    if value is None:
        del features[split][key]
    else:
        features[split][key] = value(features[split][key]) if callable(value) else value
    tiny.write_features(workplace.features, features)


def test_missing_file_at_the_path(fails, workplace):
    line = fails("--dataPath", str(workplace.folder / "nowhere.pkl"))
    assert "nowhere.pkl" in line and "--dataPath" in line and "--datasetName demo" in line


def test_missing_file_at_the_default_path(workplace, capsys, monkeypatch):
    monkeypatch.setenv("SELF_MM_DATA", str(workplace.folder / "empty"))
    import run

    assert run.main(["--datasetName", "MOSI", "--bert", str(workplace.bert)]) == 2
    assert os.path.join("MOSI", "Processed", "unaligned_50.pkl") in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"video_id,clip_id\n1,2\n", b"", b"\x80\x04", b"(lp0\n"])
def test_file_that_is_not_a_pickle(fails, workplace, content):
    workplace.features.write_bytes(content)
    assert "unaligned.pkl: not a feature pickle" in fails()


def test_folder_instead_of_a_feature_file(fails, workplace):
    assert "directory" in fails("--dataPath", str(workplace.folder))


@pytest.mark.parametrize("key", ["id", "audio", "vision", "regression_labels", "audio_lengths", "vision_lengths"])
def test_missing_key(fails, workplace, key):
    write_spoiled(workplace, "valid", key, None)
    line = fails()
    assert "unaligned.pkl: valid: " in line and f"{key}: missing" in line


def test_missing_lengths_suggest_aligned(fails, workplace):
    write_spoiled(workplace, "train", "audio_lengths", None)
    assert "--aligned" in fails()


def test_missing_split(fails, workplace):
    features = tiny.make_features()
    del features["test"]
    tiny.write_features(workplace.features, features)
    assert "no split 'test'" in fails()


def test_split_without_any_text(fails, workplace):
    features = tiny.make_features()
    del features["test"]["raw_text"], features["test"]["text_bert"]
    tiny.write_features(workplace.features, features)
    assert "{'text_bert': ['test'], 'raw_text': ['test']}" in fails()


def test_width_that_differs_between_splits(fails, workplace):
    write_spoiled(workplace, "test", "audio", lambda audio: audio[:, :, :3])
    line = fails()
    assert "audio" in line and "'train': 5" in line and "'test': 3" in line


def test_array_of_the_wrong_shape(fails, workplace):
    write_spoiled(workplace, "train", "vision", lambda vision: vision[:, 0])
    assert "train: vision: expected" in fails()


def test_text_bert_as_the_released_datapre_writes_it(fails, workplace):
    write_spoiled(workplace, "train", "text_bert", lambda tokens: tokens.transpose(0, 2, 1))
    assert "swapped" in fails()


def test_lengths_beyond_the_array(fails, workplace):
    write_spoiled(workplace, "train", "audio_lengths", lambda lengths: [*lengths[:4], 16, *lengths[5:]])
    line = fails()
    assert "train: audio_lengths: clip video1$_$4 has 16" in line and "1 to 15" in line


def test_a_label_of_5(fails, workplace):
    write_spoiled(workplace, "test", "regression_labels", lambda labels: np.append(labels[:-1], np.float32(5)))
    line = fails()
    assert "test: regression_labels: clip video22$_$8 has 5" in line and "[-3, 3]" in line


def test_cached_file_is_checked_against_the_range_of_each_dataset(fails, workplace):
    assert workplace.run("--max_epochs", "1") == 0
    assert "outside [-1, 1], the range of sims" in fails("--datasetName", "sims")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (lambda texts: [text.split() for text in texts], "number 0 is not a text"),
        (lambda texts: [None, *texts[1:]], "raw_text: number 0 is not a text: 'NoneType'"),
        (lambda texts: [*texts[:-1], b"caf\xe9"], "number 20 is not a text"),
        (lambda texts: [*texts[:-1], "\ud800"], "number 20 is not a text"),
        (lambda texts: texts[:-1], "raw_text: expected N = 21 texts"),
    ],
)
def test_invalid_texts(fails, workplace, value, complaint):
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
    features["train"]["raw_text"] = value(features["train"]["raw_text"])
    tiny.write_features(workplace.features, features)
    assert complaint in fails()


def test_unused_texts_may_be_anything(workplace):
    write_spoiled(workplace, "train", "raw_text", lambda texts: [None, b"caf\xe9", "\ud800", *texts[3:]])
    assert workplace.run("--max_epochs", "1") == 0


def test_splits_with_different_kinds_of_text(fails, workplace):
    features = tiny.make_features()
    del features["train"]["raw_text"], features["test"]["text_bert"]
    tiny.write_features(workplace.features, features)
    assert "{'text_bert': ['test'], 'raw_text': ['train']}" in fails()


@pytest.mark.parametrize("kind", [list, lambda clips: np.array(clips, dtype=object)])
def test_clips_of_different_shapes_in_one_array(fails, workplace, kind):
    write_spoiled(workplace, "train", "audio", lambda audio: kind([clip[: 1 + n % 5] for n, clip in enumerate(audio)]))
    line = fails()
    assert "train: audio: " in line and "padded to one length" in line


def test_token_ids_beyond_any_vocabulary(fails, workplace):
    write_spoiled(
        workplace, "valid", "text_bert", lambda tokens: tokens * np.int64([[1], [1], [10**12]]) + [[10**12], [0], [0]]
    )
    assert "valid: text_bert: clip video10$_$0" in fails()


def test_nan_in_the_labels(fails, workplace):
    write_spoiled(workplace, "train", "regression_labels", lambda labels: np.append(labels[:-1], np.float32("nan")))
    assert "train: regression_labels: clip video6$_$20 has nan" in fails()


def test_all_labels_positive(fails, workplace):
    write_spoiled(workplace, "train", "regression_labels", np.abs)
    assert "train: all 21 labels have the same sign" in fails()


def test_no_positive_label_if_zero_belongs_to_neither_class(fails, workplace):
    write_spoiled(workplace, "train", "regression_labels", lambda labels: np.minimum(labels, 0))
    assert workplace.run() == 0  # neutral clips count as positive
    shutil.rmtree("results"), shutil.rmtree("logs")
    workplace.remember_inputs()
    assert "fusion labels" in fails("--preset", "mmsa")
