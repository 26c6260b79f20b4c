"""The READMEs: the Chinese one has the commands of the English one, and all of their flags exist."""

import dataclasses
import re

import pytest

from config.command_line import RunOptions
from config.config_regression import REPOSITORY

ENGLISH, CHINESE = "README.md", "README_zh.md"
TRANSLATED = "## Change it"  # where the part that is not translated begins


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def code_lines(text: str) -> list[str]:
    """Commands and paths, without the comments beside them."""
    return [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines() if line.startswith("    ")]


def test_the_chinese_readme_has_the_commands_of_the_english_one():
    first_half, _, rest = read(ENGLISH).partition(TRANSLATED)
    assert rest and code_lines(read(CHINESE)) == code_lines(first_half)


def test_the_chinese_readme_has_the_links_and_figures_of_the_english_one():
    first_half = read(ENGLISH).partition(TRANSLATED)[0]
    for kind in (r"https?://[\w./?=-]+", r"`[^`]+`", r"(?m)^\|.*\|$"):
        ours, theirs = (set(re.findall(kind, text)) for text in (read(CHINESE), first_half))
        if kind.startswith("(?m)"):  # rows of tables, by their numbers
            ours, theirs = ({tuple(re.findall(r"[\d.]+", row)) for row in rows} for rows in (ours, theirs))
        assert ours >= theirs, sorted(theirs - ours)


@pytest.mark.parametrize("name", [ENGLISH, CHINESE])
def test_files_that_the_readme_links_to_exist(name):
    links = re.findall(r"\]\((?!http)([^)#]+)", read(name))
    assert links and all((REPOSITORY / link).is_file() for link in links), links


@pytest.mark.parametrize("name", [ENGLISH, CHINESE])
def test_programs_and_flags_in_the_readme_exist(name):
    options = {f"--{field.metadata.get('flag', field.name)}" for field in dataclasses.fields(RunOptions)}
    for line in code_lines(read(name)):
        program = re.match(r"python (?:(\S+\.py)|-m ([a-z_.]+))", line)
        if program and program[2] != "venv":
            module = (program[2] or "").replace(".", "/")
            source = read(
                program[1] or (f"{module}.py" if (REPOSITORY / f"{module}.py").exists() else f"{module}/__main__.py")
            )
            known = options if program[1] == "run.py" else set(re.findall(r'"(--\w+)"', source))
            assert set(re.findall(r" (--\w+)", line)) <= known, line
