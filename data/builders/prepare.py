"""Extracts the clips of a label table in parallel and writes a feature file: the work of DataPre.py."""

import time
from collections import Counter
from pathlib import Path

from config.config_regression import DATASETS
from data.builders.assemble import USUAL_NAME, ClipFeatures, assemble, raise_if_refused, train_command, writing
from data.builders.clip_cache import CachedClip, ClipWork
from data.builders.isolated import CrashedError, run_isolated
from data.builders.label_table import LabelledClip, read_label_table
from data.extractors import MODALITIES, Extractor, describe
from data.extractors.audio import compile_librosa
from data.extractors.text import BertText
from data.schema import SPLITS
from models.pretrained_bert import find_bert
from utils.errors import UserError
from utils.files import make_folder, remove
from utils.progress import progress

DATASET_OF_LANGUAGE = {"en": "mosi", "cn": "sims"}
LOG_INTERVAL = 60  # seconds between log lines when no terminal shows a progress bar
MAX_CRASHES = 4  # before any clip succeeds; more mean that the clips are not at fault


def prepare(
    data_dir: Path,
    output: Path | None,
    language: str,
    dataset_name: str | None,
    *,
    extractors: dict[str, Extractor],
    openface_tables: Path | None,
    bert: str | None,
    padded: dict[str, int | None],
    allow_missing: bool,
    jobs: int,
    resume: bool,
) -> None:
    """Makes a feature file from label.csv and Raw/. Raises UserError, also, at the end, if clips were left out.

    language: "en" or "cn", selects the default BERT. dataset_name: gives the range of the labels; None: by language.
    extractors: for audio and vision. openface_tables: folder of tables to read instead of videos. padded: modality ->
    length to cut or pad to; None: by the released rule. jobs: number of worker processes. resume: use the cache.
    """
    dataset = DATASETS[dataset_name or DATASET_OF_LANGUAGE[language]]
    labels, output = data_dir / "label.csv", output or data_dir / "Processed" / USUAL_NAME
    clips, refused = read_label_table(labels, dataset, may_be_silent=allow_missing)
    if openface_tables is not None and not openface_tables.is_dir():
        raise UserError(f"--openface_csv {openface_tables}: no such folder; it should hold <video_id>/<clip_id>.csv")
    descriptions = {modality: describe(extractor) for modality, extractor in extractors.items()}
    text = BertText.load(find_bert(bert, DATASETS[DATASET_OF_LANGUAGE[language]]))
    descriptions["text"] = describe(text)
    with writing(output, labels):
        cache = make_folder(output.with_name(f"{output.name}.cache"))
        for outdated in cache.glob("unfinished-*" if resume else "*"):
            remove(outdated)
        work = ClipWork(extractors, descriptions, data_dir / "Raw", openface_tables, cache, allow_missing)
        cached = _extract(work, clips, refused, jobs)
        clips = [clip for clip in clips if clip.id in cached]
        tokens = {clip.id: text.tokens(clip.text) for clip in clips}
        sizes = {clip: result.lengths | {"text": len(tokens[clip])} for clip, result in cached.items()}

        def load(clip: str) -> ClipFeatures:
            audio, vision = cached[clip].frames("audio"), cached[clip].frames("vision")
            return ClipFeatures(audio, vision, tokens[clip], text.vectors(tokens[clip]))

        lengths = assemble(output, clips, refused, sizes, load, padded, descriptions)
    counts = Counter(clip.split for clip in clips)
    print(f"{output}: " + ", ".join(f"{counts[split]} {split}" for split in SPLITS) + " clips")
    for modality in MODALITIES:
        cut = sum(size[modality] > lengths[modality] for size in sizes.values())
        seconds = [result.seconds[modality] for result in cached.values() if modality in result.seconds]
        speed = f"; extracted in {sum(seconds) / len(seconds):.2f} s per clip" if seconds else ""
        print(f"  {modality}: length {lengths[modality]}, {cut} longer clips cut{speed}")
    missing = Counter(reason.split(" in any")[0] for result in cached.values() for reason in result.missing)
    for reason, count in missing.items():
        print(f"  {count} clips with zeros: {reason}")
    print(train_command(output, dataset.name, bert))
    raise_if_refused(output, refused, len(cached) + len(refused))


def _extract(work: ClipWork, clips: list[LabelledClip], refused: dict[str, str], jobs: int) -> dict[str, CachedClip]:
    """Returns each clip's cached features by its id; adds the clips that failed, with the reason, to `refused`."""
    compile_librosa()
    cached: dict[str, CachedClip] = {}
    crashes = 0
    logged = time.monotonic()
    with progress(None, "extracting", "clip", len(clips)) as bar:
        for clip, result in run_isolated(work, clips, min(jobs, len(clips))):
            if isinstance(result, CachedClip):
                cached[clip.id] = result
            else:
                refused[clip.id] = str(result)
                crashes += isinstance(result, CrashedError)
                if crashes > MAX_CRASHES and not cached:
                    raise UserError(f"none of the first {len(refused)} clips could be extracted: {result}")
            bar.update()
            if bar.disable and time.monotonic() - logged > LOG_INTERVAL:
                logged = time.monotonic()
                print(f"{len(cached)} of {len(clips)} clips extracted", flush=True)
    return cached
