"""Files that try to run code or to corrupt memory: each is refused in one line, and nothing of it happens."""

import os
import pickle

import numpy as np
import pytest
import tiny
import torch


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
