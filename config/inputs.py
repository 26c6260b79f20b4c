"""Finds the files that a run reads. Importing this is cheap: a wrong path is reported before torch is imported."""

import re
from pathlib import Path

from config.config_regression import Dataset, data_root
from utils.errors import UserError
from utils.files import current_folder

HUB = {"en": "google-bert/bert-base-uncased", "cn": "google-bert/bert-base-chinese"}
HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)  # `name` or `owner/name`
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")


def find_features(named: Path | None, dataset: Dataset, aligned: bool) -> Path:
    """The feature file: --dataPath, or the dataset's own. Raises UserError if it is missing."""
    usual = dataset.aligned if aligned else dataset.unaligned
    places = [named] if named else [data_root() / place for place in usual]
    if not places:
        raise UserError(f"--aligned: {dataset.name} has no aligned feature file; leave the flag out")
    if path := next(filter(Path.exists, places), None):
        return path
    advice = "name another (run.py: --dataPath), or set SELF_MM_DATA to their folder; --datasetName demo needs none"
    raise UserError(f"{' or '.join(map(str, places))}: no such feature file; {advice}")


def find_bert(named: str | None, dataset: Dataset) -> str:
    """--bert, else the dataset's folder, else its language's hub name. Raises UserError for an incomplete folder."""
    if named is None:
        named = str(dataset.bert_folder) if dataset.bert_folder.exists() else HUB[dataset.language]
    folder = Path(named)
    if HUB_NAME.fullmatch(named) and not folder.exists():
        return named
    if not folder.is_dir():
        raise UserError(f"--bert {named}: no such folder; name a folder with config.json, weights and vocab.txt")
    if not (folder / "config.json").exists() or not any((folder / name).exists() for name in WEIGHTS):
        raise UserError(f"--bert {named}: lacks config.json or model.safetensors; see {HUB[dataset.language]}")
    for file in filter(Path.is_file, folder.iterdir()):
        if file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            raise UserError(f"--bert {file}: is a Git LFS pointer; fetch the file itself with `git lfs pull`")
    return named


def find_on_disk(named: str, flag: str) -> Path | None:
    """A checkpoint's path; None: owner/name, or owner/name@revision, names one on the hub. Raises UserError for neither."""
    path, (name, _, _) = Path(named), named.partition("@")
    if current_folder(path).exists():
        return path
    if "/" not in name or not HUB_NAME.fullmatch(name):
        raise UserError(f"{flag} {named}: not found; expected a checkpoint folder, or owner/name for one on the hub")
    return None
