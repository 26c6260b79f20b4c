"""The paper in the open, each machine behind a door with its name on it: read off the imports, without running anything.

A failure says what to do. The limits are part of the design: only an issue that names a new figure may raise them.
"""

import ast
import functools
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
CORE_LINES, FILE_LINES, FOLDER_FILES = 1500, 300, 15

# Each may import what stands to its right, and itself.
LAYERS = ("run", "trains.sweep", "trains.runs", "trains", "data", "models", "config", "utils")
# What the method must not drag in.
MACHINERY = (
    "config.command_line",
    "config.run_options",
    "trains.runs",
    "trains.sweep",
    "data.builders",
    "data.extractors",
)
MACHINERY += ("data.schema", "utils.safe_pickle")


def python_files() -> list[Path]:
    return sorted(
        path
        for path in REPOSITORY.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
    )


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports() -> dict[str, set[str]]:
    """Module of the program -> the program's modules that it imports, anywhere in it, and the packages that they lie in."""
    files = {module_name(path): path for path in python_files()}
    program = {
        name: path for name, path in files.items() if name.split(".")[0] in PROGRAM or name in ("run", "predict")
    }
    found: dict[str, set[str]] = {}
    for name, path in program.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets.add(node.module)
                targets |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = {target for target in targets if target in program and target != name}
    return found


def layer(module: str) -> int:
    matching = [place for place, name in enumerate(LAYERS) if module == name or module.startswith(f"{name}.")]
    return matching[0] if matching else 0  # run and predict


def reaches(start: str) -> dict[str, list[str]]:
    """Every module that importing one brings along, with the way there."""
    ways = {start: [start]}
    waiting = [start]
    while waiting:
        module = waiting.pop(0)
        parent = module.rpartition(".")[0]
        for target in sorted(imports()[module] | ({parent} & imports().keys())):
            if target not in ways:
                ways[target] = [*ways[module], target]
                waiting.append(target)
    return ways


def test_the_arrows_point_one_way():
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if layer(target) < layer(module)
    ]
    assert not wrong, f"{wrong}: layers are {' -> '.join(LAYERS)}: move what is needed down, or the caller up"


def test_there_is_no_circle():
    circles = [
        " -> ".join([*way, module])
        for module in imports()
        for target, way in reaches(module).items()
        if target != module and module in imports()[target]
    ]
    assert not circles, f"{circles[:3]}: take what both need into a file of its own"


def test_the_method_drags_no_machine_in():
    machines = [" -> ".join(way) for module, way in reaches("trains.self_mm").items() if module.startswith(MACHINERY)]
    assert not machines, f"{machines}: the training loop must not need this: hand the value in instead"


def test_the_core_is_read_in_an_evening():
    lines = {name: len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) for name in CORE}
    total = sum(lines.values())
    assert total <= CORE_LINES, f"the core has {total} lines, {lines}: take something out before adding"


@pytest.mark.parametrize("name", [".", *PROGRAM])
def test_no_folder_is_a_drawer(name):
    folder = REPOSITORY / name
    deeper = [folder] if folder == REPOSITORY else [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    full = {str(path): count for path in deeper if (count := len(list(path.glob("*.py")))) > FOLDER_FILES}
    assert not full, f"{full}: more than {FOLDER_FILES} files: which of them belong together, behind a name?"


def test_no_file_is_a_scroll():
    long = {
        str(path.relative_to(REPOSITORY)): count
        for path in python_files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    assert not long, f"{long}: more than {FILE_LINES} lines: what in it has a name of its own?"
