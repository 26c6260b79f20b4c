"""A Google checkpoint that is damaged, hostile or of another model is refused in one line, with status 2."""

import os
import random

import bundles
import numpy as np
import pytest
import tiny
from google_checkpoints import ARRAYS, DATA, INDEX, KERNEL, WORDS, assert_holds, write_checkpoint, write_texts

from utils.convert_bert import main


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
        assert f"{DATA}: has {len(content) * part // 50} bytes, too few: bert/" in line


def test_flipped_bits(google_checkpoint, tmp_path, capsys):
    """Only in the footer's padding, and in the block that TensorFlow makes no use of, may one be overlooked."""
    draw = random.Random(1)
    for name, times in ((INDEX, 300), (DATA, 40)):
        content = (google_checkpoint / name).read_bytes()
        overlooked = 0
        for _ in range(times):
            place = draw.randrange(len(content))
            flipped = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            (google_checkpoint / name).write_bytes(flipped)
            if main([str(google_checkpoint), str(tmp_path / "out")]) == 0:
                assert_holds(tmp_path / "out", ARRAYS)
                overlooked += 1
            else:
                line = capsys.readouterr().err
                assert name in line and line.count("\n") == 1
        assert overlooked <= (times // 20 if name == INDEX else 0)
        (google_checkpoint / name).write_bytes(content)


def test_damage_with_right_checksums(tmp_path, capsys):
    """As only malice makes it: lengths, numbers and names, in blocks whose checksums hold."""
    draw = random.Random(2)

    def spoil(content: bytes) -> bytes:
        place = draw.randrange(len(content))
        return content[:place] + bytes([draw.choice([0, 1, 127, 128, 255, content[place] ^ 1])]) + content[place + 1 :]

    said = set()
    for _ in range(150):
        folder = write_checkpoint(tmp_path / "checkpoint", names_in_block=20, spoil=spoil)
        if main([str(folder), str(tmp_path / "out")]) == 0:
            assert_holds(tmp_path / "out", ARRAYS)
        line = capsys.readouterr().err
        assert line.count("\n") <= 1
        said |= {words for words in ("cut short", "in no order", "don't agree", "lacks", "differs") if words in line}
    assert len(said) == 5


@pytest.mark.parametrize(
    ("name", "changed", "complaint"),
    [
        (WORDS, {bundles.DTYPE: 9}, "TensorFlow's type 9"),
        (WORDS, {bundles.SIZE: 2**40}, "don't agree"),
        (WORDS, {bundles.OFFSET: 2**63 - 1}, "too few"),
        (WORDS, {bundles.OFFSET: 2**64 - 4}, "too few"),  # -4
        (WORDS, {bundles.SHAPE: bundles.shape_message([45, 2**64 - 16])}, "don't agree"),
        (WORDS, {bundles.SHAPE: bundles.shape_message([2**62, 4])}, "don't agree"),
        (WORDS, {bundles.SHAPE: bundles.shape_message([2**60] * 10_000)}, "don't agree"),
        (WORDS, {bundles.SHAPE: bundles.shape_message([16, 45])}, "has the shape (16, 45)"),
        (WORDS, {bundles.SHAPE: 5}, "don't agree"),
        (WORDS, {bundles.SHAPE: b"\x12\xff"}, "cut short"),
        (WORDS, {bundles.SHARD: 1}, "don't agree"),
        (WORDS, {bundles.SLICES: b""}, "stored in slices"),
        (KERNEL, {bundles.CRC: 0}, "is damaged: its checksum differs"),
        ("", {bundles.ENDIANNESS: 1}, "big-endian"),
        ("", {bundles.SHARDS: 2}, "data-00000-of-00002: can't be read"),
        ("", {bundles.SHARDS: 0}, "don't agree"),
    ],
)
def test_an_index_that_states_what_is_not_so(tmp_path, refused, name, changed, complaint):
    line = refused(write_checkpoint(tmp_path / "checkpoint", changed={name: changed}))
    assert complaint in line and "bert_model.ckpt." in line


def test_tensors_that_share_their_place(tmp_path, refused):
    """Else a small checkpoint could fill a disk."""
    one, last = "bert/encoder/layer_0/attention/self/key/kernel", max(ARRAYS)
    arrays = ARRAYS | {last: ARRAYS[one]}
    offset = sum(arrays[name].nbytes for name in arrays if name < one)
    folder = write_checkpoint(tmp_path / "checkpoint", arrays, changed={last: {bundles.OFFSET: offset}})
    os.truncate(folder / DATA, (folder / DATA).stat().st_size - ARRAYS[last].nbytes)
    assert "share their place" in refused(folder)


def test_compressed_blocks(tmp_path, refused):
    assert "compressed" in refused(write_checkpoint(tmp_path / "checkpoint", compression=1))


def test_an_index_that_is_too_large(google_checkpoint, refused):
    with open(google_checkpoint / INDEX, "r+b") as file:
        file.truncate(1 << 33)  # takes no place on the disk
    assert "larger than any BERT's" in refused(google_checkpoint)


def test_names_that_would_unfold_without_end(tmp_path, refused):
    pairs = [(b"", b"")] + [(b"a" * 400 + number.to_bytes(3, "big") + b"b" * 500, b"") for number in range(100)]
    (write_checkpoint(tmp_path / "checkpoint") / INDEX).write_bytes(bundles.table(pairs))
    assert "a name is longer than any BERT's" in refused(tmp_path / "checkpoint")


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
    assert f"lacks 39 of the 39 tensors that bert_config.json asks for, {WORDS} first" in line


def test_a_checkpoint_that_lacks_some_tensors(tmp_path, refused):
    some = {name: values for name, values in ARRAYS.items() if "layer_1/attention" not in name}
    assert "lacks 10 of the 39" in (line := refused(write_checkpoint(tmp_path / "checkpoint", some)))
    assert "bert/encoder/layer_1/attention/self/query/kernel first" in line


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_hidden_layers": 1}, "more than the 1 layers"),
        ({"num_hidden_layers": 3}, "lacks 16 of the 55"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers: expected at most 1000"),
        ({"hidden_size": 32}, f"{WORDS} has the shape (45, 16), and by bert_config.json it is (45, 32)"),
        ({"intermediate_size": 64}, "(16, 64)"),
        ({"max_position_embeddings": 512}, "(512, 16)"),
        ({"type_vocab_size": 3}, "(3, 16)"),
        ({"vocab_size": 44}, "vocab.txt: has 45 lines"),
        ({"num_attention_heads": 3}, "hidden_size: expected a multiple of num_attention_heads, found 16"),
        ({"hidden_size": "16"}, "hidden_size: expected a whole number from 1, found 16"),
        ({"hidden_size": None}, "hidden_size: expected a whole number from 1, found NoneType"),
        ({"vocab_size": True}, "vocab_size: expected a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number"),
        ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob: expected a number"),
        ({"initializer_range": [0.02]}, "initializer_range: expected a number from 0 to below 1, found list"),
        ({"hidden_act": "os.system"}, "hidden_act: expected one of gelu"),
    ],
)
def test_a_config_that_does_not_fit(google_checkpoint, refused, settings, complaint):
    write_texts(google_checkpoint, **settings)
    assert complaint in refused(google_checkpoint)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 10**5, '{"vocab_size": ' + "9" * 5000 + "}", "{}"])
def test_a_config_that_is_none(google_checkpoint, refused, content):
    (google_checkpoint / "bert_config.json").write_text(content)
    assert "bert_config.json: " in refused(google_checkpoint)


@pytest.mark.parametrize(
    ("vocabulary", "complaint"),
    [
        (tiny.VOCABULARY[:-1], "has 44 lines, but vocab_size is 45 in bert_config.json"),
        ([*tiny.VOCABULARY, ""], "has 46 lines"),
        ([f"token{number}" for number in range(45)], "has no line [PAD]"),
    ],
)
def test_a_vocabulary_that_does_not_fit(google_checkpoint, refused, vocabulary, complaint):
    write_texts(google_checkpoint, vocabulary)
    assert complaint in refused(google_checkpoint)
