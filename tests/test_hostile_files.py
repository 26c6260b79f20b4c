"""Files that try to run code, to corrupt memory, or to take all of it or all time: each is refused in one line."""

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import tiny
import torch

from config.config_regression import DATASETS
from data.schema import read_feature_file
from utils.errors import UserError


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
        b"ctorch\nload\n.",
        pickle.dumps(np.array([1.0]))[:-1] + b"cos\nsystem\n.",
    ],
)
def test_pickles_that_name_anything_else(fails, workplace, hostile):
    workplace.features.write_bytes(hostile)
    assert "refused" in fails()


# dtype("O8") whose flags say that it holds no pointers: numpy would take the bytes that follow for the address of an object.
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
        b"cnumpy\ndtype\n(N}X\x08\x00\x00\x00__call__K\x01stb.",  # changes what the reader itself calls
    ],
)
def test_pickles_that_would_corrupt_the_reader(fails, workplace, hostile):
    workplace.features.write_bytes(b"\x80\x02" + hostile)
    assert "not a feature pickle" in fails()


def test_a_pth_that_runs_code(fails, workplace):
    torch.save({"weights": Attack()}, "attack.pth")
    assert "not a file of weights" in fails("--test_only", "attack.pth")


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


# What known attacks name. The reader stops at the name, whatever they would call it with.
NAMES = """
    os system|posix system|nt system|os popen|os execv|subprocess Popen|subprocess check_output|pty spawn|webbrowser open
    builtins eval|builtins exec|builtins compile|builtins getattr|builtins open|builtins __import__|builtins map
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
    torch load|torch.storage _load_from_bytes|torch.jit load|torch.hub load|torch._utils _rebuild_tensor_v2|torch FloatStorage
    pandas read_pickle|joblib load|collections OrderedDict|collections Counter|argparse Namespace|sys modules|sys exit
"""
NAMES = [tuple(name.split()) for line in NAMES.strip().split("\n") for name in line.split("|")]


def refusal(path: Path) -> str:
    with fuzzing.guarded(path.parent), pytest.raises(UserError) as caught:
        read_feature_file(path, DATASETS["mosi"], aligned=False)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_whatever_else_a_pickle_names_is_refused(tmp_path, module, name):
    by_line = f"c{module}\n{name}\n".encode()
    by_stack = text(module) + text(name) + b"\x93"
    call = text("echo attacked > attacked.txt") + b"\x85R."
    made_by_class = b"(S'echo attacked > attacked.txt'\n" + f"i{module}\n{name}\n.".encode()
    for attack in (by_line + call, b"\x80\x04" + by_stack + call, made_by_class, by_line + b"."):
        (tmp_path / "f.pkl").write_bytes(attack)
        assert "refused: the pickle asks for" in refusal(tmp_path / "f.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["f.pkl"]


SET = b"cbuiltins\nset\n"


@pytest.mark.parametrize(
    ("instruction", "attack"),
    {
        "INST": b"(ibuiltins\nset\n.",
        "OBJ": b"(" + SET + b"o.",
        "NEWOBJ": SET + b")\x81.",
        "NEWOBJ_EX": SET + b")}\x92.",
        "EXT1": b"\x82\x01.",
        "EXT2": b"\x83\x01\x00.",
        "EXT4": b"\x84\x01\x00\x00\x00.",
        "PERSID": b"Pid\n.",
        "BINPERSID": text("id") + b"Q.",
        "NEXT_BUFFER": b"\x97.",
        "READONLY_BUFFER": b"C\x00\x98.",
    }.items(),
)
def test_instructions_that_features_do_not_need_are_refused(tmp_path, instruction, attack):
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + attack)
    assert f"refused: the pickle asks for the instruction {instruction}," in refusal(tmp_path / "f.pkl")


@pytest.mark.parametrize(
    "attack",
    [
        SET + b"}" + text("__call__") + b"K\x01sb.",
        b"cnumpy\nndarray\n}" + text("shape") + b"K\x01sb.",
        b"cnumpy\ndtype\n" + text("f8") + b"\x85R}" + text("dtype") + b"K\x01sb.",
        b"}N}" + text("__class__") + b"K\x01s\x86b.",
    ],
)
def test_a_pickle_that_sets_attributes_is_refused(tmp_path, attack):
    (tmp_path / "f.pkl").write_bytes(attack)
    assert "not a feature pickle" in refusal(tmp_path / "f.pkl")


def doubled(value: object, kind: type = list, times: int = 60) -> object:
    for _ in range(times):
        value = kind([value, value])
    return value


def in_features(key: str, value: object) -> bytes:
    features = tiny.make_features()
    features["train"][key] = value
    return pickle.dumps(features)


def an_array(dtype: str, shape: bytes, itemsize: int = -1, data: bytes = b"C\x00", flags: bytes = b"K\x00") -> bytes:
    kind = b"cnumpy\ndtype\n" + text(dtype) + b"\x89\x88\x87R(K\x03" + text("<") + b"NNNJ"
    kind += struct.pack("<i", itemsize) + b"J\xff\xff\xff\xff" + flags + b"tb"
    return ARRAY + b"(K\x01" + shape + kind + b"\x89" + data + b"tb."


HUGE = b"\x8a\x05\x00\x00\x00\x00\x01"  # 2 ** 32
TUPLE_OF_TUPLES = b")" + b"2\x86" * 100  # 2 ** 100 of them
HIMSELF = []
HIMSELF.append(HIMSELF)
ARRAYS_IN_ARRAYS = np.array([None], object)
for _ in range(200):
    ARRAYS_IN_ARRAYS = np.array([ARRAYS_IN_ARRAYS, None], object)


def bombs() -> dict[str, bytes]:
    """Short files that ask for memory or time without end."""
    eight = struct.pack("<Q", 1 << 34)
    encode = b"c_codecs\nencode\nq\x00" + text("x" * 100_000) + text("latin1") + b"\x86q\x010"
    two_keys = text("k" * 100_000) + b"q\x000" + text("k" * 100_000) + b"q\x010"
    multiples = b"".join(b"\x8a\x09" + ((2**61 - 1) * factor).to_bytes(9, "little") for factor in range(32, 64))
    return {
        "memo of 4 billion": b"Nr\xff\xff\xff\xff.",
        "memo of 4 billion, as text": b"Np4294967295\n.",
        "bytes": b"\x8e" + eight + b".",
        "text": b"\x8d" + eight + b".",
        "bytearray": b"\x96" + eight + b".",
        "frame": b"\x80\x04\x95" + eight + b"N.",
        "short bytes": b"B\xff\xff\xff\xff.",
        "short text": b"X\xff\xff\xff\xff.",
        "old text": b"T\xff\xff\xff\x7f.",
        "whole number": b"\x8b\xff\xff\xff\x7f.",
        "digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "a number of a million bytes": in_features("id", [1 << 8_000_000] * 21),
        "tuples as a key": b"}" + TUPLE_OF_TUPLES + b"Ns.",
        "tuples as keys": b"}(" + TUPLE_OF_TUPLES + b"Nu.",
        "tuples in a dict": b"(" + TUPLE_OF_TUPLES + b"Nd.",
        "tuples in a set": b"\x8f(" + TUPLE_OF_TUPLES + b"\x90.",
        "tuples in a frozenset": b"(" + TUPLE_OF_TUPLES + b"\x91.",
        "tuples in an old set": SET + b"](" + TUPLE_OF_TUPLES + b"e\x85R.",
        "tuples as a shape": an_array("f8", TUPLE_OF_TUPLES),
        "tuples as a type": b"cnumpy\ndtype\n" + TUPLE_OF_TUPLES + b"\x85R.",
        "tuples as flags": an_array("f8", b"K\x00\x85", flags=TUPLE_OF_TUPLES),
        "a million axes": an_array("f8", b"(" + HUGE + b"2" * 1_000_000 + b"t"),
        "tuples as arguments": b"c_codecs\nencode\n" + TUPLE_OF_TUPLES + b"R.",
        "colliding keys": b"}(" + multiples.replace(b"\x8a\x09", b"N\x8a\x09")[1:] + b"Nu.",
        "long keys": two_keys + b"}" + b"h\x00Nsh\x01Ns" * 100_000 + b".",
        "copies": encode + b"h\x00h\x01R0" * 100_000 + b"N.",
        "list in a list": TUPLE_OF_TUPLES + b".",
        **{
            f"doubled {key}": in_features(key, doubled([1]))
            for key in ("id", "audio", "raw_text", "extra", "audio_lengths")
        },
        **{f"doubled tuples {key}": in_features(key, [doubled((), tuple)] * 21) for key in ("id", "raw_text")},
        "holds itself": in_features("id", HIMSELF),
        "an array 10,000 times": in_features("audio", [np.zeros((1000, 1000))] * 10_000),
        "a long text 100,000 times": in_features("raw_text", ["x" * 100_000] * 100_000),
        "a long text among numbers": in_features("audio_lengths", ["x" * 1_000_000] + [1] * 50_000),
        "a long text among texts": in_features("id", ["x" * 1_000_000] + ["y"] * 50_000),
        "deep lists": b"]" * 500_000 + b"a" * 499_999 + b".",
        "deep tuples": b")" + b"\x85" * 500_000 + b".",
        "deep dicts": b"}" + b"N}" * 200_000 + b"s" * 200_000 + b".",
        "marks": b"(" * 200_000 + b".",
        "deep arrays": pickle.dumps(ARRAYS_IN_ARRAYS),
        "array of objects": an_array("O8", b"(" + HUGE + b"t", data=b"]", flags=b"K\x3f"),
        "array of numbers": an_array("f8", HUGE + HUGE + b"\x86"),
        "array of shape that overflows": an_array("f8", HUGE * 2 + b"\x86", data=b"C\x08AAAAAAAA"),
        "array of nothing": an_array("f8", b"(K\x00" + HUGE * 3 + b"t"),
        "array of empty texts": an_array("U0", b"(" + HUGE + b"t", itemsize=0),
        "long texts": an_array("U500000000", b"K\x01\x85", itemsize=2_000_000_000),
        "void": an_array("V2000000000", b"K\x01\x85", itemsize=2_000_000_000),
        "no characters": an_array("U1", b"K\x01\x85", itemsize=4, data=b"C\x04\xff\xff\xff\xff"),
        "made huge": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + HUGE + b"tU\x01btR.",
    }


BOMBS = bombs()
LOAD_ALL = """
import resource, sys, time
from pathlib import Path
from config.config_regression import DATASETS
from data.feature_file import read_feature_file
from utils.errors import UserError

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)  # what is asked for counts, touched or not
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        read_feature_file(path, DATASETS["mosi"], aligned=False)
        print(f"{path.name}: loaded")
    except UserError as error:
        if "this machine's memory" in str(error):
            print(f"{path.name}: asked for memory")
    if time.process_time() - start > 5:
        print(f"{path.name}: took {time.process_time() - start:.1f} s")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(f"grew by {grown >> 10} MiB" if grown > 300 << 10 else "", end="")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(tmp_path, name):
    (tmp_path / "f.pkl").write_bytes(BOMBS[name])
    assert "this machine's memory" not in refusal(tmp_path / "f.pkl")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds a process' memory")
def test_no_bomb_takes_memory(tmp_path):
    for number, (name, content) in enumerate(BOMBS.items()):
        (tmp_path / f"{number} {name}".replace("/", " ")).write_bytes(content)
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", LOAD_ALL, tmp_path], cwd=root, capture_output=True, text=True)
    assert done.stdout == done.stderr == "", done.stdout + done.stderr[-500:]
