"""Raw clips -> a feature file that run.py trains on:

python data/DataPre.py --data_dir DIR --language en --openface2Path PATH

DIR holds label.csv and Raw/<video_id>/<clip_id>.mp4; docs/own_clips.md describes them and what is written to DIR/Processed/.
"""

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # started by its path: Python then looks for modules in data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from config.config_regression import DATASETS
from utils.errors import Parser, UserError, at_least, run_program


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 if all clips are in the file; 2 if some were left out, or the input is bad."""
    argv = sys.argv[1:] if argv is None else argv
    command = f"python data/DataPre.py {shlex.join(argv)}"
    return run_program(lambda: run(parse_arguments(argv)), f"the same command resumes: {command}")


def run(args: argparse.Namespace) -> None:
    # Not at the top: the worker processes, which import this file, do not need PyTorch.
    from data.builders.prepare import prepare
    from data.extractors.audio import LibrosaAudio
    from data.extractors.openface import find_openface
    from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace

    frames = (args.pool, args.fps, args.no_face)
    openface = OpenFace(*frames, args.openface2Path and find_openface(args.openface2Path), args.face)
    vision = {"none": NoFaces(), "mediapipe": MediapipeFaces(*frames)}.get(args.vision, openface)
    tables = (args.openface_csv or args.data_dir / "OpenFace") if args.vision == "openface-csv" else None
    padded = {"text": args.text_length, "audio": args.audio_length, "vision": args.vision_length}
    extractors = {"audio": LibrosaAudio(args.sample_rate, args.hop_length), "vision": vision}
    prepare(
        args.data_dir, args.output, args.language, args.datasetName, extractors=extractors, openface_tables=tables,
        bert=args.bert, padded=padded, allow_missing=args.allow_missing, jobs=args.jobs,
    )  # fmt: skip


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    from data.extractors.vision import NO_FACE  # here, so that a missing package is one line

    parser = Parser(prog="data/DataPre.py", description="Makes a feature file from raw clips and their label table.")
    add = parser.add_argument
    # fmt: off
    add("--data_dir", type=Path, metavar="DIR", required=True, help="folder with label.csv and Raw/")
    add("--language", type=str.lower, choices=["en", "cn"], required=True, help="of the texts; selects the default BERT")
    add("--datasetName", type=str.lower, choices=list(DATASETS), help="sets the labels' range; default mosi (en), sims (cn)")
    add("--bert", metavar="DIR", help="text encoder to train with: a folder or hub name; default as for run.py")
    add("--allow_missing", action="store_true", help="keep clips without audio or a face, with one frame of zeros")
    add("--vision", type=str.lower, choices=["openface", "openface-csv", "mediapipe", "none"],
        help="OpenFace 2, as released; its tables; MediaPipe; no vision. Default: of the first two, by the flag given")
    add("--openface2Path", type=Path, metavar="PATH", help="OpenFace 2's FeatureExtraction, which you build yourself")
    add("--openface_csv", type=Path, metavar="DIR", help="OpenFace tables, <video_id>/<clip_id>.csv; default DIR/OpenFace")
    add("--face", type=at_least(0), metavar="ID", help="OpenFace's face_id; default: in each frame the most confident face")
    add("--pool", type=at_least(1), metavar="N", default=3, help="video frames averaged into one feature frame; default 3")
    add("--fps", type=at_least(0.001, float), metavar="N", help="video frames used per second; default all, as released")
    add("--no_face", type=str.lower, choices=NO_FACE, default=NO_FACE[0],
        help="a video frame without a face keeps the last face's values (default; zeros before the first face), becomes "
        "zeros, is skipped, or counts as OpenFace left it, as released")
    add("--sample_rate", type=at_least(11025), metavar="HZ", default=22050, help="of the audio features; default 22050")
    add("--hop_length", type=at_least(32), metavar="N", default=512, help="audio samples per feature frame; default 512")
    for modality, unit, shortest in (("text", "tokens", 3), ("audio", "frames", 1), ("vision", "frames", 1)):
        add(f"--{modality}_length", type=at_least(shortest), metavar="N",
            help=f"{unit} that each clip is cut or padded to; default as released: mean plus three standard deviations")
    add("--output", type=Path, metavar="FILE", help="feature file; default DIR/Processed/features.pkl")
    add("--jobs", type=at_least(1), metavar="N", default=1, help="number of worker processes; default 1")
    # fmt: on
    args = parser.parse_args(argv)
    args.vision = args.vision or ("openface-csv" if args.openface_csv else "openface")
    given = {name for name in ("openface2Path", "openface_csv", "face") if getattr(args, name) is not None}
    usable = {"openface": {"openface2Path", "face"}, "openface-csv": {"openface_csv", "face"}}.get(args.vision, set())
    if given - usable or (args.vision == "openface" and not args.openface2Path):
        rule = "give --openface2Path PATH (openface) or --openface_csv DIR (openface-csv), or neither with mediapipe and none"
        raise UserError(f"--vision {args.vision}: {rule}; --face goes with the first two")
    return args


if __name__ == "__main__":
    sys.exit(main())
