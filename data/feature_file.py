"""Checks and builds feature files.

    python -m data.feature_file CHECK PATH [--datasetName mosi] [--aligned]
    python -m data.feature_file BUILD FILE --labels label.csv --parts DIR

CHECK reports what a feature file, or a folder of your clips, contains, and its mistakes. BUILD makes one from arrays.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from config.config_regression import DATASETS, Dataset
from data.builders.from_parts import build_from_parts
from data.builders.label_table import read_label_table
from data.doubts import find_doubts
from data.extractors import ClipError
from data.schema import OFFICIAL, SPLITS, UNIMODAL_LABELS, FeatureFile, FeatureSplit, read_feature_file
from utils.errors import Parser, UserError, at_least, first_line, printable, run_program


def describe(file: FeatureFile, dataset: Dataset) -> str:
    sums = {"SHA-1": file.sha1, "SHA-256": file.sha256()}
    lines = [str(file.path)]
    lines += [f"{kind} {found}: {OFFICIAL.get(found, 'not one of the official files')}" for kind, found in sums.items()]
    for modality, facts in sorted(file.extractors.items()):
        settings = " ".join(f"{name}={value}" for name, value in facts.get("settings", {}).items())
        name = f"{facts.get('name', '')} {facts.get('version', '')}"
        lines.append(first_line(f"{modality} by {name}: width {facts.get('width')} {settings}"))
    if not file.extractors:
        lines.append("extractors: not recorded; a model trained on this file cannot score videos")
    for name, split in file.splits.items():
        lines += _describe_split(name, split, dataset)
    return "\n".join(lines)


def _describe_split(name: str, split: FeatureSplit, dataset: Dataset) -> list[str]:
    lines = [f"{name}: {len(split)} clips of {len({clip.rsplit('$_$', 1)[0] for clip in split.ids})} videos"]
    lines += _histogram(split.labels["fusion"], dataset)
    if len(split.labels) > 1:
        lines.append(f"  {', '.join(UNIMODAL_LABELS[task] for task in split.labels if task != 'fusion')}")
    if split.text_bert is None:
        lines.append(f"  raw_text: run.py keeps {dataset.text_length} tokens (--set text_length=N)")
    else:
        tokens = split.text_bert.shape
        lines.append(f"  text_bert {tokens}: {_lengths(split.text_lengths, tokens[2], 'tokens')}")
    for key in ("audio", "vision"):
        values, lengths = getattr(split, key), getattr(split, f"{key}_lengths")
        frames = "as many frames as tokens" if lengths is None else _lengths(lengths, values.shape[1], "frames")
        lines.append(f"  {key} {values.shape}: {frames}, {(~np.isfinite(values)).sum()} non-finite values")
    return lines


def _histogram(labels: np.ndarray, dataset: Dataset) -> list[str]:
    """Range and mean of the labels, and a line for each class, from the most negative to the most positive."""
    from utils.metrics import sentiment_class  # loads scikit-learn, which --help does not need

    classes = Counter(sentiment_class(label, dataset.metrics) for label in np.sort(labels))
    longest = max(classes.values())
    lines = [f"    {name:17} {count:6} {'#' * round(40 * count / longest)}" for name, count in classes.items()]
    return [f"  labels {labels.min():g} to {labels.max():g}, mean {labels.mean():.3f}", *lines]


def _lengths(lengths: np.ndarray, padded: int, unit: str) -> str:
    mean = lengths.mean()
    return f"{lengths.min()} to {lengths.max()} {unit}, mean {mean:.1f}, {1 - mean / padded:.0%} padding"


def describe_folder(folder: Path, dataset: Dataset) -> tuple[str, list[str]]:
    """A report on a folder of clips as DataPre.py reads it, and its mistakes. Raises UserError."""
    clips, refused = read_label_table(folder / "label.csv", dataset)
    lines = [f"{folder}: {len(clips)} clips of {len({clip.video_id for clip in clips})} videos"]
    for split in SPLITS:
        labels = np.array([clip.label for clip in clips if clip.split == split], np.float32)
        lines += [f"{split}: {len(labels)} clips", *_histogram(labels, dataset)]
    for clip in clips:
        try:
            file = clip.find_video(folder / "Raw")
            if not file.is_file() or not file.stat().st_size:
                raise ClipError(f"{file} is missing or empty")
        except ClipError as error:
            refused[clip.id] = str(error)
    return "\n".join(lines), [f"{first_line(clip)}: {reason}" for clip, reason in refused.items()]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 if there is a mistake."""
    parser = Parser(prog="python -m data.feature_file", description="Checks and builds feature files.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="CHECK|BUILD")
    # fmt: off
    check = actions.add_parser("CHECK", aliases=["check"], help="report what a file or folder contains, and its mistakes")
    check.add_argument("path", type=Path, metavar="PATH", help="a feature pickle, or a folder with label.csv and Raw/")
    check.add_argument("--aligned", action="store_true", help="the file is word-aligned and has no lengths")
    build = actions.add_parser("BUILD", aliases=["build"], help="make a feature file from a label table and arrays")
    build.add_argument("path", type=Path, metavar="FILE", help="the feature file to write")
    build.add_argument("--labels", type=Path, metavar="CSV", required=True, help="video_id, clip_id, text, label, mode")
    build.add_argument("--parts", type=Path, metavar="DIR", required=True,
        help="arrays (frames, width): audio/<video_id>/<clip_id>.npy and vision/<video_id>/<clip_id>.npy (or .npz)")
    for key in ("audio", "vision"):
        build.add_argument(f"--{key}_length", type=at_least(1), metavar="N", help="frames to cut or pad to; default as released")
    for action in (check, build):
        action.add_argument("--datasetName", type=str.lower, choices=list(DATASETS), default="mosi", help="default mosi")
    # fmt: on

    def work() -> None:
        args = parser.parse_args(argv)
        dataset = DATASETS[args.datasetName]
        if args.action.upper() == "BUILD":
            padded = {"audio": args.audio_length, "vision": args.vision_length}
            return build_from_parts(args.path, args.labels, args.parts, dataset, padded)
        if args.path.is_dir():
            report, mistakes = describe_folder(args.path, dataset)
        else:
            file = read_feature_file(args.path, dataset, args.aligned)
            report, mistakes = describe(file, dataset), find_doubts(file, dataset)
        print(report, *(printable(f"mistake: {mistake}") for mistake in mistakes), sep="\n")
        if mistakes:
            raise UserError(f"{args.path}: {len(mistakes)} mistakes, the first: {mistakes[0]}")

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
