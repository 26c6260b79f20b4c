"""Builds a feature file from a label table and one array for each clip and modality: for the user's own features."""

from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.builders.assemble import SEQUENCES, ClipFeatures, assemble, padded_length, writing
from data.builders.label_table import LabelledClip, read_label_table
from data.extractors import ClipError
from utils.errors import UserError, first_line, warn

MOST_BYTES = 2**28  # of an array in an .npz, which can be small and unpack to anything; an .npy is mapped
SWAPPED = "are the axes swapped? (frames, width) is expected; librosa returns (width, frames)"


def build_from_parts(output: Path, labels: Path, parts: Path, dataset: Dataset, padded: dict[str, int | None]) -> None:
    """Writes the file, and raises, as `assemble`. padded: modality -> frames to cut or pad to; None: as released."""
    if not parts.is_dir():
        raise UserError(f"--parts {parts}: no such folder; expected one with audio/ and vision/")
    labelled, refused = read_label_table(labels, dataset)
    shapes: dict[str, dict[str, tuple[int, int]]] = {}  # of the arrays of each usable clip, by its id
    for clip in labelled:
        try:
            found = {key: _load(parts / key, clip).shape for key in SEQUENCES}
            for key, (_, width) in found.items():
                _, expected = next(iter(shapes.values()), found)[key]
                if width != expected:
                    raise ValueError(f"{key} is {width} wide, in the first clip {expected}; {SWAPPED}")
            shapes[clip.id] = found
        except (ValueError, ClipError) as error:
            refused[clip.id] = first_line(error)
    extractors = {}
    for key, (_, width) in next(iter(shapes.values()), {}).items():
        frames = [found[key][0] for found in shapes.values()]
        if len(frames) > 1 and set(frames) == {frames[0]} != {1}:
            warn(f"all {len(frames)} clips have {frames[0]} frames of {key}; {SWAPPED}")
        length = padded[key] or padded_length(frames)
        extractors[key] = {"name": "own", "version": "", "width": width, "settings": {}, "length": length}

    def load(clip: LabelledClip) -> ClipFeatures:
        return ClipFeatures(*(_load(parts / key, clip) for key in SEQUENCES))

    with writing(output, labels):
        assemble(output, dataset, [clip for clip in labelled if clip.id in shapes], refused, extractors, load)


def _load(folder: Path, clip: LabelledClip) -> np.ndarray:
    """A clip's array (frames, width) in an .npy or .npz file. Raises ValueError if there is none."""
    file = clip.find_file(folder, (".npy", ".npz"))
    try:
        array = np.load(file, mmap_mode="r")
        if isinstance(array, np.lib.npyio.NpzFile):
            with array as archive:
                (name,) = archive.files  # ValueError unless it holds one array
                if (size := archive.zip.infolist()[0].file_size) > MOST_BYTES:
                    raise ValueError(f"{size >> 20} MiB unpacked, more than {MOST_BYTES >> 20}: save it as .npy")
                array = archive[name]
    except Exception as error:  # damaged archives raise more types than numpy documents
        raise ValueError(f"{file} (or .npz): cannot be read as one array ({first_line(error)})") from None
    if array.ndim != 2 or array.dtype.kind not in "iuf" or 0 in array.shape:
        raise ValueError(f"{file}: expected numbers (frames, width); found {array.dtype} {array.shape}")
    return array
