"""Extracts the clips of a label table in parallel and writes a feature file: the work of DataPre.py."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from config.config_regression import DATASETS
from config.inputs import find_bert
from data.builders.assemble import USUAL_NAME, ClipFeatures, assemble, padded_length, writing
from data.builders.clip_cache import CachedFeatures, extract_clip
from data.builders.isolated import CrashedError, run_isolated
from data.builders.label_table import LabelledClip, read_label_table
from data.extractors import ClipError, Extractor, describe, is_too_long_for
from data.extractors.audio import compile_librosa
from data.extractors.text import BertText
from utils.errors import UserError, warn
from utils.files import make_folder

DATASET_OF_LANGUAGE = {"en": "mosi", "cn": "sims"}
MAX_CRASHES = 4  # before any clip succeeds; more mean that the clips are not at fault


def prepare(
    data_dir: Path, output: Path | None, language: str, dataset_name: str | None, *, extractors: dict[str, Extractor],
    openface_tables: Path | None, bert: str | None, padded: dict[str, int | None], allow_missing: bool, jobs: int,
) -> None:  # fmt: skip
    """Makes a feature file from label.csv and Raw/. Raises UserError, also, at the end, if clips were left out.

    language: "en" or "cn", selects the default BERT. dataset_name: gives the range of the labels; None: by language.
    extractors: of audio and vision. openface_tables: read instead of videos. padded: modality -> length; None: by rule.
    """
    dataset = DATASETS[dataset_name or DATASET_OF_LANGUAGE[language]]
    labels, output = data_dir / "label.csv", output or data_dir / "Processed" / USUAL_NAME
    clips, refused = read_label_table(labels, dataset, may_be_silent=allow_missing)
    if openface_tables is not None and not openface_tables.is_dir():
        raise UserError(f"--openface_csv {openface_tables}: no such folder; it should hold <video_id>/<clip_id>.csv")
    text = BertText.load(find_bert(bert, DATASETS[DATASET_OF_LANGUAGE[language]]))
    descriptions = {modality: describe(extractor) for modality, extractor in (extractors | {"text": text}).items()}
    with writing(output, labels):
        cache = make_folder(output.with_name(f"{output.name}.cache"))
        extract = partial(extract_clip, extractors, data_dir / "Raw", openface_tables, cache, allow_missing)
        cached = _extract_all(extract, clips, refused, jobs)
        clips = [clip for clip in clips if clip.id in cached]
        tokens = {clip.id: text.tokens(clip.text) for clip in clips}
        if fps := _check_clips(cached, tokens, extractors["vision"]):
            descriptions["vision"]["fps"] = fps
        descriptions["text"]["length"] = padded["text"] or padded_length(map(len, tokens.values()))
        for modality in extractors:
            parts = [parts[modality] for parts in cached.values()]
            descriptions[modality]["length"] = padded[modality] or padded_length(part.length for part in parts)
            times = [part.extraction_seconds for part in parts if part.extraction_seconds is not None]
            print(f"  {modality}: " + (f"extracted in {np.mean(times):.2f} s per clip" if times else "from the cache"))
            for reason, count in Counter(part.missing.split(" in any")[0] for part in parts if part.missing).items():
                print(f"  {count} clips with zeros: {reason}")

        def load(clip: LabelledClip) -> ClipFeatures:
            audio, vision = (cached[clip.id][modality].load() for modality in ("audio", "vision"))
            return ClipFeatures(audio, vision, tokens[clip.id], text.vectors(tokens[clip.id]))

        assemble(output, dataset, clips, refused, descriptions, load, bert=bert)


def _check_clips(cached: dict[str, dict], tokens: dict[str, np.ndarray], vision: Extractor) -> float | None:
    """Warns of clips whose parts do not fit together. Returns the median frame rate; None if unknown or --fps."""
    face, limit = getattr(vision, "face", None), getattr(vision, "fps", None)
    several = [clip for clip, parts in cached.items() if parts["vision"].faces > 1]
    if several and face is None:
        rule = "the most confident one of each video frame is used; --face ID chooses"
        warn(f"{len(several)} clips, such as {several[0]}, have several faces: {rule}")
    if long := [clip for clip, parts in cached.items() if is_too_long_for(len(tokens[clip]), parts["audio"].seconds)]:
        warn(f"{len(long)} clips, such as {long[0]}, have more text than can be spoken in their time")
    rates = np.array([parts["vision"].fps for parts in cached.values() if parts["vision"].fps])
    used = np.minimum(rates, limit or np.inf)
    if used.max(initial=0) > 1.1 * used.min(initial=np.inf):
        span = f"{used.min():.4g} to {used.max():.4g} video frames per second"
        warn(f"the clips have {span}; --fps {used.min():.4g} makes them alike")
    return None if limit or not rates.size else round(float(np.median(rates)), 2)


def _extract_all(extract: Callable, clips: list[LabelledClip], refused: dict[str, str], jobs: int) -> dict[str, dict]:
    """Returns clip id -> modality -> CachedFeatures; adds the clips that failed, with the reason, to `refused`."""
    compile_librosa()
    cached: dict[str, dict[str, CachedFeatures]] = {}
    crashes = 0
    for clip, result in run_isolated(extract, clips, min(jobs, len(clips)), "extracting"):
        if isinstance(result, ClipError):
            refused[clip.id] = str(result)
            crashes += isinstance(result, CrashedError)
            if crashes > MAX_CRASHES and not cached:
                raise UserError(f"none of the first {len(refused)} clips could be extracted: {result}")
        else:
            cached[clip.id] = result
    return cached
