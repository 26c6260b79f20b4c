"""Scores clips with a trained model: python predict.py --checkpoint DIR clip.mp4 --text "its transcript" """

import argparse
import gc
import json
from collections.abc import Sequence
from pathlib import Path

from config.config_regression import DATASETS
from config.inputs import find_on_disk
from utils.errors import Parser, UserError, at_least, complain, csv_text, printable, run_program
from utils.files import check_output, replacing


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0; 1 after a bug; 2 for bad input or an unscored clip; 130 or 143 after a signal."""
    return run_program(lambda: run(parse_arguments(argv)))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="predict.py", description="Scores clips, or a feature file, with a trained model.")
    # fmt: off
    source = parser.add_mutually_exclusive_group()
    source.add_argument("clips", type=Path, nargs="*", default=[], metavar="CLIP",
        help="video files or folders; without any, the --text alone is scored, by the model's text head")
    source.add_argument("--features", type=Path, metavar="FILE", help="score a feature file instead of clips")
    parser.add_argument("--checkpoint", metavar="DIR", required=True, help="a folder in results/models, or a hub name")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", help="transcript of the clip; default: the file next to each clip")
    text.add_argument("--text_file", dest="text", type=Path, metavar="FILE", help="a .txt, .srt, .vtt or Whisper's .json")
    parser.add_argument("--segments", type=at_least(0.1, float, most=86400), nargs="?", const=0, metavar="SECONDS",
        help="score parts of the clips: the timed lines of their transcripts, or windows of this length")
    parser.add_argument("--jobs", type=at_least(1), metavar="N", help="worker processes, where a crash costs one clip")
    parser.add_argument("--split", choices=["train", "valid", "test"], help="split of the feature file; default test")
    parser.add_argument("--allow_missing", action="store_true",
        help="also score clips without text, audio or a face, replaced by an empty text or one frame of zeros")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument("--openface2Path", type=Path, metavar="PATH", help="OpenFace 2's program, if the model needs it")
    faces.add_argument("--openface_csv", type=Path, metavar="PATH",
        help="instead of running OpenFace: its table of the clip, or a folder with <folder>/<clip>.csv or <clip>.csv")
    parser.add_argument("--face", type=at_least(0), metavar="ID", help="face_id in OpenFace's table; default: the best")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per clip")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to a CSV file")
    parser.add_argument("--datasetName", type=str.lower, choices=list(DATASETS), help="if the checkpoint does not name it")
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="folder for converted --features")
    parser.add_argument("--gpu_ids", type=int, nargs=1, metavar="N", help="GPU number, or -1 for the CPU")
    # fmt: on
    args = parser.parse_args(argv)
    for_clips = (args.segments, args.jobs, args.openface2Path, args.openface_csv, args.face)
    if not args.clips and any(flag is not None for flag in for_clips):
        raise UserError("--segments, --jobs and OpenFace's flags need clips")
    if args.split and not args.features or args.features and args.text is not None:
        raise UserError("--split needs --features, which replaces clips and their texts")
    if not (args.clips or args.features or args.text is not None):
        raise UserError("nothing to score: name clips or folders, a --features file, or a --text")
    return args


def run(args: argparse.Namespace) -> int:
    find_on_disk(args.checkpoint, "--checkpoint")  # a typo is reported before torch is imported
    if args.csv is not None:
        check_output(args.csv, *(path for path in (*args.clips, args.features, args.text) if isinstance(path, Path)))
    gc.disable()  # as in run.py
    import pandas as pd

    import trains.runs.clip_scorer  # noqa: F401 (imports nearly all)

    gc.freeze()
    gc.enable()
    scorer = Scorer(args.checkpoint, args.gpu_ids, args.datasetName)
    failures: dict[str, str] = {}
    if args.features:
        rows = scorer.score_file(args.features, args.split or "test", args.cache_dir)
    elif args.clips:
        how = {name: getattr(args, name) for name in ("segments", "jobs", "allow_missing", "openface_csv", "face")}
        rows, failures = scorer.score_clips(args.clips, args.text, openface=args.openface2Path, **how)
    else:
        rows = [scorer.score(text=args.text)]
    table = pd.DataFrame(rows)
    name = "id" if args.features else "clip" if args.clips else "text"
    if args.csv is not None and rows:
        with replacing(args.csv) as work:
            table.assign(**{name: table[name].map(csv_text)}).to_csv(work, index=False)
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no clip could be scored")
    else:
        bound = scorer.trained.dataset.label_bound
        remark = "; text_score is the text head's, not the score of a clip" if name == "text" else ""
        print(f"scores from {-bound:g} (negative) to {bound:g} (positive){remark}")
        # Not columns that are empty for all clips, or say that all of each clip is used.
        plain = {"seconds_used": table.get("seconds"), "tokens_used": table.get("tokens")}
        telling = [column for column in table if (table[column] != plain.get(column, "")).any()]
        table[name] = table[name].map(printable)
        print(table[telling].to_string(index=False, float_format="%.3f"))
    for file, reason in failures.items():
        complain(f"error: {file}: {reason}")
    return 2 if failures else 0


class Scorer:
    """A trained model, loaded once: Scorer("MODEL").score("clip.mp4", text="...") returns what predict.py prints.

    Arguments are predict.py's flags. Raises UserError, with one line; its ClipError if a clip cannot be scored.
    """

    def __init__(self, checkpoint: str | Path, gpu_ids: Sequence[int] | None = None, dataset_name: str | None = None):
        from models.hub import find_checkpoint
        from trains.runs.checkpoint import read_metadata
        from trains.runs.open import load_trained
        from utils.device import pick_device

        folder, self.device = find_checkpoint(str(checkpoint), "--checkpoint"), pick_device(gpu_ids)
        if dataset_name and (dataset := read_metadata(folder).get("dataset")) not in (None, dataset_name):
            raise UserError(f"--datasetName {dataset_name}: {folder} was trained on {dataset}; leave it out")
        self.trained = load_trained(folder, dataset_name=dataset_name)

    def score(self, clip: str | Path | None = None, text: str | Path | None = None, **how: object) -> dict[str, object]:
        """A clip's row; without a clip, the text head's score of the text, text_score.

        text: the transcript, or the Path of one; None: the file next to the clip. how: as for score_clips.
        """
        from data.builders.transcript import join, read_cues
        from data.extractors import ClipError
        from trains.runs.clip_scorer import score_text

        if clip is None:
            return score_text(self.trained, join(read_cues(text or "")), self.device)
        if not Path(clip).is_file():
            raise ClipError(f"{clip}: no such file")
        rows, failures = self.score_clips([clip], text, segments=None, **how)
        for file, reason in failures.items():
            raise ClipError(f"{file}: {reason}")
        return rows[0]

    def score_file(self, features: str | Path, split: str = "test", cache_dir: Path | None = None) -> list[dict]:
        """A row for each clip of a feature file's split: train, valid or test."""
        from trains.runs.clip_scorer import score_split

        store = self.trained.open_features(Path(features), cache_dir=cache_dir, to_score=split)
        for note in store.notes:
            complain(note)
        return score_split(self.trained, store.splits[split], self.device).to_dict("records")

    def score_clips(
        self, clips: Sequence[str | Path], text: str | Path | None = None, *, segments: float | None = None,
        jobs: int | None = None, allow_missing: bool = False, openface: str | Path | None = None,
        openface_csv: str | Path | None = None, face: int | None = None,
    ) -> tuple[list[dict], dict[str, str]]:  # fmt: skip
        """Files and folders -> a row for each clip, and the reason for each that cannot be scored, by file name.

        segments: seconds; 0: the lines of the transcripts. jobs: worker processes. openface: the program.
        """
        from data.builders.transcript import beside, find_clips, read_cues, split
        from data.extractors import Clip, ClipError
        from trains.runs.clip_scorer import ClipReader, score_clips
        from utils.progress import slow_progress

        files, tables = find_clips(list(map(Path, clips))), openface_csv and Path(openface_csv)
        given = None if text is None else read_cues(text)
        if len(files) > 1 and (given or (tables and tables.is_file())):
            mend = "put a .txt or .srt file next to each clip, and give --openface_csv a folder of tables"
            raise UserError(f"--text, --text_file and an OpenFace table are for one clip, not {len(files)}; {mend}")
        read = ClipReader(self.trained, allow_missing, openface and Path(openface), tables, face)
        parts, readings, failures = [], [], {}
        for file in files:
            name = f"{file.stem}.csv"
            table = tables and next(filter(Path.is_file, [tables, tables / file.parent.name / name]), tables / name)
            try:
                cues = given or beside(file, segments is not None) or []
                parts += split(Clip(file, table), cues, segments, allow_missing)
            except UserError as error:
                failures[str(file)] = str(error)
        wanted = [part for part, words in parts if words or allow_missing]
        extracted = read.extract_all(wanted, min(jobs, len(wanted))) if jobs and wanted else {}
        for part, words in slow_progress(parts, "reading", unit="clip", disable=bool(jobs) or len(parts) < 2):
            try:
                readings.append(read(part, words, extracted.get(part)))
            except (ClipError, MemoryError) as error:
                name = str(part.file) if part.end is None else f"{part.file} from {part.start:g} to {part.end:g} s"
                failures[name] = str(error) or "not enough memory"
        return score_clips(self.trained, readings, self.device), failures


if __name__ == "__main__":
    raise SystemExit(main())
