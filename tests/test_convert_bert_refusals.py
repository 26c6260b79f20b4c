"""A Google checkpoint that is damaged or of another model is refused in one line, with status 2."""

import bundles
import numpy as np
import pytest
import tiny
from google_checkpoints import ARRAYS, DATA, INDEX, WORDS, write_checkpoint, write_texts


def test_an_index_that_ends_too_early(google_checkpoint, refused):
    content = (google_checkpoint / INDEX).read_bytes()
    for part in range(50):
        (google_checkpoint / INDEX).write_bytes(content[: len(content) * part // 50])
        assert INDEX in refused(google_checkpoint)


def test_shards_that_end_too_early(google_checkpoint, refused):
    content = (google_checkpoint / DATA).read_bytes()
    for part in range(50):
        (google_checkpoint / DATA).write_bytes(content[: len(content) * part // 50])
        line = refused(google_checkpoint)
        assert f"{DATA}: cannot read bert/" in line


@pytest.mark.parametrize(
    ("name", "changed", "complaint"),
    [
        (WORDS, {bundles.DTYPE: 9}, "expected float32"),
        (WORDS, {bundles.SIZE: 2**40}, WORDS),
        (WORDS, {bundles.OFFSET: 2**63 - 1}, WORDS),
        (WORDS, {bundles.OFFSET: 2**64 - 4}, WORDS),  # -4
        (WORDS, {bundles.SHAPE: bundles.shape_message([45, 2**64 - 16])}, WORDS),
        (WORDS, {bundles.SHAPE: bundles.shape_message([16, 45])}, "(45, 16)"),
        (WORDS, {bundles.SHAPE: 5}, INDEX),
        (WORDS, {bundles.SHAPE: b"\x12\xff"}, INDEX),
        (WORDS, {bundles.SHARD: 1}, "data-00001-of-00001"),
        (WORDS, {bundles.SLICES: b""}, "slices"),
        ("", {bundles.SHARDS: 2}, "data-00000-of-00002"),
    ],
)
def test_an_index_that_contradicts_itself_or_the_shards(tmp_path, refused, name, changed, complaint):
    line = refused(write_checkpoint(tmp_path / "checkpoint", changed={name: changed}))
    assert complaint in line and "bert_model.ckpt." in line


@pytest.mark.parametrize("name", ["bert_config.json", "vocab.txt", INDEX, DATA])
@pytest.mark.parametrize("content", [None, b"", b"some text\n", b"\xff\xfe\x00" * 100, b"folder"])
def test_files_that_are_missing_or_something_else(google_checkpoint, refused, name, content):
    (google_checkpoint / name).unlink()
    if content == b"folder":
        (google_checkpoint / name).mkdir()
    elif content is not None:
        (google_checkpoint / name).write_bytes(content)
    assert name in refused(google_checkpoint)


def test_the_index_of_another_model(tmp_path, refused):
    resnet = {
        f"resnet_v1_50/block1/unit_{number}/conv1/weights": np.zeros((1, 1, 4, 4), np.float32) for number in range(9)
    }
    line = refused(write_checkpoint(tmp_path / "checkpoint", resnet))
    assert "lacks 39 of the 39" in line and WORDS in line


def test_a_checkpoint_that_lacks_some_tensors(tmp_path, refused):
    some = {name: values for name, values in ARRAYS.items() if "layer_1/attention" not in name}
    assert "lacks 10 of the 39" in (line := refused(write_checkpoint(tmp_path / "checkpoint", some)))
    assert "bert/encoder/layer_1/attention/" in line


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_hidden_layers": 1}, "more than the 1 layers"),
        ({"num_hidden_layers": 3}, "lacks 16 of the 55"),
        ({"hidden_size": 32}, "(45, 32)"),
        ({"intermediate_size": 64}, "(16, 64)"),
        ({"max_position_embeddings": 512}, "(512, 16)"),
        ({"type_vocab_size": 3}, "(3, 16)"),
        ({"vocab_size": 44}, "vocab.txt: has 45 lines"),
    ],
)
def test_a_config_that_does_not_fit(google_checkpoint, refused, settings, complaint):
    write_texts(google_checkpoint, **settings)
    line = refused(google_checkpoint)
    assert complaint in line and "bert_config.json" in line


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_attention_heads": 3}, "attention heads"),
        ({"num_attention_heads": 0}, "zero"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": 2**40}, "overflow"),
        ({"vocab_size": True}, "vocab_size"),
        ({"hidden_dropout_prob": 2.0}, "dropout"),
        ({"initializer_range": [0.02]}, "initializer_range"),
        ({"hidden_act": "os.system"}, "os.system"),
    ],
)
def test_an_invalid_setting(google_checkpoint, refused, settings, complaint):
    write_texts(google_checkpoint, **settings)
    line = refused(google_checkpoint)
    assert "bert_config.json: " in line and complaint in line


@pytest.mark.parametrize("content", ["[]", "{", "[" * 10**5, '{"vocab_size": ' + "9" * 5000 + "}"])
def test_a_config_that_is_not_one(google_checkpoint, refused, content):
    (google_checkpoint / "bert_config.json").write_text(content)
    assert "bert_config.json: " in refused(google_checkpoint)


def test_a_config_without_sizes_has_those_of_bert_base(google_checkpoint, refused):
    (google_checkpoint / "bert_config.json").write_text("{}")
    assert "vocab_size is 30522" in refused(google_checkpoint)


@pytest.mark.parametrize(
    ("vocabulary", "complaint"),
    [
        (tiny.VOCABULARY[:-1], "has 44 lines, but vocab_size is 45"),
        ([*tiny.VOCABULARY, ""], "has 46 lines"),
        ([f"token{number}" for number in range(45)], "lacks [PAD]"),
    ],
)
def test_a_vocabulary_that_does_not_fit(google_checkpoint, refused, vocabulary, complaint):
    write_texts(google_checkpoint, vocabulary)
    assert complaint in refused(google_checkpoint)
