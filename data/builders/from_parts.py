"""A table of labels and texts, and an array for each clip and modality -> a feature file: for features of any origin."""

import os
import zipfile
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.builders.assemble import ClipFeatures, assemble, raise_if_refused, train_command, writing
from data.builders.label_table import LabelledClip, read_label_table
from utils.errors import UserError, first_line

SEQUENCES = ("audio", "vision")


def build_from_parts(output: Path, labels: Path, parts: Path, dataset: Dataset, padded: dict[str, int | None]) -> None:
    """Writes a feature file of a label table and arrays. Raises UserError, at last also where clips were left out.

    padded: modality -> frames that each clip is cut or padded to; None: by the released rule.
    """
    for key, length in padded.items():
        if length is not None and length < 1:
            raise UserError(f"--{key}_length {length}: expected 1 or more")
    clips, refused = read_label_table(labels, dataset)
    if not parts.is_dir():
        raise UserError(f"--parts {parts}: no such folder; it holds audio/ and vision/")
    sizes: dict[str, dict[str, int]] = {}
    widths: dict[str, int] = {}
    for clip in clips:
        try:
            shapes = {key: _load(parts, key, clip).shape for key in SEQUENCES}
            for key, (_, width) in shapes.items():
                if width != widths.setdefault(key, width):
                    raise ValueError(f"{key} is {width} wide; that of the clips before is {widths[key]}")
            sizes[clip.id] = {key: frames for key, (frames, _) in shapes.items()}
        except ValueError as error:
            refused[clip.id] = first_line(error)
    by_id = {clip.id: clip for clip in clips}
    described = {key: {"name": "own", "version": "", "width": width, "settings": {}} for key, width in widths.items()}
    with writing(output, labels):
        lengths = assemble(
            output,
            clips,
            refused,
            sizes,
            lambda clip: ClipFeatures(*(_load(parts, key, by_id[clip]) for key in SEQUENCES)),
            padded,
            described,
        )
    print(f"{output}: {len(sizes)} clips, " + ", ".join(f"{key} {lengths[key]} x {widths[key]}" for key in SEQUENCES))
    print(train_command(output, dataset.name))
    raise_if_refused(output, refused, len(sizes) + len(refused))


def _load(parts: Path, key: str, clip: LabelledClip) -> np.ndarray:
    """A clip's array, (frames, width). Raises ValueError in words where there is none."""
    home = parts / key / clip.video_id
    for file in (home / f"{clip.clip_id}.npy", home / f"{clip.clip_id}.npz"):
        if os.path.isfile(file):  # which is False, too, for a name longer than files may have
            break
    else:
        raise ValueError(f"no file {home / clip.clip_id}.npy or .npz")
    try:
        array = np.load(file, mmap_mode="r")
        if isinstance(array, np.lib.npyio.NpzFile):
            with array as arrays:
                if len(arrays.files) != 1:
                    raise ValueError(f"holds {len(arrays.files)} arrays; expected one")
                array = arrays[arrays.files[0]]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} can't be read: {first_line(error)}") from None
    if array.ndim != 2 or array.dtype.kind not in "iuf" or 0 in array.shape:
        raise ValueError(f"{file} is {array.dtype} {array.shape}; expected numbers (frames, width)")
    return array
