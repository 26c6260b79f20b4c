"""Scores clips with a trained model: python predict.py --checkpoint DIR clip.mp4 --text "what is said in it" """

import argparse
import json
import os
import sys
from pathlib import Path

from config.config_regression import DATASETS
from utils.errors import Parser, UserError, run_program
from utils.files import check_output


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 for a bug; 2 where a clip couldn't be scored; 130 or 143 after a signal."""
    argv = sys.argv[1:] if argv is None else argv
    return run_program(lambda: run(parse_arguments(argv)))


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="predict.py", description="Scores clips, or a feature file, with a trained model.")
    # fmt: off
    parser.add_argument("clips", type=Path, nargs="*", metavar="CLIP", help="video files, or folders of them")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", required=True, help="a folder that run.py left in results/models")
    parser.add_argument("--text", help="what is said in the clip; default: the .txt or .srt file beside each clip")
    parser.add_argument("--text_file", type=Path, metavar="FILE", help="a .txt or .srt file with what is said in the clip")
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="score the clips of a feature file instead of videos"
    )
    parser.add_argument("--split", choices=["train", "valid", "test"], help="of the feature file; default test")
    parser.add_argument(
        "--allow_missing", action="store_true",
        help="score clips without text, sound or face too: an empty text, or one frame of zeros, stands for it"
    )
    parser.add_argument(
        "--openface2Path", type=Path, metavar="PATH",
        help="OpenFace 2's FeatureExtraction, for a model that was trained on its features"
    )
    parser.add_argument(
        "--openface_csv", type=Path, metavar="PATH",
        help="OpenFace's table of the clip, or a folder with <folder>/<clip>.csv or <clip>.csv, in place of the program"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list, an object for each clip")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table to a CSV file too")
    parser.add_argument("--datasetName", type=str.lower, choices=list(DATASETS), help="where the checkpoint doesn't say")
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="as run.py's, for --features")
    parser.add_argument("--gpu_ids", type=int, nargs=1, metavar="N", help="as run.py's")
    # fmt: on
    args = parser.parse_args(argv)
    if bool(args.clips) == bool(args.features):
        raise UserError("name either clips, or a feature file with --features")
    if args.text is not None and args.text_file is not None:
        raise UserError("--text and --text_file: two texts; leave one out")
    if args.split and not args.features:
        raise UserError("--split: is of a feature file; name that with --features")
    if args.openface2Path and args.openface_csv:
        raise UserError("--openface2Path and --openface_csv: the one makes what the other reads; leave one out")
    if args.features and (args.text is not None or args.text_file or args.openface2Path or args.openface_csv):
        raise UserError("--features: holds texts and faces; leave out --text, --text_file and OpenFace's flags")
    return args


def run(args: argparse.Namespace) -> int:
    from trains.runs.checkpoint import read_metadata
    from trains.runs.clip_scorer import score_split
    from trains.runs.open import find_features, open_features
    from trains.runs.trained import load_trained
    from utils.device import pick_device

    if args.csv is not None:
        check_output(args.csv, *args.clips, *filter(None, [args.features, args.text_file]))
    device = pick_device(args.gpu_ids)
    said = read_metadata(args.checkpoint).get("dataset")
    if args.datasetName not in (None, said) and said is not None:
        raise UserError(f"--datasetName {args.datasetName}: {args.checkpoint} was trained on {said}; leave it out")
    trained = load_trained(args.checkpoint, dataset_name=args.datasetName)
    refused: dict[str, str] = {}
    if args.features:
        path = find_features(args.features, trained.dataset, trained.aligned)
        store = open_features(path, trained.dataset, trained.aligned, trained.encoder, args.cache_dir)
        trained.check_features(store, path)
        rows = score_split(trained, store.splits[args.split or "test"], device)
    else:
        rows, refused = score_videos(args, trained, device)
    print(json.dumps(rows, indent=2, ensure_ascii=False) if args.json else as_table(rows, trained.dataset.label_bound))
    if args.csv is not None and rows:
        write_csv(rows, args.csv)
    for name, reason in refused.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 2 if refused else 0


def score_videos(args: argparse.Namespace, trained, device) -> tuple[list[dict], dict[str, str]]:
    """Rows of the clips that could be scored; for the others, by name, why not."""
    from data.builders.transcript import beside, find_clips, read_transcript
    from data.extractors import Clip, ClipError
    from data.extractors.openface import find_openface
    from trains.runs.clip_scorer import ClipReader, score_clips
    from utils.progress import progress

    clips = find_clips(args.clips)
    given = read_transcript(args.text_file) if args.text_file is not None else args.text
    if given is not None and len(clips) > 1:
        raise UserError(f"one text for {len(clips)} clips: leave a .txt or .srt file beside each of them")
    if args.openface_csv is not None and not args.openface_csv.is_dir() and len(clips) > 1:
        raise UserError(
            f"--openface_csv {args.openface_csv}: one table for {len(clips)} clips; name a folder of tables"
        )
    by_openface = trained.extractors.get("vision", {}).get("name") == "openface"
    if by_openface != bool(args.openface2Path or args.openface_csv):
        raise UserError(
            f"{trained.folder} was trained on faces by {trained.extractors.get('vision', {}).get('name', 'nobody knows what')}: "
            + ("name --openface2Path or --openface_csv" if by_openface else "leave out OpenFace's flags")
        )
    program = find_openface(args.openface2Path) if args.openface2Path is not None else None
    reader = ClipReader(trained, args.allow_missing, program)
    readings, refused = [], {}
    for file in progress(clips, "reading", "clip"):
        table = args.openface_csv
        if table is not None and table.is_dir():
            tables = [table / file.parent.name / f"{file.stem}.csv", table / f"{file.stem}.csv"]
            table = next(filter(os.path.isfile, tables), tables[-1])
        try:
            text = given if given is not None else beside(file)
            readings.append(reader.read(Clip(file, table), text))
        except (ClipError, MemoryError) as error:
            refused[str(file)] = str(error) or "it needs more memory than there is"
    return score_clips(trained, readings, device), refused


def write_csv(rows: list[dict], path: Path) -> None:
    import pandas as pd

    from utils.files import replacing

    with replacing(path) as work:
        pd.DataFrame(rows).to_csv(work, index=False)


def as_table(rows: list[dict], bound: float) -> str:
    import pandas as pd

    if not rows:
        return "no clip could be scored"
    table = pd.DataFrame(rows)
    table = table.loc[:, (table != "").any()]
    return f"scores from {-bound:g} (negative) to {bound:g} (positive)\n" + table.to_string(
        index=False, float_format="%.3f"
    )


if __name__ == "__main__":
    sys.exit(main())
