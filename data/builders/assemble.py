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
from utils.errors import UserError, csv_text
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
    output: Path, dataset: Dataset, clips: list[LabelledClip], refused: dict[str, str], extractors: dict[str, dict],
    load: Callable[[LabelledClip], ClipFeatures], *, bert: str | None = None, aligned: bool = False,
) -> None:  # fmt: skip
    """Writes the clips to a feature file, lists the refused ones beside it, and prints the command that trains on it.

    extractors: modality -> `data.extractors.describe` and the `length` to cut or pad to. aligned: a frame per token,
    no lengths. Raises UserError if a split is empty, and keeps the old file; also, at the end, if clips were refused.
    """
    errors = output.with_name("errors.csv" if output.name == USUAL_NAME else f"{output.stem}.errors.csv")
    if refused:
        with replacing(errors) as work, open(work, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(map(csv_text, row) for row in [("id", "reason"), *refused.items()])
    else:
        remove(errors)
    clips = sorted(clips, key=lambda clip: SPLITS.index(clip.split))
    sizes = {split: sum(clip.split == split for clip in clips) for split in SPLITS}
    if empty := [split for split, size in sizes.items() if not size]:
        example = ", for example {}: {}".format(*next(iter(refused.items()))) if refused else ""
        raise UserError(f"{output}: not written; no clip of {', '.join(empty)} is usable: see {errors}{example}")
    counts: Counter[str] = Counter()
    arrays = _pad(clips, load, {key: extractor["length"] for key, extractor in extractors.items()}, counts)
    if aligned:
        del arrays["audio_lengths"], arrays["vision_lengths"]
    content, end = {EXTRACTORS: extractors}, 0
    for split, size in sizes.items():
        end += size
        content[split] = {key: values[end - size : end] for key, values in arrays.items()}
    with replacing(output) as work, open(work, "wb") as file:
        pickle.dump(content, file, protocol=5)  # earlier protocols copy each array in memory first
    print(f"{output}: " + ", ".join(f"{size} {split}" for split, size in sizes.items()) + " clips")
    shapes = [f"{key} {extractor['length']} x {extractor['width']}" for key, extractor in extractors.items()]
    print("  padded to", ", ".join(shapes))
    print(*(f"  {change}: {count}\n" for change, count in (+counts).items()), sep="", end="")
    argv = ["python", "run.py", "--datasetName", dataset.name, "--dataPath", str(output)]
    argv += (["--bert", bert] if bert else []) + ["--aligned"] * aligned
    if not make_config(dataset.name).updates_weights(sizes["train"]):
        argv += ["--set", "keep_last_window=True"]  # there are too few clips for a whole window
    print(f"train on it: {shlex.join(argv)}")
    if refused:
        left_out = f"{len(refused)} of {len(clips) + len(refused)} clips were left out"
        raise UserError(f"{left_out}: mend those in {errors}; repeat")


def padded_length(lengths: Iterable[int]) -> int:
    """The released rule: mean + 3 standard deviations of the clips' lengths. Longer clips are cut."""
    lengths = np.array([*lengths] or [1])
    return max(1, int(lengths.mean() + 3 * lengths.std()))


def _pad(
    clips: list[LabelledClip], load: Callable[[LabelledClip], ClipFeatures], lengths: dict[str, int], counts: Counter
) -> dict[str, np.ndarray]:
    """The clips in the official layout of a split. Counts the changes."""
    labels = np.array([clip.label for clip in clips], np.float32)
    arrays = {
        "id": np.array([clip.id for clip in clips]), "raw_text": np.array([clip.text for clip in clips]),
        "annotations": np.array([clip.annotation or SIGNS[int(np.sign(clip.label))] for clip in clips]),
        "classification_labels": np.sign(labels).astype(np.int64) + 1, "regression_labels": labels,
        **{f"{key}_lengths": np.ones(len(clips), np.int64) for key in SEQUENCES},
    }  # fmt: skip
    for task, key in UNIMODAL_LABELS.items():
        if all(task in clip.unimodal for clip in clips):
            arrays[key] = np.array([clip.unimodal[task] for clip in clips], np.float32)
    if "text" in lengths:
        arrays["text_bert"] = np.zeros((len(clips), 3, lengths["text"]), np.int64)
    for number, clip in enumerate(progress(clips, "padding", unit="clip")):
        features = load(clip)
        counts.update(features.changes)
        for key, length in lengths.items():
            rows = getattr(features, key)
            counts[f"longer {key} sequences cut"] += len(rows) > length
            if key == "text":
                rows, tokens = cut_text(rows, length), cut_text(features.tokens, length)
                arrays["text_bert"][number, :2, : len(tokens)] = tokens, np.ones_like(tokens)
            else:
                rows = rows[:length]
                arrays[f"{key}_lengths"][number] = len(rows)
            if key not in arrays:
                arrays[key] = np.zeros((len(clips), length, rows.shape[1]), np.float32)
            arrays[key][number, : len(rows)] = rows
    return arrays
