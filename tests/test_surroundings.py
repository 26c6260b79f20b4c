"""Passwords, other users' files, streams that take no more, and text from files that a terminal would obey."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from privileges import without_roots_rights
from run_files import checkpoint

import predict
import run
from config.command_line import SECRET_URL, hide_password, parse_arguments
from config.config_regression import REPOSITORY
from trains.runs import provenance
from trains.sweep import storage
from utils.files import replacing

SECRET = "S3cret"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Restores the variable that hide_password sets."""
    monkeypatch.setenv(SECRET_URL, "")


URLS = [
    f"postgresql://bob:{SECRET}@127.0.0.1:1/none",
    f"postgresql://bob:{SECRET}/@{SECRET}@127.0.0.1:1/none",
    f"postgresql://bob@127.0.0.1:1/none?connect_timeout=1&password={SECRET}",
    f"postgresql://127.0.0.1:1/none?user=bob&%70assword={SECRET}&sslpassword={SECRET}",
    f"postgresql://bob@corp:{SECRET}@127.0.0.1:1/none",
    f"postgresql://bob:my {SECRET}@127.0.0.1:1/none?password=my {SECRET}",
]
FOLDERS = ("--cache_dir", "--log_dir", "--model_save_dir", "--res_save_dir")


@pytest.mark.parametrize(
    "argv",
    [
        ["--is_tune", "--storage", URLS[0]],
        [f"--is_tune --storage={URLS[2]}"],
        ["--is_tune", "--storage", URLS[0].replace("127.0.0.1:1", "host:port")],
        ["--is_tune", "--storag", URLS[1]],  # misspelt
        ["--params", URLS[3]],
        ["--is_tune", "--storage", URLS[4]],
    ],
)
def test_a_password_is_in_no_error(fails, monkeypatch, argv):
    monkeypatch.setattr(storage, "OPEN_ATTEMPTS", 1)  # between them are waits
    line = fails("--seeds", "1", *" ".join(argv).split())
    assert SECRET not in line and ("***" in line or "not a database URL" in line)


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_not_in_the_command_that_a_signal_prints(monkeypatch, capsys, url):
    monkeypatch.setattr(run, "run", lambda argv: signal.raise_signal(signal.SIGTERM))
    assert run.main(["--is_tune", "--storage", url]) == 143
    line = capsys.readouterr().err
    assert "--storage" in line and "***" in line and SECRET not in line


@pytest.mark.parametrize("url", URLS)
def test_only_the_database_sees_the_password(monkeypatch, url):
    options = parse_arguments(hide_password(["--is_tune", "--storage", url]))
    assert SECRET not in repr(options)  # and so not in the command lines of jobs, which all users can list
    used = []

    class Storage:
        def __init__(self, address: str, *_: object, **__: object):
            used.append(storage.sqlalchemy.make_url(address))

    monkeypatch.setattr(storage, "Storage", Storage)
    storage.open_storage(options.storage, 30)
    expected = storage.sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    assert used == [expected]


def test_of_two_databases_the_last_is_used(monkeypatch):
    monkeypatch.delenv(SECRET_URL, raising=False)
    assert hide_password(["--set", "out?password=x"]) == ["--set", "out?password=x"] and SECRET_URL not in os.environ
    for number in range(10):
        last = f"postgresql://a:{number}@h/x"
        assert hide_password(["--storage", "postgresql://a:b@h/x", f"--storage={last}"])[1] == "postgresql://a:***@h/x"
        assert os.environ[SECRET_URL] == last


def test_text_from_files_moves_no_terminal_and_forges_no_line(workplace, capsys):
    features = tiny.make_features()
    for name, split in features.items():
        split["id"] = split["id"].astype(object)
        split["id"][:2] = [f"=cmd|' /C calc'!A0{name}", "\x1b]0;owned\x07\x1b[2Jx\nseed 1  test: MAE 0.0\r"]
    features["valid"]["id"][1] = features["train"]["id"][1]  # which run.py warns of, by its name
    tiny.write_features(workplace.features, features)
    forged = {"hyper_parameters": {}, "study": "x\x1b[2J\nseed 1  test: MAE 0.0"}
    Path("best.json").write_text(json.dumps(forged), encoding="utf-8")
    assert workplace.run("--max_epochs", "1", "--params", "best.json") == 0
    assert run.main(["--test_only", str(checkpoint()), "--dataPath", str(workplace.features)]) == 0
    scoring = ["--checkpoint", str(checkpoint()), "--features", str(workplace.features)]
    assert predict.main([*scoring, "--csv", "out.csv"]) == 0
    printed = "".join(capsys.readouterr())
    files = ("logs/self_mm-mosi.log", f"{checkpoint()}/labels.csv", "out.csv")
    log, labels, scores = (Path(name).read_text(encoding="utf-8") for name in files)
    for text in (printed, log, labels, scores):
        assert not set("\x1b\x07\r") & set(text) and "\nseed 1  test: MAE 0.0" not in text
    for text in (printed, labels, scores):
        assert "x?seed 1  test: MAE 0.0?" in text
    assert "\n'=cmd" in labels and "\n'=cmd" in scores
    assert predict.main([*scoring, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii() and json.loads(printed)[1]["id"] == "\x1b]0;owned\x07\x1b[2Jx\nseed 1  test: MAE 0.0\r"


@contextlib.contextmanager
def another_users(path: Path) -> Iterator[None]:
    """As if the owner had a umask of 077."""
    path.chmod(0)
    try:
        with without_roots_rights():
            yield
    finally:
        path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_another_user_s_files_are_one_line_that_says_how_to_avoid_them(workplace, capsys):
    assert workplace.run("--max_epochs", "1") == 0
    for name, mend in {
        "data/unaligned.pkl": "data/unaligned.pkl",
        "data/unaligned.pkl.store": "--cache_dir",
        "bert": "bert/config.json",
        "logs": "--log_dir",
        "logs/self_mm-mosi.log": "--log_dir",
        "results/models": "--model_save_dir",
        f"{checkpoint()}.lock": "choose",
        "results/results/normals": "--res_save_dir",
        "results/results/normals/mosi-regression-seeds.csv": "normals/mosi-regression-seeds.csv",
    }.items():
        with another_users(Path(name)):
            capsys.readouterr()
            assert workplace.run("--max_epochs", "1", "--resume") == 2, name
            line = capsys.readouterr().err
            assert line.startswith("error: ") and line.count("\n") == 1 and "ermission" in line and mend in line, line
    # A store whose folder can be read but whose files cannot, and that cannot be replaced.
    (store,) = Path("data/unaligned.pkl.store").iterdir()
    with another_users(store), another_users(store.parent):
        store.parent.chmod(0o555)
        assert workplace.run("--max_epochs", "1", "--resume") == 2
        assert "--cache_dir" in capsys.readouterr().err
        assert workplace.run("--max_epochs", "1", "--resume", "--cache_dir", "mine") == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_another_user_s_demo_names_the_variable_that_avoids_it(workplace, monkeypatch, capsys):
    monkeypatch.setenv("SELF_MM_DATA", str(workplace.folder / "datasets"))
    (workplace.folder / "datasets").mkdir()
    with another_users(workplace.folder / "datasets"):
        assert run.main(["--datasetName", "demo"]) == 2
    assert "SELF_MM_DATA" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_read_only_working_folder_needs_only_flags(workplace):
    folders = [f"{flag}={workplace.folder}/out{flag}" for flag in FOLDERS]
    (workplace.folder / "here").mkdir(mode=0o555)
    os.chdir("here")
    with without_roots_rights():
        assert workplace.run("--max_epochs", "1", *folders) == 0
    assert {path.parent.name for path in workplace.folder.glob("out*/*")} == {f"out{flag}" for flag in FOLDERS}


def run_in(code: str, stdout, stderr=subprocess.PIPE, **environment: str) -> tuple[int, str]:
    """Runs a program that uses our log and exit. Returns its status and stderr, or "" if that goes to stdout, too."""
    code = f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nfrom utils.errors import run_program\n{code}"
    process = subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""} | environment,
    )
    return process.returncode, process.stderr or ""


LOGGING = """
from pathlib import Path
from utils.log import make_log
def work():
    log = make_log(Path({path!r}))
    for number in range(1000):
        log.info(f"line {{number}} " + "x" * 100)
sys.exit(run_program(work))
"""


def gone() -> int:
    """The writing end of a pipe whose reader has gone, as after `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("stdout", "reason"), [(gone, "Broken pipe"), (full, "No space left")])
def test_a_run_continues_with_one_line_when_its_screen_takes_no_more(tmp_path, stdout, reason):
    status, error = run_in(LOGGING.format(path=str(tmp_path / "a.log")), stdout())
    assert status == 0 and error.count("\n") == 1 and reason in error and "continues" in error, error
    assert (tmp_path / "a.log").read_text().count("\n") == 1000
    assert run_in(LOGGING.format(path=str(tmp_path / "b.log")), stdout(), subprocess.STDOUT) == (0, "")
    assert (tmp_path / "b.log").read_text().count("\n") == 1000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("size", [1, 100_000])  # within the buffer, and beyond it
def test_output_to_a_full_disk_is_one_line_and_status_2(size):
    status, error = run_in(f"sys.exit(run_program(lambda: print('x' * {size})))", full())
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1 and "No space left" in error, error


def test_output_that_head_cuts_off_is_no_error_and_keeps_the_status():
    assert run_in("sys.exit(run_program(lambda: print('x')))", gone()) == (0, "")
    assert run_in("sys.exit(run_program(lambda: print('x') or 2))", gone()) == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("end", "expected"), [("signal.raise_signal(15)", 143), ("1 / 0", 1), ("open('/no/file')", 2)])
@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_a_full_disk_changes_no_exit_status(end, expected, stderr):
    code = f"import signal\ndef work():\n    print('x')\n    {end}\nsys.exit(run_program(work))"
    status, error = run_in(code, full(), stderr)
    assert status == expected and "Exception ignored" not in error


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_characters_that_the_console_lacks_are_escaped(tmp_path, encoding):
    text = "\u4e2d\u6587 \U0001f600 plain"
    with open(tmp_path / "out", "wb") as out:
        assert run_in(f"sys.exit(run_program(lambda: print({ascii(text)})))", out, PYTHONIOENCODING=encoding) == (0, "")
    assert (tmp_path / "out").read_bytes().strip() == text.encode(encoding, "backslashreplace")


def test_a_closed_stdout_is_no_error(tmp_path):
    code = "import os; os.close(1); sys.stdout = None; sys.exit(run_program(lambda: print('x')))"
    assert run_in(code, None) == (0, "")


def test_the_commit_of_a_surrounding_repository_is_not_recorded(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert len(provenance.commit()) == 10
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path / "copy")
    assert provenance.commit() == ""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook
    assert provenance.commit() == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o002, 0o664)])
def test_the_umask_decides_who_can_read_what_is_written(tmp_path, umask, mode):
    def private(path: Path) -> None:  # as safetensors writes its files
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as work:
            private(work)
        with replacing(tmp_path / "folder") as work:
            (work / "tokenizer").mkdir(parents=True)
            private(work / "model.safetensors")
            private(work / "tokenizer" / "vocab.txt")
    finally:
        os.umask(before)
    written = ("file", "folder/model.safetensors", "folder/tokenizer/vocab.txt")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in written] == [mode] * 3
