"""The repository's structure: layers, the size of the core and of the program, and plain English. Runs nothing.

The limits are part of the design: only an issue that names a new figure may raise them.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

from config.config_regression import REPOSITORY

PROGRAM = ("config", "data", "models", "trains", "utils")  # folders; run.py and predict.py are above them all
CORE = """
    config/config_regression.py
    models/self_mm.py models/ulgm.py models/lstm_encoder.py models/bert_text_encoder.py models/batch.py models/cpu_kernels.py
    trains/self_mm.py trains/training.py trains/finite_check.py
    data/load_data.py data/ragged.py
    utils/metrics.py
""".split()
CORE_LINES, PROGRAM_LINES, FILE_LINES, FOLDER_FILES = 1500, 8200, 300, 15

# Each may import itself and those to its right.
LAYERS = ("run", "trains.sweep", "trains.runs", "trains", "data", "models", "config", "utils")
# Must not be imported by the method, directly or indirectly.
MACHINERY = (
    "config.command_line",
    "trains.runs",
    "trains.sweep",
    "data.builders",
    "data.extractors",
    "data.schema",
    "utils.safe_pickle",
)

# Grammatical, but not what a native engineer writes.
TRANSLATED = re.compile(
    r"\b(anew|amid|any more|for want of|goes on|going on|comes to|makes of|so many|nobody|anyone|is no \w+ (of|any)"
    r"|of its own making|whoever|what is told)\b"
)


def python_files() -> list[Path]:
    return sorted(
        path
        for path in REPOSITORY.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
    )


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module of the program -> the modules and packages of the program that it imports anywhere."""
    files = {module_name(path): path for path in python_files()}
    program = {
        name: path for name, path in files.items() if name.split(".")[0] in PROGRAM or name in ("run", "predict")
    }
    result: dict[str, set[str]] = {}
    for name, path in program.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets.add(node.module)
                targets |= {f"{node.module}.{alias.name}" for alias in node.names}
        result[name] = {target for target in targets if target in program and target != name}
    return result


def layer(module: str) -> int:
    matching = [place for place, name in enumerate(LAYERS) if module == name or module.startswith(f"{name}.")]
    return matching[0] if matching else 0  # run and predict


def reachable(start: str) -> dict[str, list[str]]:
    """Every module that importing `start` imports -> the import chain."""
    chains = {start: [start]}
    queue = [start]
    while queue:
        module = queue.pop(0)
        parent = module.rpartition(".")[0]
        for target in sorted(imports()[module] | ({parent} & imports().keys())):
            if target not in chains:
                chains[target] = [*chains[module], target]
                queue.append(target)
    return chains


def test_imports_follow_the_layers():
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if layer(target) < layer(module)
    ]
    assert not wrong, f"{wrong}: the layers are {' -> '.join(LAYERS)}: move the shared part down, or the caller up"


def test_there_are_no_import_cycles():
    cycles = [
        " -> ".join([*chain, module])
        for module in imports()
        for target, chain in reachable(module).items()
        if target != module and module in imports()[target]
    ]
    assert not cycles, f"{cycles[:3]}: move what both need into a third file"


def test_the_method_imports_no_machinery():
    chains = [
        " -> ".join(chain) for module, chain in reachable("trains.self_mm").items() if module.startswith(MACHINERY)
    ]
    assert not chains, f"{chains}: pass the value in instead"


def test_the_core_is_small():
    lines = {name: line_count(REPOSITORY / name) for name in CORE}
    total = sum(lines.values())
    assert total <= CORE_LINES, f"the core has {total} lines, {lines}: remove something before adding"


def test_the_program_is_small():
    files = [path for path in python_files() if path.relative_to(REPOSITORY).parts[0] not in ("tests", "benchmarks")]
    total = sum(map(line_count, files))
    assert total <= PROGRAM_LINES, f"the program has {total} lines: remove something before adding"


@pytest.mark.parametrize("name", [".", *PROGRAM])
def test_folders_are_small(name):
    folder = REPOSITORY / name
    folders = [folder] if folder == REPOSITORY else [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    large = {str(path): count for path in folders if (count := len(list(path.glob("*.py")))) > FOLDER_FILES}
    assert not large, f"{large}: more than {FOLDER_FILES} files: which of them form a package?"


def test_files_are_small():
    long = {
        str(path.relative_to(REPOSITORY)): count for path in python_files() if (count := line_count(path)) > FILE_LINES
    }
    assert not long, f"{long}: more than {FILE_LINES} lines: what in it deserves its own file?"


def test_english_is_plain():
    files = [*python_files(), REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *REPOSITORY.glob("docs/*.md")]
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {match[0]}"
        for path in files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := TRANSLATED.search(line))
    ]
    assert not found, f"{found}: rephrase as a native engineer would"
