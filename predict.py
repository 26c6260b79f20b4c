"""Scores clips with a trained model: python predict.py --checkpoint DIR clip.mp4 --text "its transcript" """

import argparse
import json
import sys
from pathlib import Path

from config.config_regression import DATASETS
from utils.errors import Parser, UserError, at_least, complain, csv_text, printable, run_program
from utils.files import check_output, replacing


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 after a bug; 2 for bad input or an unscored clip; 130 or 143 after a signal."""
    argv = sys.argv[1:] if argv is None else argv
    return run_program(lambda: run(parse_arguments(argv)))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="predict.py", description="Scores clips, or a feature file, with a trained model.")
    # fmt: off
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("clips", type=Path, nargs="*", default=[], metavar="CLIP", help="video files or folders")
    source.add_argument("--features", type=Path, metavar="FILE", help="score a feature file instead of clips")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", required=True, help="a folder in results/models")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", help="transcript of the clip; default: the file next to each clip")
    text.add_argument("--text_file", type=Path, metavar="FILE",
        help="a file with the clip's transcript: .txt, .srt, .vtt or Whisper's .json")
    parser.add_argument("--segments", type=at_least(0.1, float, most=86400), nargs="?", const=0, metavar="SECONDS",
        help="score parts of the clips: the timed lines of their transcripts, or windows of this length")
    parser.add_argument("--split", choices=["train", "valid", "test"], help="split of the feature file; default test")
    parser.add_argument("--allow_missing", action="store_true",
        help="also score clips without text, audio or a face, replaced by an empty text or one frame of zeros")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument("--openface2Path", type=Path, metavar="PATH", help="OpenFace 2's program, if the model needs it")
    faces.add_argument("--openface_csv", type=Path, metavar="PATH",
        help="instead of running OpenFace: its table of the clip, or a folder with <folder>/<clip>.csv or <clip>.csv")
    parser.add_argument("--face", type=int, metavar="ID", help="face_id in OpenFace's table; default: the most confident")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per clip")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to a CSV file")
    parser.add_argument("--datasetName", type=str.lower, choices=list(DATASETS), help="if the checkpoint does not name it")
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="as in run.py, for --features")
    parser.add_argument("--gpu_ids", type=int, nargs=1, metavar="N", help="as in run.py")
    # fmt: on
    args = parser.parse_args(argv)
    for_clips = (args.text, args.text_file, args.openface2Path, args.openface_csv, args.segments, args.face)
    if any(flag is not None for flag in for_clips) if args.features else args.split:
        raise UserError("--split needs --features, which replaces clips, their texts and OpenFace's flags")
    return args


def run(args: argparse.Namespace) -> int:
    from trains.runs.checkpoint import read_metadata
    from trains.runs.clip_scorer import score_split
    from trains.runs.open import find_features, load_trained, open_features
    from utils.device import pick_device

    if args.csv is not None:
        check_output(args.csv, *args.clips, *filter(None, [args.features, args.text_file]))
    device = pick_device(args.gpu_ids)
    dataset = read_metadata(args.checkpoint).get("dataset")
    if args.datasetName and dataset not in (None, args.datasetName):
        raise UserError(f"--datasetName {args.datasetName}: {args.checkpoint} was trained on {dataset}; leave it out")
    trained = load_trained(args.checkpoint, dataset_name=args.datasetName)
    failures: dict[str, str] = {}
    if args.features:
        split, what = args.split or "test", (trained.dataset, bool(trained.aligned))
        path = find_features(args.features, *what)
        store = open_features(path, *what, trained.encoder, args.cache_dir, to_score=split)
        trained.check_features(store, path)
        for note in store.notes:
            complain(note)
        table = score_split(trained, store.splits[split], device)
    else:
        table, failures = score_videos(args, trained, device)
    column = "id" if args.features else "clip"
    if args.csv is not None and not table.empty:
        with replacing(args.csv) as work:
            table.assign(**{column: table[column].map(csv_text)}).to_csv(work, index=False)
    if args.json:
        print(json.dumps(table.to_dict("records"), indent=2))
    elif table.empty:
        print("no clip could be scored")
    else:
        bound = trained.dataset.label_bound
        print(f"scores from {-bound:g} (negative) to {bound:g} (positive)")
        # Not columns that are empty for all clips, or say that all of each clip is used.
        plain = {"seconds_used": table.get("seconds"), "tokens_used": table.get("tokens")}
        telling = [name for name in table if (table[name] != plain.get(name, "")).any()]
        shown = table.assign(**{column: table[column].map(printable)})
        print(shown[telling].to_string(index=False, float_format="%.3f"))
    for name, reason in failures.items():
        complain(f"error: {name}: {reason}")
    return 2 if failures else 0


def score_videos(args: argparse.Namespace, trained, device):
    """Returns the table of score_clips, and the reason for each clip that cannot be scored, by file name."""
    from data.builders.transcript import beside, find_clips, parse_cues, read_cues, split
    from data.extractors import Clip, ClipError
    from data.extractors.openface import find_openface
    from trains.runs.clip_scorer import ClipReader, score_clips
    from utils.progress import progress

    clips, tables, given = find_clips(args.clips), args.openface_csv, None
    if args.text_file is not None:
        given = read_cues(args.text_file)
    elif args.text is not None:
        given = parse_cues(args.text, "--text")
    if len(clips) > 1 and (given or (tables and tables.is_file())):
        mend = "put a .txt or .srt file next to each clip, and give --openface_csv a folder of tables"
        raise UserError(f"one text or OpenFace table for {len(clips)} clips; {mend}")
    extractor = trained.extractors.get("vision", {}).get("name", "an unknown extractor")
    with_openface = bool(args.openface2Path or tables)
    if (extractor == "openface") != with_openface or (args.face is not None and not with_openface):
        fix = "add --openface2Path or --openface_csv" if extractor == "openface" else "leave out OpenFace's flags"
        raise UserError(f"{trained.folder} was trained on vision features from {extractor}: {fix}")
    read = ClipReader(trained, args.allow_missing, args.openface2Path and find_openface(args.openface2Path), args.face)
    readings, failures = [], {}
    for file in progress(clips, "reading", unit="clip"):
        name = f"{file.stem}.csv"
        table = tables and next(filter(Path.is_file, [tables, tables / file.parent.name / name]), tables / name)
        try:
            cues = given or beside(file, args.segments is not None) or []
            parts = split(Clip(file, table), cues, args.segments, args.allow_missing)
        except UserError as error:
            parts, failures[str(file)] = [], str(error)
        for part, text in parts:
            try:
                readings.append(read(part, text))
            except (ClipError, MemoryError) as error:
                name = str(file) if part.end is None else f"{file} from {part.start:g} to {part.end:g} s"
                failures[name] = str(error) or "not enough memory"
    return score_clips(trained, readings, device), failures


if __name__ == "__main__":
    sys.exit(main())
