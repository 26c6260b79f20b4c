"""What a readable feature file contains by mistake, most likely. run.py and predict.py warn of it; CHECK lists it."""

from collections.abc import Iterator

import numpy as np

from config.config_regression import Dataset
from data.schema import MISSING_TEXTS, OFFICIAL, FeatureFile, FeatureSplit
from utils.errors import first_line

BEYOND_REASON = 1e6  # an LSTM saturates long before


def find_doubts(file: FeatureFile, dataset: Dataset) -> list[str]:
    """One line for each doubt; none about the official files."""
    if file.sha1 in OFFICIAL:
        return []
    doubts = list(_repeated(file))
    for name, split in file.splits.items():
        for clips, least, what in _suspicious(split):
            if clips.mean() > least:
                example = first_line(split.ids[int(clips.argmax())])
                doubts.append(f"{name}: {clips.sum()} of {len(split)} clips, such as {example}, {what}")
    labels = [np.abs(split.labels["fusion"]).max() for split in file.splits.values() if split.labels]
    if labels and max(labels) <= dataset.label_bound / 3:
        bounds = f"[{-max(labels):g}, {max(labels):g}], the range of {dataset.name} is {dataset.label_bound:g}"
        doubts.append(f"all labels are in {bounds}: does --datasetName name the right one?")
    return [] if doubts and file.sha256() in OFFICIAL else doubts


def _repeated(file: FeatureFile) -> Iterator[str]:
    """Ids that occur twice, and videos that occur in two splits."""
    ids = [(clip, name) for name, split in file.splits.items() for clip in split.ids]
    videos = dict.fromkeys((clip.partition("$_$")[0], name) for clip, name in ids if "$_$" in clip)
    for what, places in (("ids", ids), ("videos", videos)):
        splits: dict[str, list[str]] = {}
        for key, name in places:
            splits.setdefault(key, []).append(name)
        if repeated := [f"{first_line(key)} in {', '.join(names)}" for key, names in splits.items() if len(names) > 1]:
            yield f"{len(repeated)} {what} occur more than once, for example {repeated[0]}"


def _suspicious(split: FeatureSplit) -> Iterator[tuple[np.ndarray, float, str]]:
    """Yields clips, (N,) bool, the share of them that is not yet suspicious, and what is wrong with them."""
    if split.raw_text is not None:
        yield np.array([text.strip() in {"", *MISSING_TEXTS} for text in split.raw_text]), 0, "have no text"
    if split.text_bert is not None:
        last = split.text_bert[np.arange(len(split)), 0, split.text_lengths - 1]
        yield last == 0, 0.5, "end in [PAD] where their mask is 1: does the mask cover padding?"
    for key in ("audio", "vision"):
        values, lengths = getattr(split, key), getattr(split, f"{key}_lengths")
        frames = values.shape[1]
        real = np.stack([clip.any(axis=1) for clip in values])  # (N, L); clip by clip saves memory
        front, back = real.argmax(axis=1), real[:, ::-1].argmax(axis=1)  # frames of zeros; 0, too, if all are
        # In aligned files, [CLS] has a frame of zeros.
        what = f"have more zeros at the front of {key} than at the end: pad at the end (data/TextPre.py does)"
        yield front > np.maximum(1, back), 0.5, what
        if lengths is not None:
            yield back > frames - lengths, 0.5, f"end in zeros within their {key}_lengths: do these cover padding?"
            # Padding repeats one frame: zeros, or what standardizing made of them.
            beyond = [(clip[length:] != clip[-1]).any() for clip, length in zip(values, lengths, strict=True)]
            yield np.array(beyond), 0.5, f"have frames beyond their {key}_lengths, which are ignored"
        largest = np.array([np.abs(clip[np.isfinite(clip)]).max(initial=0) for clip in values])
        yield largest > BEYOND_REASON, 0, f"have {key} values up to {largest.max():g}: did their extraction fail?"
