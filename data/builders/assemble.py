"""Writes feature files in the official layout from sequences of any length, which it cuts or pads with zeros at the end."""

import contextlib
import csv
import pickle
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from config.config_regression import Dataset, make_config
from data.builders.label_table import LabelledClip
from data.schema import EXTRACTORS, SPLITS, UNIMODAL_LABELS
from data.store import cut_text
from utils.errors import UserError
from utils.files import check_output, exclusive_lock, remove, replacing
from utils.progress import progress

USUAL_NAME = "features.pkl"
SEQUENCES = ("audio", "vision")
SIGNS = {-1: "Negative", 0: "Neutral", 1: "Positive"}


@dataclass
class ClipFeatures:
    """The features of one clip, without padding."""

    audio: np.ndarray  # (L, width)
    vision: np.ndarray  # (L, width)
    tokens: np.ndarray | None = None  # (n,) token ids, [CLS] first and [SEP] last; None: run.py reads raw_text
    text: np.ndarray | None = None  # (n, width), BERT's vectors of the tokens
    changes: Counter[str] = field(default_factory=Counter)  # what was changed -> how often


@contextlib.contextmanager
def writing(output: Path, *inputs: Path) -> Iterator[None]:
    """Locks the feature file against other writers. Raises UserError if it cannot be written, or is one of the inputs."""
    check_output(output, *inputs)
    with exclusive_lock(output, "another process is writing it"):
        yield


def assemble(
    output: Path,
    dataset: Dataset,
    clips: list[LabelledClip],
    refused: dict[str, str],
    load: Callable[[LabelledClip], ClipFeatures],
    extractors: dict[str, dict],
    *,
    bert: str | None = None,
    aligned: bool = False,
) -> None:
    """Writes the clips to a feature file, lists the refused ones beside it, and prints the command that trains on it.

    extractors: modality -> `data.extractors.describe`, with the `length` that its sequences are cut or padded to. aligned: audio
    and vision have a frame for each token, and the file no lengths for them. Raises UserError if a split has no clips, and keeps
    the previous file; also, at the end, if clips were refused.
    """
    errors = output.with_name("errors.csv" if output.name == USUAL_NAME else f"{output.stem}.errors.csv")
    if refused:
        with replacing(errors) as work, open(work, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "reason"), *refused.items()])
    else:
        remove(errors)
    by_split = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    if empty := [split for split, members in by_split.items() if not members]:
        example = f", for example {next(iter(refused.items()))}" if refused else ""
        raise UserError(f"{output}: not written; no clip of {', '.join(empty)} is usable: see {errors}{example}")
    lengths = {key: extractor["length"] for key, extractor in extractors.items()}
    unimodal = [task for task in UNIMODAL_LABELS if all(task in clip.unimodal for clip in clips)]
    counts: Counter[str] = Counter()
    content = {split: _make_split(members, load, lengths, unimodal, counts) for split, members in by_split.items()}
    if aligned:
        for split in SPLITS:
            del content[split]["audio_lengths"], content[split]["vision_lengths"]
    content[EXTRACTORS] = extractors
    with replacing(output) as work, open(work, "wb") as file:
        # Protocols before 5 copy each array in memory first.
        pickle.dump(content, file, protocol=5)
    print(f"{output}: " + ", ".join(f"{len(members)} {split}" for split, members in by_split.items()) + " clips")
    print("  padded to " + ", ".join(f"{key} {length} x {extractors[key]['width']}" for key, length in lengths.items()))
    print(*(f"  {change}: {count}\n" for change, count in (+counts).items()), sep="", end="")
    print("train on it:", _train_command(output, dataset, by_split["train"], bert, aligned))
    if refused:
        fix = f"see {errors}; fix them and run the same command again"
        raise UserError(f"{len(refused)} of {len(clips) + len(refused)} clips were left out: {fix}")


def padded_length(lengths: Iterable[int]) -> int:
    """The released rule: mean + 3 standard deviations of the clips' lengths. Longer clips are cut."""
    lengths = np.array([*lengths] or [1])
    return max(1, int(lengths.mean() + 3 * lengths.std()))


def _train_command(output: Path, dataset: Dataset, train: list[LabelledClip], bert: str | None, aligned: bool) -> str:
    argv = ["python", "run.py", "--datasetName", dataset.name, "--dataPath", str(output)]
    argv += (["--bert", bert] if bert else []) + ["--aligned"] * aligned
    if not make_config(dataset.name).updates_weights(len(train)):
        argv += ["--set", "keep_last_window=True"]  # there are too few clips for a whole window
    return shlex.join(argv)


def _make_split(
    clips: list[LabelledClip],
    load: Callable[[LabelledClip], ClipFeatures],
    lengths: dict[str, int],
    unimodal: list[str],
    counts: Counter[str],
) -> dict[str, np.ndarray]:
    """One split in the official layout. Counts the changes."""
    labels = np.array([clip.label for clip in clips], np.float32)
    split = {
        "id": np.array([clip.id for clip in clips]),
        "raw_text": np.array([clip.text for clip in clips]),
        "annotations": np.array([clip.annotation or SIGNS[int(np.sign(clip.label))] for clip in clips]),
        "classification_labels": np.sign(labels).astype(np.int64) + 1,
        "regression_labels": labels,
        "audio_lengths": np.ones(len(clips), np.int64),
        "vision_lengths": np.ones(len(clips), np.int64),
    }
    for task in unimodal:
        split[UNIMODAL_LABELS[task]] = np.array([clip.unimodal[task] for clip in clips], np.float32)
    if "text" in lengths:
        split["text_bert"] = np.zeros((len(clips), 3, lengths["text"]), np.int64)
    for number, clip in enumerate(progress(clips, f"padding {clips[0].split}", "clip")):
        features = load(clip)
        counts.update(features.changes)
        for key, length in lengths.items():
            rows = getattr(features, key)
            counts[f"longer {key} sequences cut"] += len(rows) > length
            if key == "text":
                rows, tokens = cut_text(rows, length), cut_text(features.tokens, length)
                split["text_bert"][number, :2, : len(tokens)] = tokens, np.ones_like(tokens)
            else:
                rows = rows[:length]
                split[f"{key}_lengths"][number] = len(rows)
            if key not in split:
                split[key] = np.zeros((len(clips), length, rows.shape[1]), np.float32)
            split[key][number, : len(rows)] = rows
    return split
