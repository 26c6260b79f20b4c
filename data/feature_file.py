"""Checks and builds feature files.

    python -m data.feature_file CHECK FILE [--datasetName mosi] [--aligned]
    python -m data.feature_file BUILD FILE --labels label.csv --parts DIR

The first verifies a file, or a folder of own clips, and prints what is in it and what would spoil a training. The second makes a
file of a table and arrays.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from config.config_regression import DATASETS, Dataset
from data.builders.from_parts import build_from_parts
from data.builders.label_table import read_label_table
from data.schema import OFFICIAL_SHA1, SPLITS, UNIMODAL_LABELS, FeatureFile, FeatureSplit, read_feature_file
from utils.errors import Parser, UserError, first_line, run_program

MOST_LISTED = 20  # mistakes that are listed
BAR = 40  # characters of a histogram's longest bar


def check_path(path: Path, dataset: Dataset, aligned: bool) -> None:
    """Prints a report on a feature file or a folder of own clips. Raises UserError where there is a mistake in it."""
    if path.is_dir():
        report, mistakes = describe_folder(path, dataset)
    else:
        report, mistakes = describe(read_feature_file(path, dataset, aligned), dataset)
    print(report)
    for mistake in mistakes[:MOST_LISTED]:
        print(f"mistake: {mistake}")
    if mistakes:
        raise UserError(f"{path}: {len(mistakes)} mistakes, the first: {mistakes[0]}")


def describe(file: FeatureFile, dataset: Dataset) -> tuple[str, list[str]]:
    """A report on a feature file, and the mistakes in it that its reader doesn't refuse."""
    lines = [f"{file.path}", f"SHA-1 {file.sha1}: {OFFICIAL_SHA1.get(file.sha1, 'not one of the official files')}"]
    for modality, facts in sorted(file.extractors.items()):
        settings = " ".join(f"{name}={value}" for name, value in facts.get("settings", {}).items())
        words = [first_line(facts.get(key, "")) for key in ("name", "version")]
        lines.append(
            f"{first_line(modality)} by {' '.join(words)}: width {first_line(facts.get('width'))} {first_line(settings)}".rstrip()
        )
    if not file.extractors:
        lines.append("extractors: not said; a model trained on it can't score videos")
    mistakes = []
    for name, split in file.splits.items():
        about_split, wrong = _describe_split(name, split, dataset)
        lines += about_split
        mistakes += wrong
        repeated = [clip for clip, count in Counter(split.ids).items() if count > 1]
        if repeated:
            mistakes.append(f"{name}: {len(repeated)} ids stand there twice, {first_line(repeated[0])} among them")
    return "\n".join(lines), mistakes + _leaks({name: split.ids for name, split in file.splits.items()})


def _describe_split(name: str, split: FeatureSplit, dataset: Dataset) -> tuple[list[str], list[str]]:
    """What is in a split, and the mistakes in it."""
    mistakes = []
    lines = [f"{name}: {len(split)} clips of {len({_video(clip) for clip in split.ids})} videos"]
    lines += _histogram(split.labels["fusion"], dataset)
    unimodal = [UNIMODAL_LABELS[task] for task in split.labels if task != "fusion"]
    if unimodal:
        lines.append(f"  {', '.join(unimodal)}")
    if split.text_bert is not None:
        lines.append(
            f"  text_bert {split.text_bert.shape}: {_summary(split.text_lengths, split.text_bert.shape[2], 'tokens')}"
        )
    else:
        lines.append("  raw_text, to be tokenized")
    for key in ("audio", "vision"):
        values, lengths = getattr(split, key), getattr(split, f"{key}_lengths")
        aligned = lengths is None
        if aligned:
            lengths = split.text_lengths
        frames = "lengths are the texts'" if lengths is None else _summary(lengths, values.shape[1], "frames")
        broken, front, beyond = _count_faults(values, None if aligned else lengths)
        lines.append(f"  {key} {values.shape}: {frames}; {broken} values not finite")
        if front:
            lines.append(f"    {front} clips begin with more zeros than they end with: padded at the front?")
        if beyond:
            lines.append(f"    {beyond} clips have frames beyond their length, which nobody reads")
        if 2 * front > len(split):
            mistakes.append(
                f"{name}: {key}: most clips are padded at the front; move them there (data/TextPre.py does)"
            )
    return lines, mistakes


def _histogram(labels: np.ndarray, dataset: Dataset) -> list[str]:
    """A line for each class, from the most negative to the most positive."""
    from data.sentiment import sentiment_class  # which loads scikit-learn: --help needn't wait for it

    values, counts = np.unique(labels, return_counts=True)
    classes: Counter[str] = Counter()
    for value, count in zip(values, counts, strict=True):
        classes[sentiment_class(value, dataset.metrics)] += int(count)
    lines = [f"  labels {labels.min():g} to {labels.max():g}, mean {labels.mean():.3f}"]
    longest = max(classes.values())
    return lines + [f"    {name:17} {count:6} {'#' * round(BAR * count / longest)}" for name, count in classes.items()]


def _summary(lengths: np.ndarray, padded: int, unit: str) -> str:
    share = 1 - lengths.sum() / (len(lengths) * padded)
    return f"{lengths.min()} to {lengths.max()} {unit}, mean {lengths.mean():.1f}, {share:.0%} padding"


def _count_faults(values: np.ndarray, lengths: np.ndarray | None) -> tuple[int, int, int]:
    """Values that aren't finite; clips whose zeros stand in front; clips with something beyond their length.

    lengths: (N,) None for aligned data, in which [CLS] and [SEP] have frames of zeros.
    """
    broken = front = beyond = 0
    for number, clip in enumerate(values):  # one at a time: a file may be half as large as the memory
        broken += int((~np.isfinite(clip)).sum())
        real = np.flatnonzero(np.any(clip != 0, axis=1))
        if not len(real):
            continue
        leading, trailing = real[0], len(clip) - 1 - real[-1]
        if leading > max(1, trailing):
            front += 1
        elif lengths is not None and real[-1] >= lengths[number]:
            beyond += 1
    return broken, front, beyond


def _leaks(ids: dict[str, list[str]]) -> list[str]:
    """The ids that stand in two splits: what is tested was trained on."""
    mistakes = []
    names = list(ids)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            if shared := sorted(set(ids[one]) & set(ids[other])):
                mistakes.append(f"{len(shared)} ids stand in {one} and in {other}, {first_line(shared[0])} among them")
    return mistakes


def _video(clip: str) -> str:
    return clip.rsplit("$_$", 1)[0]


def describe_folder(folder: Path, dataset: Dataset) -> tuple[str, list[str]]:
    """A report on a folder of own clips, as DataPre.py takes it, and the mistakes in it. Raises UserError."""
    clips, refused = read_label_table(folder / "label.csv", dataset)
    mistakes = [f"label.csv: {first_line(clip)}: {reason}" for clip, reason in refused.items()]
    lines = [f"{folder}: {len(clips)} clips of {len({clip.video_id for clip in clips})} videos"]
    for split in SPLITS:
        mine = [clip for clip in clips if clip.split == split]
        lines.append(f"{split}: {len(mine)} clips")
        lines += _histogram(np.array([clip.label for clip in mine], np.float32), dataset)
    for clip in clips:
        if not (file := clip.find_video(folder / "Raw")).is_file():
            mistakes.append(f"{first_line(clip.id)}: no file {file}")
        elif not file.stat().st_size:
            mistakes.append(f"{first_line(clip.id)}: {file} is empty")
    return "\n".join(lines), mistakes


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where there is a mistake."""
    parser = Parser(prog="python -m data.feature_file", description="Checks and builds feature files.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="CHECK|BUILD")
    check = actions.add_parser("CHECK", help="verify a feature file, or a folder of own clips, and print what is in it")
    check.add_argument("path", type=Path, metavar="PATH", help="a feature pickle; or a folder with label.csv and Raw/")
    check.add_argument("--aligned", action="store_true", help="the file is word-aligned and has no lengths")
    build = actions.add_parser("BUILD", help="make a feature file of own features, one file for each clip and modality")
    build.add_argument("path", type=Path, metavar="FILE", help="the feature file to write")
    build.add_argument(
        "--labels", type=Path, metavar="CSV", required=True, help="video_id, clip_id, text, label, mode of each clip"
    )
    build.add_argument(
        "--parts", type=Path, metavar="DIR", required=True,
        help="audio/<video_id>/<clip_id>.npy and vision/<video_id>/<clip_id>.npy (or .npz), each (frames, width)",
    )  # fmt: skip
    for key in ("audio", "vision"):
        build.add_argument(
            f"--{key}_length", type=int, metavar="N",
            help="frames that each clip is cut or padded to; default: the mean and three standard deviations",
        )  # fmt: skip
    for action in (check, build):
        action.add_argument(
            "--datasetName", type=str.lower, choices=list(DATASETS), default="mosi", help="whose range of labels holds (mosi)"
        )  # fmt: skip
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        action = [word if word.startswith("-") else word.upper() for word in argv[:1]]  # check and CHECK are the same
        arguments = parser.parse_args([*action, *argv[1:]])
        dataset = DATASETS[arguments.datasetName]
        if arguments.action == "BUILD":
            padded = {"audio": arguments.audio_length, "vision": arguments.vision_length}
            build_from_parts(arguments.path, arguments.labels, arguments.parts, dataset, padded)
        else:
            check_path(arguments.path, dataset, arguments.aligned)

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main())
