"""Files that try to run code or to corrupt memory: each is refused in one line. So are other formats, by name."""

import collections
import gzip
import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import tiny
import torch

from config.config_regression import DATASETS
from data.schema import read_feature_file
from utils.errors import UserError
from utils.safe_pickle import load_pickle


class Attack:
    def __reduce__(self):
        return os.system, ("echo attacked > attacked.txt",)


def test_a_pickle_that_calls_os_system(fails, workplace):
    features = tiny.make_features()
    features["extra"] = Attack()
    tiny.write_features(workplace.features, features)
    line = fails()
    assert "refused" in line and ("posix.system" in line or "nt.system" in line)


@pytest.mark.parametrize(
    "hostile",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        pickle.dumps(np.array([1.0]))[:-1] + b"cos\nsystem\n.",
    ],
)
def test_pickles_that_name_anything_else(fails, workplace, hostile):
    workplace.features.write_bytes(hostile)
    assert "refused" in fails()


# dtype("O8") whose flags deny pointers: numpy would take the bytes that follow for the address of an object.
POINTERS = (
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
BYTES = b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


@pytest.mark.parametrize(
    "hostile",
    [
        b"cnumpy.core.multiarray\nscalar\n(" + POINTERS + BYTES + b"tR.",
        ARRAY + b"(K\x01(K\x01t" + POINTERS + b"\x89" + BYTES + b"tb.",
        ARRAY + b"(K\x01(K\x05tcnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR\x89](K\x01etb.",  # 5 objects, a list of 1
        ARRAY + b"(K\x01(M\x00\x10tcnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR\x89" + BYTES + b"tb.",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # memory without end
        b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.",
        b"cnumpy\ndtype\n(N}X\x08\x00\x00\x00__call__K\x01stb.",  # changes what the reader calls
    ],
)
def test_pickles_that_would_corrupt_memory(fails, workplace, hostile):
    workplace.features.write_bytes(b"\x80\x02" + hostile)
    assert "unaligned.pkl: " in fails()


def test_a_pth_that_runs_code(fails, workplace):
    torch.save({"weights": Attack()}, "attack.pth")
    assert "not a file of weights" in fails("--test_only", "attack.pth")


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


# What known attacks name. The reader stops at the name, before any call.
NAMES = """
    os system|posix system|nt system|os popen|os execv|subprocess Popen|subprocess check_output|pty spawn|webbrowser open
    builtins type|builtins object|builtins super|builtins eval|builtins exec|builtins compile|builtins getattr|builtins open|builtins __import__|builtins map
    builtins bytearray|builtins complex|__builtin__ eval|__builtin__ getattr|__builtin__ apply|importlib import_module
    runpy run_path|code InteractiveInterpreter|types FunctionType|types CodeType|functools partial|functools reduce
    operator attrgetter|operator methodcaller|operator itemgetter|copyreg _reconstructor|copyreg __newobj__
    copy_reg _reconstructor|copyreg add_extension|pickle loads|_pickle loads|marshal loads|shelve open|pdb Pdb|timeit timeit
    codecs decode|codecs open|_codecs decode|_codecs lookup|_codecs register|ctypes CDLL|socket create_connection
    urllib.request urlopen|shutil rmtree|pathlib Path|asyncio run|multiprocessing Process|logging.config fileConfig
    numpy load|numpy fromfile|numpy memmap|numpy save|numpy loadtxt|numpy vectorize|numpy zeros|numpy f2py|numpy void
    numpy.f2py compile|numpy.testing._private.utils runstring|numpy.ctypeslib load_library|numpy.lib.npyio NpzFile
    numpy.core.multiarray fromfile|numpy.core.multiarray frombuffer|numpy._core.multiarray empty|numpy.random _pickle
    numpy dtype.__class__.__mro__|numpy ndarray.__reduce__|builtins bytes.fromhex|numpy.core.multiarray _reconstruct.__self__
    joblib load|collections Counter|_collections OrderedDict|numpy.ma.core _mareconstruct|numpy.dtypes Float64DType
    copyreg __newobj_ex__|argparse Namespace|sys modules|sys exit
"""
NAMES = [tuple(name.split()) for line in NAMES.strip().split("\n") for name in line.split("|")]


def refusal(path: Path) -> str:
    with fuzzing.guarded(path.parent), pytest.raises(UserError) as caught:
        read_feature_file(path, DATASETS["mosi"], aligned=False)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_other_name_is_refused(tmp_path, module, name):
    by_line = f"c{module}\n{name}\n".encode()
    by_stack = text(module) + text(name) + b"\x93"
    call = text("echo attacked > attacked.txt") + b"\x85R."
    made_by_class = b"(S'echo attacked > attacked.txt'\n" + f"i{module}\n{name}\n.".encode()
    for attack in (by_line + call, b"\x80\x04" + by_stack + call, made_by_class, by_line + b"."):
        (tmp_path / "f.pkl").write_bytes(attack)
        assert f"asks for {module}.{name}" in refusal(tmp_path / "f.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["f.pkl"]


SET = b"cbuiltins\nset\n"
DTYPE = b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ODICT = b"ccollections\nOrderedDict\n"
FACTORY = b"ccollections\ndefaultdict\n"


def a_dtype(name: str, order: str = "<", flags: bytes = b"K\x00") -> bytes:
    state = b"(K\x03" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"tb"
    return DTYPE + text(name) + b"\x89\x88\x87R" + state


def an_array(dtype: str, shape: bytes, data: bytes = b"C\x00", flags: bytes = b"K\x00") -> bytes:
    return ARRAY + b"(K\x01" + shape + a_dtype(dtype, flags=flags) + b"\x89" + data + b"tb."


def buffered(buffer: bytes, dtype: str, shape: bytes, order: bytes) -> bytes:
    """An array as protocol 5 writes it."""
    return b"cnumpy.core.numeric\n_frombuffer\n(" + buffer + a_dtype(dtype) + shape + order + b"tR."


@pytest.mark.parametrize(
    "valid",
    [
        an_array("f8", b"K\x01\x85", b"C\x08AAAAAAAA"),
        an_array("O8", b"K\x01\x85", b"]K\x01a"),
        buffered(b"C\x08AAAAAAAA", "f8", b"K\x01\x85", text("C")),
        buffered(b"C\x08AAAAAAAA", "u1", b"K\x02K\x04\x86", text("K") + b"K\x01K\x00\x86"),
    ],
)
def test_the_parts_of_the_attacks_are_valid(tmp_path, valid):
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + valid)
    assert isinstance(load_pickle(tmp_path / "f.pkl")[0], np.ndarray)


@pytest.mark.parametrize(
    "attack",
    {
        "NEWOBJ": SET + b")\x81.",
        "NEWOBJ_EX": SET + b")}\x92.",
        "NEWOBJ of a dtype": DTYPE + b")\x81.",
        "EXT1": b"\x82\x01.",
        "EXT2": b"\x83\x01\x00.",
        "EXT4": b"\x84\x01\x00\x00\x00.",
        "PERSID": b"Pid\n.",
        "BINPERSID": text("id") + b"Q.",
        "NEXT_BUFFER": b"\x97.",
        "READONLY_BUFFER": b"C\x00\x98.",
        "a function": SET + b".",
        "a list of functions": b"]" + SET + b"a.",
        "a dtype": a_dtype("f8") + b".",
        "an array without content": ARRAY + b".",
        "a type by a stand-in": b"cnumpy\nndarray\n" + text("os") + b"\x85R.",
        "BUILD on a dict": b"}" + text("a") + b"K\x01sb.",
        "BUILD on a dict with slots": b"}N}" + text("__class__") + b"K\x01s\x86b.",
        "BUILD on an OrderedDict": ODICT + b")R}" + text("items") + b"K\x01sb.",
        "BUILD on a defaultdict": FACTORY + SET + b"\x85R}" + text("default_factory") + b"K\x01sb.",
        "BUILD on a list": b"]}" + text("append") + b"K\x01sb.",
        "BUILD on a set": b"\x8fN}" + text("__class__") + SET + b"s\x86b.",
        "a state without its parts": DTYPE + text("f8") + b"\x85R)b.",
        "a structured type": an_array("V8", b"K\x01\x85", b"C\x08AAAAAAAA"),
        "pointers as numbers": an_array("O8", b"K\x01\x85", b"C\x08AAAAAAAA")[:-1] + b"K\x01a.",
        "a negative size": an_array("f8", b"J\xff\xff\xff\xffJ\xf8\xff\xff\xff\x86", b"C\x08AAAAAAAA"),
        "sizes that overflow": an_array(
            "i1", b"\x8a\x09\x01\x00\x00\x00\x00\x00\x00\x00\x01K\x08\x86", b"C\x08AAAAAAAA"
        ),
        "data too short": an_array("f8", b"K\x02\x85", b"C\x08AAAAAAAA"),
        "data too long": an_array("f8", b"K\x00\x85", b"C\x08AAAAAAAA"),
        "too few objects": an_array("O8", b"K\x05\x85", b"]K\x01a"),
        "too many axes": an_array("f8", b"(" + b"K\x01" * 1000 + b"t", b"C\x08AAAAAAAA"),
        "long texts": an_array("U500000000", b"K\x01\x85"),
        "a size that overflows": an_array("U999999999", b"K\x01\x85"),
        "not characters": an_array("U1", b"K\x01\x85", b"C\x04\xff\xff\xff\xff"),
        "swapped not characters": buffered(b"C\x04\x00\x00\x00\xff", "U1", b"K\x01\x85", text("C")),
        "buffer too short": buffered(b"C\x08AAAAAAAA", "f8", b"K\x02\x85", text("C")),
        "buffer of objects": buffered(b"C\x08AAAAAAAA", "O8", b"K\x02\x85", text("C")),
        "buffer of another array": buffered(
            an_array("O8", b"K\x01\x85", b"]K\x01a")[:-1], "u8", b"K\x01\x85", text("C")
        ),
        "buffer that is no buffer": buffered(b"]K\x01a", "u1", b"K\x01\x85", text("C")),
        "axes beyond the shape": buffered(b"C\x08AAAAAAAA", "u1", b"K\x02K\x04\x86", text("K") + b"K\x07K\x00\x86"),
        "an object scalar": b"cnumpy.core.multiarray\nscalar\n" + a_dtype("O8") + b"C\x08AAAAAAAA\x86R.",
        "a scalar too short": b"cnumpy.core.multiarray\nscalar\n" + a_dtype("f8") + b"C\x01A\x86R.",
        "an array that holds itself": ARRAY + b"q\x01(K\x01K\x01\x85" + a_dtype("O8") + b"\x89]h\x01atb.",
        "a list that holds itself": b"]q\x01h\x01a.",
        "bytes on demand": b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        "an integer of a megabyte": b"\x8b" + struct.pack("<I", 1 << 20) + bytes((1 << 20) - 1) + b"\x01.",
        "deep lists": b"]" * 500_000 + b"a" * 499_999 + b".",
        "deep tuples": b")" + b"\x85" * 500_000 + b".",
        "deep dicts": b"}" + b"N}" * 200_000 + b"s" * 200_000 + b".",
        "marks": b"(" * 200_000 + b".",
    }.items(),
    ids=lambda attack: attack[0],
)
def test_a_pickle_outside_the_format_of_features_is_refused(tmp_path, attack):
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + attack[1])
    assert str(tmp_path / "f.pkl") in refusal(tmp_path / "f.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["f.pkl"]


# Each sets attributes of a stand-in, which must not outlive the pickle.
@pytest.mark.parametrize("stand_in", [SET, DTYPE, RECONSTRUCT, ODICT, b"c_codecs\nencode\n", b"cnumpy\nndarray\n"])
@pytest.mark.parametrize("attribute", ["__call__", "__code__", "__defaults__", "__setstate__", "__class__", "dtype"])
@pytest.mark.parametrize("slots", [False, True])
def test_a_pickle_does_not_change_the_reader(tmp_path, stand_in, attribute, slots):
    values = b"}" + text(attribute) + b"K\x01\x85s"
    state = b"N" + values + b"\x86" if slots else values
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + stand_in + state + b"b.")
    refusal(tmp_path / "f.pkl")
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(CONTENT | {"ordered": collections.OrderedDict()}, 2))
    loaded, _ = load_pickle(tmp_path / "f.pkl")
    assert repr(loaded) == repr(CONTENT | {"ordered": {}})


CONTENT = {"array": np.array([[1.5, 2]]), "objects": np.array(["a", [1]], object), "bytes": b"x", "set": {1}}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_plain_and_shared_objects_stay_shared(tmp_path, protocol):
    array = np.arange(6).reshape(2, 3)
    content = {"a": [array, array.T], "b": (array, None), "c": np.array([array, "x"], object)}
    content = collections.OrderedDict(content, d=collections.defaultdict(list, e=[array]))
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content, protocol))
    loaded, _ = load_pickle(tmp_path / "f.pkl")
    assert type(loaded) is type(loaded["d"]) is dict
    same = [loaded["a"][0], loaded["b"][0], loaded["c"][0], loaded["d"]["e"][0]]
    assert all(type(value) is np.ndarray and value is same[0] for value in same)
    np.testing.assert_array_equal(same[0], array, strict=True)
    np.testing.assert_array_equal(loaded["a"][1], array.T, strict=True)


def zipped(name: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, "content")
    return file.getvalue()


def torch_file(**how: bool) -> bytes:
    torch.save({"train": torch.zeros(2)}, file := io.BytesIO(), **how)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (gzip.compress(pickle.dumps({}), mtime=0), "gunzip"),
        (zipped("features.pkl"), "zip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"<HTML></HTML>", "web page"),
        (torch_file(), "torch.save"),
        (torch_file(_use_new_zipfile_serialization=False), "torch.save"),
        (pickle.dumps({"train": torch.zeros(2)}), ".numpy()"),
        (b"cpandas.core.series\nSeries\n)\x81.", ".to_numpy()"),
    ],
)
def test_what_the_user_has_is_named_with_what_to_do(fails, workplace, content, named):
    workplace.features.write_bytes(content)
    line = fails()
    assert "unaligned.pkl: " in line and named in line and "run code" not in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds a process's memory")
@pytest.mark.parametrize("bomb", [b"Nr\xff\xff\xff\x7f.", b"\x8e" + struct.pack("<Q", 1 << 40) + b"."])
def test_memory_that_the_system_refuses_is_one_line(tmp_path, bomb):
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + bomb)
    assert "memory" in refusal(tmp_path / "f.pkl") or "damaged" in refusal(tmp_path / "f.pkl")
