"""Sequences of several lengths -> a feature file in the official layout: cut, padded with zeros at the end, and stacked."""

import contextlib
import csv
import pickle
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.builders.label_table import LabelledClip, common_unimodal_labels
from data.schema import EXTRACTORS, SPLITS, UNIMODAL_LABELS
from utils.errors import UserError
from utils.files import check_output, clear_leftovers, exclusive_lock, remove, replacing
from utils.progress import progress

USUAL_NAME = "features.pkl"


@dataclass
class ClipFeatures:
    """One clip, before it is padded."""

    audio: np.ndarray  # (L, width)
    vision: np.ndarray  # (L, width)
    tokens: np.ndarray | None = None  # (n,) token ids, [CLS] first and [SEP] last; None: run.py reads raw_text
    text: np.ndarray | None = None  # (n, width), BERT's vectors of the tokens


@contextlib.contextmanager
def writing(output: Path, *inputs: Path) -> Iterator[None]:
    """In this context nobody else writes the feature file. Raises UserError where it can't be written, or is an input."""
    check_output(output, *inputs)
    with exclusive_lock(output, "another process is making it"):
        clear_leftovers(output)
        yield


def assemble(
    output: Path,
    clips: list[LabelledClip],
    refused: dict[str, str],
    sizes: dict[str, dict[str, int]],
    load: Callable[[str], ClipFeatures],
    padded: dict[str, int | None],
    extractors: dict[str, dict],
    aligned: bool = False,
) -> dict[str, int]:
    """Writes the clips that have sizes to a feature file, and the refused ones, with the reason, to a list beside it.

    sizes: clip's id -> modality -> frames or tokens. load: gives a clip's features, by its id. padded: modality -> what the
    sequences are cut or padded to; None: by the released rule. aligned: sound and face are as long as the text, so that the file
    says no lengths of theirs. Returns these lengths. Raises UserError where a split has no clip left, or the disk is full: the
    feature file that was there stays.
    """
    errors = errors_file(output)
    _list_errors(errors, refused)
    clips = [clip for clip in clips if clip.id in sizes]
    for split in SPLITS:
        if not any(clip.split == split for clip in clips):
            raise UserError(f"no clip of the split {split} could be used: {errors} says why; {output} isn't written")
    lengths = {key: length or padded_length(sizes[clip.id][key] for clip in clips) for key, length in padded.items()}
    unimodal = common_unimodal_labels(clips)
    splits = {}
    for name in SPLITS:
        mine = [clip for clip in clips if clip.split == name]
        features = progress((load(clip.id) for clip in mine), f"padding {name}", "clip", len(mine))
        splits[name] = make_split(mine, features, lengths, unimodal)
        if aligned:
            del splits[name]["audio_lengths"], splits[name]["vision_lengths"]
    save_feature_file(output, splits, {key: facts | {"length": lengths[key]} for key, facts in extractors.items()})
    return lengths


def train_command(output: Path, dataset: str, bert: str | None = None, aligned: bool = False) -> str:
    """How to train on a feature file."""
    words = ["python", "run.py", "--datasetName", dataset, "--dataPath", str(output)]
    words += (["--bert", bert] if bert else []) + ["--aligned"] * aligned
    return f"train on it: {shlex.join(words)}"


def raise_if_refused(output: Path, refused: dict[str, str], of: int) -> None:
    """Raises UserError where clips were left out. of: how many there were."""
    if refused:
        raise UserError(
            f"{len(refused)} of {of} clips were left out: {errors_file(output)} says why; once they are mended, the "
            "same command adds them"
        )


def errors_file(output: Path) -> Path:
    """Where the clips that were left out of a feature file are listed."""
    return output.with_name("errors.csv" if output.name == USUAL_NAME else f"{output.stem}.errors.csv")


def _list_errors(path: Path, refused: dict[str, str]) -> None:
    header = ["id", "reason"]
    if not refused:
        with contextlib.suppress(OSError, ValueError):
            if path.read_text(encoding="utf-8").startswith(",".join(header)):  # else it isn't of an earlier run
                remove(path)
        return
    with replacing(path) as work, open(work, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(refused.items())


def padded_length(lengths: Iterable[int]) -> int:
    """The released rule: the mean and three standard deviations of the clips' lengths. Longer clips are cut."""
    lengths = np.array(list(lengths))
    return max(1, int(lengths.mean() + 3 * lengths.std()))


def make_split(
    clips: list[LabelledClip], features: Iterable[ClipFeatures], lengths: dict[str, int], unimodal: list[str]
) -> dict[str, object]:
    """A split in the official layout.

    features: those of each clip, in turn: only one at a time need be in memory. lengths: of text, audio and vision once padded.
    unimodal: the tasks whose human labels go into the file.
    """
    count = len(clips)
    labels = np.array([clip.label for clip in clips], np.float32)
    split: dict[str, object] = {
        "id": np.array([clip.id for clip in clips]),
        "raw_text": np.array([clip.text for clip in clips]),
        "annotations": np.array([clip.annotation for clip in clips]),
        "classification_labels": np.sign(labels).astype(np.int64) + 1,
        "regression_labels": labels,
        "audio_lengths": np.ones(count, np.int64),
        "vision_lengths": np.ones(count, np.int64),
    }
    for task in unimodal:
        split[UNIMODAL_LABELS[task]] = np.array([clip.unimodal[task] for clip in clips], np.float32)
    if "text" in lengths:
        split["text_bert"] = np.zeros((count, 3, lengths["text"]), np.int64)
    for number, clip in enumerate(features):
        if clip.tokens is not None:
            tokens = cut_text(clip.tokens, lengths["text"])
            split["text_bert"][number, 0, : len(tokens)] = tokens
            split["text_bert"][number, 1, : len(tokens)] = 1
        sequences = {"audio": clip.audio[: lengths["audio"]], "vision": clip.vision[: lengths["vision"]]}
        for key, sequence in sequences.items():
            split[f"{key}_lengths"][number] = len(sequence)
        if clip.text is not None:
            sequences["text"] = cut_text(clip.text, lengths["text"])
        for key, sequence in sequences.items():
            if key not in split:
                split[key] = np.zeros((count, lengths[key], sequence.shape[1]), np.float32)
            split[key][number, : len(sequence)] = sequence
    return split


def cut_text(rows: np.ndarray, length: int) -> np.ndarray:
    """(n, ...) for the tokens of a text -> at most `length` of them, [SEP] still the last."""
    return rows if len(rows) <= length else np.concatenate([rows[: length - 1], rows[-1:]])


def save_feature_file(path: Path, splits: dict[str, dict], extractors: dict[str, dict]) -> None:
    """Writes a feature file; until all of it is on the disk, the one before stays. Raises UserError on a full disk.

    extractors: modality -> what made its features, as `data.extractors.describe` says it, with the padded length.
    """
    with replacing(path) as work, open(work, "wb") as file:
        pickle.dump(splits | {EXTRACTORS: extractors}, file, protocol=5)  # 4 would copy each array first
