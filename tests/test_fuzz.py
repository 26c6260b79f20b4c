"""Damaged and hostile files: each is loaded, or refused in one line.

`make test` tries a few of each kind, `make fuzz` thousands.
"""

import functools
import io
import json
import pickle
import tempfile
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, strategies

from config.config_regression import DATASETS
from data.feature_file import describe
from data.schema import read_feature_file
from models.pretrained_bert import load_pretrained, load_tokenizer
from models.weights_file import read_weights
from utils.safe_pickle import load_pickle


def every_kind(protocol: int) -> dict:
    """Two clips in the official layout, and every kind of value that is admitted."""
    values = [
        {1, 2},
        frozenset("ab"),
        (None, True, 2**40),
        1.5,
        b"xyz",
        np.float32(2),
        np.str_("z"),
        np.str_(""),
        "\u00e9\u4f60",
    ]
    arrays = [
        np.array(["a", None, [1]], object),
        np.ones((2, 3)).T,
        np.ones((2, 3, 2)).transpose(1, 0, 2),
        np.ones(2, ">f4"),
        np.zeros((0, 3)),
        np.array(["\u00e9", ""]),
        np.array(b"x"),
    ]
    return tiny.make_split(2, seed=0) | {"values": values + [bytearray(b"x")] * (protocol == 5), "arrays": arrays}


SMALL = [pickle.dumps(every_kind(protocol), protocol) for protocol in range(6)]
FEATURES = [pickle.dumps(tiny.make_features(), protocol) for protocol in (2, 4, 5)]


def same(ours: object, theirs: object) -> bool:
    """Whether two values are equal in type and content, NaN included."""
    if isinstance(theirs, np.ndarray | np.generic):
        theirs = theirs.astype(theirs.dtype.newbyteorder("="))  # the only difference
        if theirs.dtype.kind == "O":
            return theirs.shape == ours.shape and same(ours.tolist(), theirs.tolist())
        return ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    if isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, dict):
        return type(ours) is dict and same(list(ours.items()), list(theirs.items()))
    return type(ours) is type(theirs) and (ours == theirs or repr(ours) == repr(theirs))


@pytest.mark.parametrize("data", SMALL)
def test_every_kind_of_value_loads_as_in_python(data, tmp_path):
    (tmp_path / "f.pkl").write_bytes(data)
    assert same(load_pickle(tmp_path / "f.pkl")[0], pickle.loads(data, encoding="latin1"))


@pytest.mark.filterwarnings("ignore:.*align should be passed")
@fuzzing.SETTINGS
@given(data=strategies.sampled_from(SMALL).flatmap(fuzzing.mutated_pickle))
def test_a_damaged_pickle_is_loaded_or_refused(data):
    with fuzzing.fresh_folder() as folder:
        (folder / "f.pkl").write_bytes(data)
        fuzzing.loaded(lambda: repr(load_pickle(folder / "f.pkl")), folder)


@fuzzing.SETTINGS
@given(data=strategies.sampled_from(FEATURES).flatmap(fuzzing.mutated_pickle))
def test_a_damaged_feature_file_is_checked_or_refused(data):
    with fuzzing.fresh_folder() as folder:
        (folder / "f.pkl").write_bytes(data)
        fuzzing.loaded(
            lambda: describe(read_feature_file(folder / "f.pkl", DATASETS["mosi"], aligned=False), DATASETS["mosi"]),
            folder,
        )


def saved(weights: dict, **how: bool) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file, **how)
    return file.getvalue()


WEIGHTS = {"a.weight": torch.randn(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16), "count": torch.tensor(3)}
WEIGHTS["tied"] = WEIGHTS["a.weight"].T
PTH = [saved(WEIGHTS), saved(WEIGHTS, _use_new_zipfile_serialization=False)]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@fuzzing.SETTINGS
@given(
    data=strategies.sampled_from(PTH).flatmap(functools.partial(fuzzing.mutated_bytes, pieces=tuple(fuzzing.OPCODES)))
)
def test_a_damaged_pth_is_loaded_or_refused(data):
    with fuzzing.fresh_folder() as folder:
        (folder / "w.pth").write_bytes(data)
        weights = fuzzing.loaded(lambda: read_weights(folder / "w.pth"), folder)
    assert weights is None or all(isinstance(tensor, torch.Tensor) for tensor in weights.values())


@functools.cache
def bert_files() -> dict[str, bytes]:
    """A --bert folder with both kinds of weights and of vocabulary."""
    with tempfile.TemporaryDirectory() as name:
        folder = tiny.write_bert(Path(name))
        load_tokenizer(str(folder)).save_pretrained(folder)
        torch.save(tiny.make_bert().state_dict(), folder / "pytorch_model.bin")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@strategies.composite
def damaged_bert(draw) -> dict[str, bytes]:
    files = dict(bert_files())
    name = draw(strategies.sampled_from(sorted(files)))
    if name.endswith(".json"):
        files[name] = draw(fuzzing.mutated_json(json.loads(files[name])))
    else:
        files[name] = draw(fuzzing.mutated_bytes(files[name]))
    if name == "pytorch_model.bin":
        del files["model.safetensors"]  # takes precedence
    if name == "vocab.txt":
        del files["tokenizer.json"]
    return files


@fuzzing.SETTINGS
@given(files=damaged_bert())
def test_a_damaged_bert_folder_is_loaded_or_refused(files):
    with fuzzing.fresh_folder() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        pretrained = fuzzing.loaded(lambda: load_pretrained(str(folder)), folder)
    if pretrained is not None:
        assert all(parameter.dtype == torch.float32 for parameter in pretrained.bert.parameters())
