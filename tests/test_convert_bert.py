"""Google's TensorFlow checkpoints become folders for --bert, exactly; what is none, or damaged, is one line, status 2.

TensorFlow itself writes some of the checkpoints here, where another interpreter has it: see `tensorflow`.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import bundles
import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer, BertModel

from config.config_regression import REPOSITORY
from models.pretrained_bert import find_bert, load_pretrained
from utils import tensor_bundle
from utils.convert_bert import main

SIZES = {
    "vocab_size": len(tiny.VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
SETTINGS = SIZES | {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "directionality": "bidi"}
INDEX, DATA = "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"
WORDS = "bert/embeddings/word_embeddings"
KERNEL = "bert/encoder/layer_1/intermediate/dense/kernel"


def make_model(seed: int = 0) -> BertModel:
    """With a pooler, as Google's checkpoints have it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(tiny.make_bert_config(max_position_embeddings=20)).eval()
        for parameter in model.parameters():  # zero biases and unit gains would hide mistakes
            parameter.data += 0.1 * torch.randn_like(parameter)
        return model


def as_google_names_them(model: BertModel) -> dict[str, np.ndarray]:
    arrays = {}
    for name, tensor in model.state_dict().items():
        *path, kind = name.split(".")
        path = "/".join(["bert", *path]).replace("/layer/", "/layer_")
        if path.endswith("_embeddings"):
            arrays[path] = tensor.numpy()
        elif path.endswith("LayerNorm"):
            arrays[f"{path}/{'gamma' if kind == 'weight' else 'beta'}"] = tensor.numpy()
        else:
            arrays[f"{path}/{'kernel' if kind == 'weight' else 'bias'}"] = tensor.numpy().T.copy()
    return arrays


MODEL = make_model()
ARRAYS = as_google_names_them(MODEL)
BESIDES = {
    "cls/predictions/output_bias": np.zeros(45, np.float32),
    "cls/seq_relationship/output_weights": np.zeros((2, 16), np.float32),
    "global_step": np.int64(1000000),
    **{f"{name}/{slot}": np.zeros_like(ARRAYS[name]) for name in (WORDS, KERNEL) for slot in ("adam_m", "adam_v")},
}


def write_texts(folder: Path, vocabulary: list[str] = tiny.VOCABULARY, **settings) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(SETTINGS | settings))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, arrays: dict[str, np.ndarray] = ARRAYS, name="bert_model.ckpt", **how) -> Path:
    write_texts(folder)
    bundles.write_bundle(folder / name, arrays, **how)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sound") / "checkpoint")


@pytest.fixture
def checkpoint(sound, tmp_path) -> Path:
    """A sound one, to be damaged."""
    return shutil.copytree(sound, tmp_path / "checkpoint")


@pytest.fixture
def converted(tmp_path, capsys):
    """Converts a checkpoint, which must succeed with one line. Returns the folder."""

    def convert(folder: Path) -> Path:
        assert main([str(folder), str(tmp_path / "out")]) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1 and captured.err == ""
        return tmp_path / "out"

    return convert


@pytest.fixture
def refused(tmp_path, capsys):
    """A conversion that must end with one line of complaint, status 2 and nothing written. Returns the line."""

    def check(folder: Path, out: Path | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main([str(folder), str(out or tmp_path / "out")]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return check


def assert_holds(out: Path, arrays: dict[str, np.ndarray]) -> None:
    """All of transformers' tensors are there, to the bit those that are under Google's names in arrays."""
    written = load_file(out / "model.safetensors")
    assert written.keys() == MODEL.state_dict().keys()
    template = BertModel(MODEL.config)
    template.load_state_dict({name: torch.from_numpy(values) for name, values in written.items()})
    for name, values in as_google_names_them(template).items():
        np.testing.assert_array_equal(values, arrays[name], strict=True)


def test_a_converted_bert_computes_the_same_to_the_bit(checkpoint, converted):
    out = converted(checkpoint)
    assert find_bert(str(out), None) == str(out)
    loaded = load_pretrained(str(out))
    tokens = loaded.tokenizer(["word3 word7", "word39"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = MODEL(**tokens)
        assert torch.equal(loaded.bert.eval()(**tokens).last_hidden_state, expected.last_hidden_state)
        whole, report = BertModel.from_pretrained(out, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
        assert torch.equal(whole.eval()(**tokens).pooler_output, expected.pooler_output)


def test_the_last_line_says_what_was_written_and_how_to_use_it(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), str(tmp_path / "made" / "out")]) == 0
    line = capsys.readouterr().out
    assert "39 tensors, 2 layers x 16, uncased" in line and line.endswith(f"--bert {tmp_path / 'made' / 'out'}\n")
    files = {path.name for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}


def test_settings_are_those_of_the_checkpoint(checkpoint, converted):
    write_texts(checkpoint, hidden_dropout_prob=0.25, hidden_act="relu")
    config = load_pretrained(str(converted(checkpoint))).bert.config
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert (config.hidden_dropout_prob, config.hidden_act) == (0.25, "relu")


def test_what_is_beside_the_encoder_is_left_out(tmp_path, converted):
    assert_holds(converted(write_checkpoint(tmp_path / "checkpoint", ARRAYS | BESIDES)), ARRAYS)


def test_several_shards_and_any_size_of_block(tmp_path, converted):
    for shards, names_in_block in ((3, 1), (2, 7), (1, 1000)):
        folder = write_checkpoint(tmp_path / f"{shards}", shards=shards, names_in_block=names_in_block)
        assert_holds(converted(folder), ARRAYS)


def test_a_checkpoint_of_another_name_if_it_is_the_only_one(tmp_path, converted, refused):
    folder = write_checkpoint(tmp_path / "checkpoint", name="model.ckpt-1000")
    assert_holds(converted(folder), ARRAYS)
    bundles.write_bundle(folder / "model.ckpt-2000", ARRAYS)
    shutil.rmtree(tmp_path / "out")
    assert "2 checkpoints, such as model.ckpt-1000.index and model.ckpt-2000.index" in refused(folder)
    bundles.write_bundle(folder / "bert_model.ckpt", ARRAYS)
    assert_holds(converted(folder), ARRAYS)


def test_half_precision_stays_what_it_is(tmp_path, converted):
    halves = {name: values.astype(np.float16) for name, values in ARRAYS.items()}
    written = load_file(converted(write_checkpoint(tmp_path / "f16", halves)) / "model.safetensors")
    assert {values.dtype.name for values in written.values()} == {"float16"}
    np.testing.assert_array_equal(written["pooler.dense.weight"], halves["bert/pooler/dense/kernel"].T)

    rounded = make_model().bfloat16().float()  # bfloat16 is the upper half of float32
    upper = {
        name: (values.view(np.uint32) >> 16).astype(np.uint16) for name, values in as_google_names_them(rounded).items()
    }
    bert = load_pretrained(str(converted(write_checkpoint(tmp_path / "bf16", upper)))).bert
    for name, tensor in bert.state_dict().items():
        assert torch.equal(tensor, rounded.state_dict()[name]), name


@pytest.mark.parametrize(
    ("word", "text", "cased"),
    [
        ("Word", "Word word5", True),
        ("##A", "word5", True),
        ("word", "Word WORD5", False),
        ("[unused1A]", "WORD5", False),
    ],
)
def test_case_matters_where_the_vocabulary_has_capitals(checkpoint, converted, word, text, cased):
    write_texts(checkpoint, [*tiny.VOCABULARY[:-1], word])
    tokenizer = AutoTokenizer.from_pretrained(converted(checkpoint))
    assert tokenizer.model_max_length == 20 and type(tokenizer).__name__.startswith("BertTokenizer")
    assert "[UNK]" not in tokenizer.tokenize(text)
    assert ("[UNK]" in tokenizer.tokenize("WORD5")) == cased


def test_line_ends_of_windows_and_words_beyond_ascii(checkpoint, converted):
    vocabulary = [*tiny.VOCABULARY[:-2], "我", "\u2028"]  # Unicode's line separator, which ends no line here
    (checkpoint / "vocab.txt").write_bytes("\r\n".join(vocabulary).encode())
    out = converted(checkpoint)
    assert (out / "vocab.txt").read_bytes() == ("\n".join(vocabulary) + "\n").encode()
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("我") == len(vocabulary) - 2


def test_the_checksum_is_crc_32c():
    assert tensor_bundle.crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    data = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8)
    row = 4 * tensor_bundle.LANES
    for length in [*range(9), 255, *(row + more for more in (-5, -1, 0, 1, 3)), 2 * row - 3, 3 * row + 6]:
        part = data[length % 5 :][:length]
        assert tensor_bundle.crc32c(part) == bundles.crc32c(part.tobytes()), length


def test_neither_torch_nor_transformers_is_imported():
    code = "import sys, utils.convert_bert; sys.exit(bool({'torch', 'transformers', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60).returncode == 0


# What the checkpoint may be instead.


def test_an_index_that_ends_too_early(checkpoint, refused):
    content = (checkpoint / INDEX).read_bytes()
    for part in range(50):
        (checkpoint / INDEX).write_bytes(content[: len(content) * part // 50])
        assert INDEX in refused(checkpoint)


def test_shards_that_end_too_early(checkpoint, refused):
    content = (checkpoint / DATA).read_bytes()
    for part in range(50):
        (checkpoint / DATA).write_bytes(content[: len(content) * part // 50])
        line = refused(checkpoint)
        assert f"{DATA}: has {len(content) * part // 50} bytes, too few: bert/" in line


def test_flipped_bits(checkpoint, tmp_path, capsys):
    """Only in the footer's padding, and in the block that TensorFlow makes no use of, may one be overlooked."""
    draw = random.Random(1)
    for name, times in ((INDEX, 300), (DATA, 40)):
        content = (checkpoint / name).read_bytes()
        overlooked = 0
        for _ in range(times):
            place = draw.randrange(len(content))
            flipped = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            (checkpoint / name).write_bytes(flipped)
            if main([str(checkpoint), str(tmp_path / "out")]) == 0:
                assert_holds(tmp_path / "out", ARRAYS)
                overlooked += 1
            else:
                line = capsys.readouterr().err
                assert name in line and line.count("\n") == 1
        assert overlooked <= (times // 20 if name == INDEX else 0)
        (checkpoint / name).write_bytes(content)


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


def test_an_index_that_is_too_large(checkpoint, refused):
    with open(checkpoint / INDEX, "r+b") as file:
        file.truncate(1 << 33)  # takes no place on the disk
    assert "larger than any BERT's" in refused(checkpoint)


def test_names_that_would_unfold_without_end(tmp_path, refused):
    pairs = [(b"", b"")] + [(b"a" * 400 + number.to_bytes(3, "big") + b"b" * 500, b"") for number in range(100)]
    (write_checkpoint(tmp_path / "checkpoint") / INDEX).write_bytes(bundles.table(pairs))
    assert "a name is longer than any BERT's" in refused(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["bert_config.json", "vocab.txt", INDEX, DATA])
@pytest.mark.parametrize("content", [None, b"", b"some text\n", b"\xff\xfe\x00" * 100, b"folder"])
def test_files_that_are_missing_or_something_else(checkpoint, refused, name, content):
    (checkpoint / name).unlink()
    if content == b"folder":
        (checkpoint / name).mkdir()
    elif content is not None:
        (checkpoint / name).write_bytes(content)
    assert name in refused(checkpoint)


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
def test_a_config_that_does_not_fit(checkpoint, refused, settings, complaint):
    write_texts(checkpoint, **settings)
    assert complaint in refused(checkpoint)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 10**5, '{"vocab_size": ' + "9" * 5000 + "}", "{}"])
def test_a_config_that_is_none(checkpoint, refused, content):
    (checkpoint / "bert_config.json").write_text(content)
    assert "bert_config.json: " in refused(checkpoint)


@pytest.mark.parametrize(
    ("vocabulary", "complaint"),
    [
        (tiny.VOCABULARY[:-1], "has 44 lines, but vocab_size is 45 in bert_config.json"),
        ([*tiny.VOCABULARY, ""], "has 46 lines"),
        ([f"token{number}" for number in range(45)], "has no line [PAD]"),
    ],
)
def test_a_vocabulary_that_does_not_fit(checkpoint, refused, vocabulary, complaint):
    write_texts(checkpoint, vocabulary)
    assert complaint in refused(checkpoint)


# Where the result goes.


def test_a_folder_of_the_users_is_not_replaced(checkpoint, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    assert "holds other files" in refused(checkpoint)
    (tmp_path / "out" / "config.json").write_text("{}")
    assert "holds other files" in refused(checkpoint)
    assert "holds the checkpoint's folder" in refused(checkpoint, checkpoint)
    assert "holds the checkpoint's folder" in refused(checkpoint, tmp_path)
    assert "is a file" in refused(checkpoint, checkpoint / "vocab.txt")


def test_nor_is_one_that_has_the_name_of_a_former_result(checkpoint, tmp_path, refused):
    (tmp_path / "former-out").mkdir()
    (tmp_path / "former-out" / "thesis.tex").write_text("all of it")
    assert "former-out: holds other files" in refused(checkpoint)


def test_an_empty_folder_and_an_earlier_result_are_replaced(checkpoint, tmp_path, converted):
    (tmp_path / "out").mkdir()
    assert_holds(converted(checkpoint), ARRAYS)
    other = as_google_names_them(make_model(seed=1))
    bundles.write_bundle(checkpoint / "bert_model.ckpt", other)
    assert_holds(converted(checkpoint), other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_an_earlier_result_survives_a_conversion_that_fails(checkpoint, tmp_path, converted, capsys):
    out = converted(checkpoint)
    content = bytearray((checkpoint / DATA).read_bytes())
    content[-1] ^= 1
    (checkpoint / DATA).write_bytes(content)
    assert main([str(checkpoint), str(out)]) == 2
    assert "is damaged: its checksum differs" in capsys.readouterr().err
    assert_holds(out, ARRAYS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_no_checkpoint_there(tmp_path, refused):
    assert "nowhere: no such folder" in refused(tmp_path / "nowhere")


def test_wrong_flags(capsys):
    assert main(["one"]) == 2
    assert "OUT_DIR" in capsys.readouterr().err


# TensorFlow's own checkpoints.

WRITER = """
import sys
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_eager_execution()
arrays, folder = np.load(sys.argv[1]), sys.argv[2]
for name, devices, parts in (("whole", 1, 1), ("sharded", 3, 1), ("partitioned", 1, 2)):
    with tf.Graph().as_default():
        variables = {}
        for number, (key, values) in enumerate(arrays.items()):
            cut = tf.fixed_size_partitioner(parts) if parts > 1 and values.ndim else None
            with tf.device(f"/cpu:{number % devices}"):
                dtype = tf.as_dtype(values.dtype)
                variables[key] = tf.get_variable(key, values.shape, dtype, partitioner=cut, use_resource=False)
        saver = tf.train.Saver(sharded=devices > 1)
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": devices})) as session:
            session.run(tf.global_variables_initializer())
            for key, variable in variables.items() if parts == 1 else ():
                variable.load(arrays[key], session)
            saver.save(session, f"{folder}/{name}/bert_model.ckpt")
"""


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory) -> Path:
    """A folder with checkpoints that TensorFlow wrote: whole, in shards, with a partitioned variable."""
    local = REPOSITORY / ".venv-tensorflow" / "bin" / "python"
    python = os.environ.get("TENSORFLOW_PYTHON") or (str(local) if local.exists() else None)
    if python is None:
        pytest.skip(f"no TensorFlow: neither TENSORFLOW_PYTHON is set, nor is there {local.relative_to(REPOSITORY)}")
    folder = tmp_path_factory.mktemp("tensorflow")
    np.savez(folder / "arrays.npz", **ARRAYS, **BESIDES)
    for name in ("whole", "sharded", "partitioned"):
        write_texts(folder / name)
    command = [python, "-c", WRITER, str(folder / "arrays.npz"), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder


@pytest.mark.parametrize(("name", "shards"), [("whole", 1), ("sharded", 3)])
def test_what_tensorflow_writes_is_converted_to_the_bit(tensorflow, converted, name, shards):
    """With an optimizer's variables and the pretraining's heads among them, as in BESIDES."""
    assert len(list((tensorflow / name).glob("bert_model.ckpt.data-*"))) == shards
    assert_holds(converted(tensorflow / name), ARRAYS)


def test_a_partitioned_variable_of_tensorflow_is_refused(tensorflow, refused):
    assert f"{WORDS} is stored in slices" in refused(tensorflow / "partitioned")
