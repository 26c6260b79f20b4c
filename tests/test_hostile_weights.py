"""Weights and --bert folders that try to run code or to read beyond their data: each is refused in one line."""

import collections
import contextlib
import copy
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import fuzzing
import pytest
import tiny
import torch

from models.pretrained_bert import load_pretrained
from models.weights_file import read_weights
from utils.errors import UserError


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pth(weights: object, **how: bool) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file, **how)
    return file.getvalue()


def rezipped(data: bytes, change) -> bytes:
    """A .pth with changed members. change: name, content -> content, compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content, compression = change(name, old.read(name))
            new.writestr(name, content, compression)
    return file.getvalue()


def overlapping(data: bytes) -> bytes:
    """One member of the zip file under two names."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        again = copy.copy(next(part for part in archive.filelist if part.filename.endswith("data/0")))
        again.filename = again.orig_filename = again.filename[:-1] + "9"
        archive.filelist.append(again)
        archive.writestr("another", b"")  # makes zipfile rewrite the directory
    return file.getvalue()


def programmed(find: bytes, replace: bytes, **how: bool) -> bytes:
    """A good .pth with one thing changed in its pickle."""

    def change(name: str, content: bytes) -> tuple[bytes, int]:
        assert not name.endswith("data.pkl") or find in content
        return content.replace(find, replace) if name.endswith("data.pkl") else content, zipfile.ZIP_STORED

    if how:
        data = pth(GOOD, **how)
        assert find in data
        return data.replace(find, replace)
    return rezipped(pth(GOOD), change)


GOOD = {"weight": torch.ones(300)}  # 300 is written in two bytes, as M and 2c 01
OLD = {"_use_new_zipfile_serialization": False}
ZEROS = {"weight": torch.zeros(1_000_000)}
FAR = torch.tensor([[500_000_000]])
BYTES = torch.storage.TypedStorage(
    wrap_storage=torch.ones(10).untyped_storage(), dtype=torch.quint8, _internal=True
)  # torch.save takes its dtype from it
SCALE = (torch.per_tensor_affine, 1.0, 0)
BILLION = b"J\x00\x00\x00\x40"
WEIGHT_ATTACKS = {
    "os.system": pth({"weight": Calls(os.system, "echo attacked > attacked.txt")}),
    "os.system, old": pth({"weight": Calls(os.system, "echo attacked > attacked.txt")}, **OLD),
    "torch.load": pth({"weight": Calls(torch.load, "weights.pth")}),
    "torch.storage": pth({"weight": Calls(torch.storage._load_from_bytes, b"")}),
    "bytearray": pth({"weight": Calls(bytearray, 1 << 40)}),
    "Counter": pth({"weight": collections.Counter("abc")}),
    "a giant by strides": pth(
        {
            "weight": Calls(
                torch._utils._rebuild_device_tensor_from_cpu_tensor,
                torch.ones(1).expand(1 << 40),
                torch.float64,
                "cpu",
                False,
            )
        }
    ),
    "tuples as a key": programmed(b"X\x06\x00\x00\x00weight", b")" + b"2\x86" * 100),
    "tuples as names of parts": pth({}, **OLD)[:-4] + b")" + b"2\x86" * 100 + b"\x85.",
    "a sparse tensor's element beyond its shape": pth(
        {"weight": Calls(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (FAR, torch.ones(1), (300,), False))}
    ),
    "a quantized tensor beyond its storage": pth(
        {
            "weight": Calls(
                torch._utils._rebuild_qtensor, BYTES, 0, (300,), (1,), SCALE, False, collections.OrderedDict()
            )
        }
    ),
    "overlapping": overlapping(pth(ZEROS)),
    "one number larger than its part": programmed(b"M\x2c\x01", b"M\x2d\x01"),
    "one number larger than its part, old": programmed(b"M\x2c\x01", b"M\x2d\x01", **OLD),
    "larger than its part": programmed(b"M\x2c\x01", BILLION),
    "larger than its part, old": programmed(b"M\x2c\x01", BILLION, **OLD),
    "one number beyond its storage": programmed(b"M\x2c\x01\x85", b"M\x2d\x01\x85"),
    "one number beyond its storage, old": programmed(b"M\x2c\x01\x85", b"M\x2d\x01\x85", **OLD),
    "begins one number late": programmed(b"QK\x00", b"QK\x01"),
    "every other number": programmed(b"\x85q\x08K\x01", b"\x85q\x08K\x02"),
    "beyond its storage": programmed(b"M\x2c\x01\x85", BILLION + b"\x85"),
    "beyond its storage, old": programmed(b"M\x2c\x01\x85", BILLION + b"\x85", **OLD),
    "old with a good zip behind": pth({"weight": Calls(os.system, "echo attacked > attacked.txt")}, **OLD) + pth(GOOD),
}


@pytest.mark.parametrize("name", WEIGHT_ATTACKS)
def test_a_hostile_pth_is_refused(tmp_path, name):
    (tmp_path / "weights.pth").write_bytes(WEIGHT_ATTACKS[name])
    with fuzzing.guarded(tmp_path), pytest.raises(UserError, match="not a file of weights, or damaged") as caught:
        read_weights(tmp_path / "weights.pth")
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("attack_first", [True, False])
def test_a_second_data_pkl_in_another_case_runs_nothing(tmp_path, attack_first):
    """torch takes one of the two, Python's zipfile may take the other."""
    attack = pth({"weight": Calls(os.system, "echo attacked > attacked.txt")})
    parts = [("data.pkl", pth(GOOD)), ("Data.pkl", attack)]
    with zipfile.ZipFile(io.BytesIO(pth(GOOD))) as good, zipfile.ZipFile(tmp_path / "weights.pth", "w") as both:
        for name, source in parts[::-1] if attack_first else parts:
            both.writestr(f"archive/{name}", zipfile.ZipFile(io.BytesIO(source)).read("archive/data.pkl"))
        for name in good.namelist()[1:]:
            both.writestr(name, good.read(name))
    with fuzzing.guarded(tmp_path), contextlib.suppress(UserError):
        assert torch.equal(read_weights(tmp_path / "weights.pth")["weight"], GOOD["weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_a_compressed_pth_has_its_values(tmp_path):
    weights = {"weight": torch.randn(300)}
    compressed = rezipped(pth(weights), lambda name, content: (content, zipfile.ZIP_DEFLATED))
    (tmp_path / "weights.pth").write_bytes(compressed)
    assert torch.equal(read_weights(tmp_path / "weights.pth")["weight"], weights["weight"])


def test_attributes_of_a_state_dict_are_dropped(tmp_path):
    attributes = programmed(b"}q\x00", b"ccollections\nOrderedDict\n)R}" + b"X\x04\x00\x00\x00keys" + b"K\x01sbq\x00")
    (tmp_path / "weights.pth").write_bytes(attributes)
    assert list(read_weights(tmp_path / "weights.pth").keys()) == ["weight"]


def test_a_tar_file_of_old_torch_unpacks_nothing(tmp_path):
    with tarfile.open(tmp_path / "weights.pth", "w") as archive:
        for name in ("pickle", "storages", "tensors", "../escaped"):
            archive.addfile(tarfile.TarInfo(name))
    with fuzzing.guarded(tmp_path), pytest.raises(UserError, match="not a file of weights, or damaged"):
        read_weights(tmp_path / "weights.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.fixture
def bert(tmp_path):
    return tiny.write_bert(tmp_path / "bert")


def configure(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"hidden_size": 2**31},
        {"intermediate_size": 10**15},
        {"max_position_embeddings": 10**12},
        {"type_vocab_size": 10**12},
        {"num_hidden_layers": -1, "vocab_size": -(10**12)},
        {"model_type": "x\ny"},
        {"hidden_size": "16"},
    ],
)
def test_a_config_that_does_not_match_the_weights_is_refused(bert, changes):
    configure(bert, **changes)
    with fuzzing.guarded(bert), pytest.raises(UserError, match="--bert") as caught:
        load_pretrained(str(bert))
    assert len(str(caught.value).splitlines()) == 1


def test_a_bert_folder_runs_and_fetches_nothing(bert, monkeypatch):
    """transformers would ask the terminal whether to run the code, and fetch the kernels."""
    (bert / "evil.py").write_text("open('attacked.txt', 'w')")
    code = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "BertModel")}
    fetched = {"_attn_implementation": "evil/kernels", "attn_implementation": "evil/kernels"}
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    others = {"transformers_weights": "../../secret", "fusion_config": {"all": True}, "per_layer_config": {"0": {}}}
    configure(bert, auto_map=code, **fetched, **quantized, **others)
    with fuzzing.guarded(bert):
        assert load_pretrained(str(bert)).bert.config.hidden_size == 16
    configure(bert, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}, tokenizer_class="Evil")
    with fuzzing.guarded(bert):
        try:
            load_pretrained(str(bert))
        except UserError as error:
            assert "--bert" in str(error)
    assert not (bert / "attacked.txt").exists()


@pytest.mark.parametrize("name", WEIGHT_ATTACKS)
def test_hostile_weights_in_a_bert_folder_are_refused(bert, name):
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(WEIGHT_ATTACKS[name] + bytes(100_000) * ("old" in name))
    with fuzzing.guarded(bert), pytest.raises(UserError, match="--bert"):
        load_pretrained(str(bert))
