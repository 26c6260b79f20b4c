"""Files as users have them: unlabelled splits, usual types and names, wrapped weights; and plain reasons for the rest."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from run_files import SEEDS_CSV, checkpoint
from safetensors.torch import load_file

import predict
from config.config_regression import DATASETS
from data.schema import SplitChecker, read_feature_file
from models.weights_file import PREFIXES

MOSI = DATASETS["mosi"]


@pytest.fixture
def score(workplace, capsys):
    """Trains a checkpoint; then scores features with predict.py. Returns the rows, or the error line."""
    assert workplace.run("--max_epochs", "1") == 0

    def check(features: dict, *argv: str):
        path = tiny.write_features(workplace.folder / "new.pkl", features)
        capsys.readouterr()
        flags = ["--checkpoint", checkpoint(), "--features", path, "--json", "--gpu_ids", -1, *argv]
        status = predict.main([str(flag) for flag in flags])
        captured = capsys.readouterr()
        return json.loads(captured.out) if status == 0 else captured.err

    return check


def test_prediction_needs_one_split_and_no_labels(score):
    features = tiny.make_features()
    labelled = score(features)
    assert {"label", "score"} <= labelled[0].keys() and len(labelled) == 9
    scores = [row["score"] for row in labelled]
    test = features["test"]
    for labels in (None, np.zeros(9), np.full(9, np.nan), np.full(9, 99), [None] * 9):
        split = {key: value for key, value in test.items() if key != "regression_labels"}
        rows = score({"test": split if labels is None else split | {"regression_labels": labels}})
        assert [row["score"] for row in rows] == scores
        assert ("label" in rows[0]) == (labels is not None and np.array_equal(labels, np.zeros(9)))
    del features["valid"]["annotations"]
    assert len(score({"dev": features["valid"]}, "--split", "valid")) == 8
    assert "no split 'test'" in score({"valid": features["valid"]})


def test_prediction_says_what_it_leaves_out_of_the_texts(score, capsys):
    features = {"test": tiny.make_features()["test"]}
    del features["test"]["text_bert"]
    features["test"]["raw_text"] = [" ".join(tiny.WORDS[:20] * 3)] * 9
    tiny.write_features(Path("long.pkl"), features)
    flags = ["--checkpoint", str(checkpoint()), "--features", "long.pkl", "--gpu_ids", "-1"]
    assert predict.main(flags) == 0
    assert "9 of 9 texts have more than 50 tokens and are cut" in capsys.readouterr().err


def test_labels_and_lengths_of_usual_types(tmp_path):
    expected = read_feature_file(tiny.write_features(tmp_path / "f.pkl"), MOSI, False).splits["train"]
    for shape in ((21, 1), (21, 1, 1)):
        features = tiny.make_features()
        for key in ("regression_labels", "audio_lengths"):
            features["train"][key] = np.reshape(features["train"][key], shape)
        features["train"]["vision_lengths"] = np.array(features["train"]["vision_lengths"], object)
        features["train"]["vision"] = features["train"]["vision"].astype(object)
        features["dev"] = features.pop("valid")
        file = read_feature_file(tiny.write_features(tmp_path / "f.pkl", features), MOSI, False)
        split = file.splits["train"]
        assert split.labels["fusion"].tolist() == expected.labels["fusion"].tolist()
        assert split.audio_lengths.tolist() == expected.audio_lengths.tolist()
        assert np.array_equal(split.vision, expected.vision) and len(file.splits["valid"]) == 8


def test_a_split_by_its_own_name_comes_before_another_name_for_it(tmp_path):
    features = tiny.make_features() | {"val": "notes"}
    assert len(read_feature_file(tiny.write_features(tmp_path / "f.pkl", features), MOSI, False).splits["valid"]) == 8


def test_files_for_other_programs_are_named(fails, workplace):
    cmu = {key: value for key, value in tiny.make_features()["train"].items() if key in ("id", "audio", "vision")}
    tiny.write_features(
        workplace.features, dict.fromkeys(("train", "dev", "test"), cmu | {"labels": np.ones((21, 1, 1))})
    )
    assert "data/TextPre.py" in fails()
    tiny.write_features(workplace.features, {name: [((1, 2), 3)] for name in ("train", "dev", "test")})
    assert "a list, as in MAG-BERT's files" in fails()


class Python2Pickler(pickle._Pickler):
    """Writes str and bytes as Python 2 wrote its str: the bytes of some encoding."""

    def save_python2(self, value):
        content = value if isinstance(value, bytes) else value.encode(self.encoding)
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {str: save_python2, bytes: save_python2}


@pytest.mark.parametrize(("encoding", "text"), [("utf-8", "这部电影"), ("utf-8", "it’s “café”"), ("gbk", "这部电影")])
def test_texts_of_python_2(tmp_path, encoding, text):
    features = tiny.make_features()
    for split in features.values():
        del split["text_bert"]
        split["raw_text"] = [text] * len(split["raw_text"])
        split["id"], split["annotations"] = [str(clip) for clip in split["id"]], []
    with open(tmp_path / "f.pkl", "wb") as file:
        pickler = Python2Pickler(file, protocol=2)
        pickler.encoding = encoding
        pickler.dump(features)
    if encoding == "utf-8":
        file = read_feature_file(tmp_path / "f.pkl", MOSI, False)
        assert file.splits["train"].raw_text == [text] * 21 and file.splits["train"].ids[1] == "video0$_$1"
    else:
        with pytest.raises(Exception, match="raw_text: number 0 is not a text"):
            read_feature_file(tmp_path / "f.pkl", MOSI, False)


def test_texts_that_are_no_utf_8_in_latin_1_stay(tmp_path):
    checker = SplitChecker(tmp_path, "train", {"raw_text": ["café Ã", "naïve", "plain"]}, MOSI, False)
    assert checker.texts("raw_text") == ["café Ã", "naïve", "plain"]


@pytest.fixture
def released(workplace) -> dict[str, torch.Tensor]:
    """The weights of a new checkpoint, under the released code's names."""
    assert workplace.run() == 0
    weights = {}
    for name, tensor in load_file(checkpoint() / "model.safetensors").items():
        theirs, ours = next((theirs, ours) for theirs, ours in PREFIXES.items() if name.startswith(ours))
        weights[theirs + name.removeprefix(ours)] = tensor
    return weights


def test_weights_of_dataparallel_and_in_wrappers(workplace, released, capsys):
    parallel = {f"module.{name}": tensor for name, tensor in released.items()}
    inside = {name.replace("text_model.", "text_model.module."): tensor for name, tensor in released.items()}
    loss = f"{pd.read_csv(SEEDS_CSV)['Loss'][0]:.4f}"
    for content in (
        parallel,
        inside,
        {"state_dict": parallel, "epoch": 3},
        {"model": released, "optimizer": {"lr": 1}},
    ):
        torch.save(content, "other.pth")
        capsys.readouterr()
        assert workplace.run("--test_only", "other.pth") == 0
        assert loss in capsys.readouterr().out


def test_weights_with_a_nan_are_named(workplace, released, capsys):
    released["Model.post_text_layer_2.bias"][0] = float("nan")
    torch.save(released, "diverged.pth")
    assert workplace.run("--test_only", "diverged.pth") == 2
    assert "diverged.pth: 1 of " in (line := capsys.readouterr().err) and "heads.text.layer_2.bias" in line
    bert = tiny.make_bert()
    bert.encoder.layer[1].output.dense.weight.data[0, 0] = float("inf")
    bert.save_pretrained(workplace.bert)
    assert workplace.run() == 2
    assert "encoder.layer.1.output.dense.weight; its training diverged" in capsys.readouterr().err


def test_a_bert_folder_without_model_type(workplace, capsys):
    config = json.loads((workplace.bert / "config.json").read_text())
    del config["model_type"], config["architectures"]
    (workplace.bert / "config.json").write_text(json.dumps(config))
    assert workplace.run("--max_epochs", "1") == 0
    first = pd.read_csv(SEEDS_CSV)
    config["model_type"] = "bert"
    (workplace.bert / "config.json").write_text(json.dumps(config))
    assert workplace.run("--max_epochs", "1", "--seeds", "2") == 0
    assert pd.read_csv(SEEDS_CSV)["bert"].nunique() == 1 == len(first)


def test_bert_weights_that_are_a_git_lfs_pointer(fails, workplace):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (workplace.bert / "model.safetensors").write_text(pointer)
    assert "Git LFS pointer" in fails()


def test_params_with_another_programs_config(fails, workplace):
    (workplace.folder / "mmsa.json").write_text(json.dumps({"datasetCommonParams": {}, "self_mm": {}}))
    line = fails("--params", "mmsa.json")
    assert "no hyper_parameters" in line and "--preset mmsa" in line


def test_arrays_with_swapped_axes_get_a_hint(tmp_path, label_table, capsys):
    from data import feature_file

    path = label_table()
    for kind in ("equal", "various"):
        for number, clip in enumerate(("001/0001", "001/0002", "002/1", "003/1")):
            for key, shape in (("audio", (20, 100 + number * (kind == "various"))), ("vision", (3 + number, 4))):
                file = tmp_path / kind / key / f"{clip}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, np.ones(shape))
        flags = ["BUILD", tmp_path / f"{kind}.pkl", "--labels", path, "--parts", tmp_path / kind]
        assert feature_file.main([str(flag) for flag in flags]) == (0 if kind == "equal" else 2)
        error = capsys.readouterr().err
        assert "librosa returns (width, frames)" in error and "audio" in error and "vision" not in error


def test_labels_of_a_modality_in_the_test_split_alone_are_no_error(workplace, capsys):
    features = tiny.make_features()
    features["test"]["regression_labels_T"] = features["test"]["regression_labels"]
    tiny.write_features(workplace.features, features)
    assert workplace.run("--max_epochs", "1") == 0
    assert "text MAE" in capsys.readouterr().out
