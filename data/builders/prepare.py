"""The work of DataPre.py: extracts the clips of a label table, side by side, and writes them to a feature file."""

import os
import time
from collections import Counter
from pathlib import Path

import torch

from config.config_regression import DATASETS
from data.builders.assemble import USUAL_NAME, assemble, raise_if_refused, train_command, writing
from data.builders.clip_cache import ClipWork, Done, Task, load_features, read_text
from data.builders.label_table import LabelledClip, read_label_table
from data.extractors import MODALITIES, Clip, Extractor, describe
from data.extractors.text import BertText
from data.schema import SPLITS
from models.pretrained_bert import find_bert
from utils.errors import UserError
from utils.files import make_folder, remove
from utils.isolated import CrashedError, run_isolated
from utils.progress import progress

DATASET_OF_LANGUAGE = {"en": "mosi", "cn": "sims"}
SIGN_OF_LIFE = 60  # seconds between lines, where no terminal shows a bar
MOST_CRASHES = 4  # with no clip done: then it isn't the clips' fault


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
    """Makes a feature file of label.csv and Raw/. Raises UserError, at last also where clips were left out.

    language: "en" or "cn", whose BERT is the default. dataset_name: whose range the labels lie in; None: by the language.
    extractors: of audio and vision. openface_tables: folder of tables, in place of videos. padded: modality -> what the sequences
    are cut or padded to; None: by the released rule. jobs: clips at once. resume: use what is in the cache.
    """
    dataset = DATASETS[dataset_name or DATASET_OF_LANGUAGE[language]]
    labels, output = data_dir / "label.csv", output or data_dir / "Processed" / USUAL_NAME
    clips, refused = read_label_table(labels, dataset, may_be_silent=allow_missing)
    described = {key: describe(extractor) for key, extractor in extractors.items()}
    text = BertText.load(find_bert(bert, DATASETS[DATASET_OF_LANGUAGE[language]]))
    described["text"] = describe(text)

    tasks = _tasks(clips, data_dir / "Raw", openface_tables)
    with writing(output, labels):
        cache = make_folder(output.with_name(f"{output.name}.cache"))
        for outdated in [*cache.glob("unfinished-*"), *([] if resume else cache.glob("*.npz"))]:
            remove(outdated)
        done = _extract(ClipWork(extractors, cache, allow_missing), tasks, refused, text, jobs)
        lengths = assemble(
            output,
            clips,
            refused,
            {clip: result.lengths for clip, result in done.items()},
            lambda clip: load_features(done[clip]),
            padded,
            described,
        )
    print(_report(output, [clip for clip in clips if clip.id in done], done, lengths))
    print(train_command(output, dataset.name, bert))
    raise_if_refused(output, refused, len(done) + len(refused))


def _tasks(clips: list[LabelledClip], videos: Path, tables: Path | None) -> list[Task]:
    if tables is not None and not tables.is_dir():
        raise UserError(f"--openface_csv {tables}: no such folder; it holds <video_id>/<clip_id>.csv")
    return [
        Task(
            clip,
            Clip(
                clip.find_video(videos),
                tables / clip.video_id / f"{clip.clip_id}.csv" if tables is not None else None,
            ),
        )
        for clip in clips
    ]


def _extract(work: ClipWork, tasks: list[Task], refused: dict[str, str], text: BertText, jobs: int) -> dict[str, Done]:
    """Returns what was made of each clip, by its id; those that failed join the refused, with the reason."""
    # Threads that wait for a core make each other wait: BERT takes those that the extraction leaves.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - jobs))
    done: dict[str, Done] = {}
    crashes = 0
    print(f"{len(tasks)} clips, {jobs} at once; where librosa was just installed, the first takes some 20 s longer")
    told = time.monotonic()
    with progress(None, "extracting", "clip", len(tasks)) as bar:
        for task, result in run_isolated(work, tasks, min(jobs, len(tasks))):
            if isinstance(result, Done):
                read_text(text, task, work.cache, result)
                done[task.clip.id] = result
            else:
                refused[task.clip.id] = str(result)
                crashes += isinstance(result, CrashedError)
                if crashes > MOST_CRASHES and not done:
                    raise UserError(f"no clip could be extracted so far, and the last {crashes} like this: {result}")
                bar.set_postfix(left_out=len(refused))
            bar.update()
            if bar.disable and time.monotonic() - told > SIGN_OF_LIFE:
                told = time.monotonic()
                print(f"{len(done)} clips done, {len(refused)} left out, of {len(tasks)}", flush=True)
    return done


def _report(output: Path, clips: list[LabelledClip], done: dict[str, Done], lengths: dict[str, int]) -> str:
    results = [done[clip.id] for clip in clips]
    counts = Counter(clip.split for clip in clips)
    lines = [f"{output}: " + ", ".join(f"{counts[split]} {split}" for split in SPLITS) + " clips"]
    for key in MODALITIES:
        cut = sum(result.lengths[key] > lengths[key] for result in results)
        seconds = [result.seconds[key] for result in results if key in result.seconds]
        took = f"{sum(seconds) / len(seconds):.2f} s a clip" if seconds else "from the cache"
        lines.append(f"  {key}: length {lengths[key]}, {cut} longer clips cut; {took}")
    missing = Counter(reason.split(" in any")[0] for result in results for reason in result.missing)
    lines += [f"  {count} clips with zeros, as there is {reason}" for reason, count in missing.items()]
    return "\n".join(lines)
