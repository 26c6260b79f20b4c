"""Sequences of several lengths -> a feature file in the official layout: cut, padded with zeros at the end, and stacked."""

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.feature_file import EXTRACTORS, UNIMODAL_LABELS
from data.label_table import LabelledClip
from utils.files import replacing

Length = int | None  # frames that a padded sequence has; None: by the released rule


@dataclass
class ClipFeatures:
    """One clip, before it is padded."""

    tokens: np.ndarray  # (n,) token ids, [CLS] first and [SEP] last
    audio: np.ndarray  # (L, width)
    vision: np.ndarray  # (L, width)
    text: np.ndarray | None = None  # (n, width), BERT's vectors of the tokens


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
        "text_bert": np.zeros((count, 3, lengths["text"]), np.int64),
        "audio_lengths": np.ones(count, np.int64),
        "vision_lengths": np.ones(count, np.int64),
    }
    for task in unimodal:
        split[UNIMODAL_LABELS[task]] = np.array([clip.unimodal[task] for clip in clips], np.float32)
    for number, clip in enumerate(features):
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

    extractors: modality -> what made its features, as `data.extractors.facts` says it, with the padded length.
    """
    with replacing(path) as work, open(work, "wb") as file:
        pickle.dump(splits | {EXTRACTORS: extractors}, file, protocol=4)
