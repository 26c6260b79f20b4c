"""Google's TensorFlow checkpoints become folders for --bert, exactly; no existing folder is overwritten.

TensorFlow writes some of the checkpoints here if another interpreter has it: see `tensorflow`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import bundles
import numpy as np
import pytest
import tiny
import torch
from google_checkpoints import (
    ARRAYS,
    BESIDES,
    MODEL,
    SIZES,
    WORDS,
    as_google_names_them,
    assert_holds,
    make_model,
    write_checkpoint,
    write_texts,
)
from safetensors.numpy import load_file
from transformers import AutoTokenizer, BertModel

from config.config_regression import REPOSITORY
from config.inputs import find_bert
from models.pretrained_bert import load_pretrained
from utils.convert_bert import main
from utils.files import previous_folder


@pytest.fixture
def converted(tmp_path, capsys):
    """Converts a checkpoint, which must succeed with one line. Returns the folder."""

    def convert(folder: Path, name: str = "out") -> Path:
        assert main([str(folder), str(tmp_path / name)]) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1 and captured.err == ""
        return tmp_path / name

    return convert


def test_a_converted_bert_computes_the_same_to_the_bit(google_checkpoint, converted):
    out = converted(google_checkpoint)
    assert find_bert(str(out), None) == str(out)
    loaded = load_pretrained(str(out))
    tokens = loaded.tokenizer(["word3 word7", "word39"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = MODEL(**tokens)
        assert torch.equal(loaded.bert.eval()(**tokens).last_hidden_state, expected.last_hidden_state)
        whole, report = BertModel.from_pretrained(out, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
        assert torch.equal(whole.eval()(**tokens).pooler_output, expected.pooler_output)


def test_the_last_line_names_what_was_written_and_the_flag(google_checkpoint, tmp_path, capsys):
    assert main([str(google_checkpoint), str(tmp_path / "made" / "out")]) == 0
    line = capsys.readouterr().out
    assert "39 tensors, 2 layers x 16, uncased" in line and line.endswith(f"--bert {tmp_path / 'made' / 'out'}\n")
    files = {path.name for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}


def test_settings_come_from_the_checkpoint(google_checkpoint, converted):
    write_texts(google_checkpoint, hidden_dropout_prob=0.25, hidden_act="relu")
    config = load_pretrained(str(converted(google_checkpoint))).bert.config
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert (config.hidden_dropout_prob, config.hidden_act) == (0.25, "relu")


def test_heads_and_optimizer_state_are_left_out(tmp_path, converted):
    assert_holds(converted(write_checkpoint(tmp_path / "checkpoint", ARRAYS | BESIDES)), ARRAYS)


def test_several_shards_and_block_sizes(tmp_path, converted):
    for shards, names_in_block in ((3, 1), (2, 7), (1, 1000)):
        folder = write_checkpoint(tmp_path / f"{shards}", shards=shards, names_in_block=names_in_block)
        assert_holds(converted(folder, f"out{shards}"), ARRAYS)


def test_a_checkpoint_with_another_name_is_used_if_it_is_the_only_one(tmp_path, converted, refused):
    folder = write_checkpoint(tmp_path / "checkpoint", name="model.ckpt-1000")
    assert_holds(converted(folder), ARRAYS)
    bundles.write_bundle(folder / "model.ckpt-2000", ARRAYS)
    shutil.rmtree(tmp_path / "out")
    assert "has 2 files" in refused(folder)
    bundles.write_bundle(folder / "bert_model.ckpt", ARRAYS)
    assert_holds(converted(folder), ARRAYS)


def test_half_precision_is_kept(tmp_path, converted):
    halves = {name: values.astype(np.float16) for name, values in ARRAYS.items()}
    written = load_file(converted(write_checkpoint(tmp_path / "f16", halves), "out16") / "model.safetensors")
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
def test_a_vocabulary_with_capitals_makes_the_tokenizer_case_sensitive(google_checkpoint, converted, word, text, cased):
    write_texts(google_checkpoint, [*tiny.VOCABULARY[:-1], word])
    tokenizer = AutoTokenizer.from_pretrained(converted(google_checkpoint))
    assert tokenizer.model_max_length == 20 and type(tokenizer).__name__.startswith("BertTokenizer")
    assert "[UNK]" not in tokenizer.tokenize(text)
    assert ("[UNK]" in tokenizer.tokenize("WORD5")) == cased


def test_windows_line_ends_and_non_ascii_tokens(google_checkpoint, converted):
    vocabulary = [*tiny.VOCABULARY[:-2], "我", "\u2028"]  # Unicode's line separator, not a line end here
    (google_checkpoint / "vocab.txt").write_bytes("\r\n".join(vocabulary).encode())
    out = converted(google_checkpoint)
    assert (out / "vocab.txt").read_bytes() == ("\n".join(vocabulary) + "\n").encode()
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("我") == len(vocabulary) - 2


def test_an_existing_folder_is_not_replaced(google_checkpoint, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    assert f"{tmp_path / 'out'}: exists" in refused(google_checkpoint)
    assert "exists" in refused(google_checkpoint, google_checkpoint)
    assert "exists" in refused(google_checkpoint, tmp_path)
    assert "exists" in refused(google_checkpoint, google_checkpoint / "vocab.txt")


def test_a_folder_that_the_conversion_would_move_is_not_replaced(google_checkpoint, tmp_path, refused):
    former = previous_folder(tmp_path / "out")
    former.mkdir()
    (former / "thesis.tex").write_text("all of it")
    assert f"{former}: exists" in refused(google_checkpoint)


def test_an_empty_folder_is_filled(google_checkpoint, tmp_path, converted):
    (tmp_path / "out").mkdir()
    assert_holds(converted(google_checkpoint), ARRAYS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


def test_no_checkpoint_there(tmp_path, refused):
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")


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
    """A folder with checkpoints written by TensorFlow: whole, in shards, with a partitioned variable."""
    local = REPOSITORY / ".venv-tensorflow" / "bin" / "python"
    python = os.environ.get("TENSORFLOW_PYTHON") or (str(local) if local.exists() else None)
    if python is None:
        pytest.skip(f"no TensorFlow: set TENSORFLOW_PYTHON or make {local.relative_to(REPOSITORY)}")
    folder = tmp_path_factory.mktemp("tensorflow")
    np.savez(folder / "arrays.npz", **ARRAYS, **BESIDES)
    for name in ("whole", "sharded", "partitioned"):
        write_texts(folder / name)
    command = [python, "-c", WRITER, str(folder / "arrays.npz"), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return folder


@pytest.mark.parametrize(("name", "shards"), [("whole", 1), ("sharded", 3)])
def test_checkpoints_written_by_tensorflow_are_converted_to_the_bit(tensorflow, converted, name, shards):
    """They also hold optimizer state and pretraining heads, as in BESIDES."""
    assert len(list((tensorflow / name).glob("bert_model.ckpt.data-*"))) == shards
    assert_holds(converted(tensorflow / name), ARRAYS)


def test_a_partitioned_variable_is_refused(tensorflow, refused):
    line = refused(tensorflow / "partitioned")
    assert WORDS in line and "slices" in line
