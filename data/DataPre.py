"""Raw clips -> a feature file that run.py trains on:

    python data/DataPre.py --data_dir DIR --language en --openface2Path PATH

    DIR/label.csv                            video_id, clip_id, text, label, mode; annotation, label_T, label_A, label_V if known
    DIR/Raw/<video_id>/<clip_id>.mp4         one clip each
    DIR/Processed/features.pkl               what comes out, in the official layout (data/schema.py)
                  features.pkl.cache/        each clip's features, so that a run that was stopped goes on
                  errors.csv                 the clips that were left out, and why

The same extractors (data/extractors/) serve predict.py.
"""

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # started by its path: Python then looks for modules in data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from config.config_regression import DATASETS
from data.extractors import MODALITIES, Extractor
from data.extractors.audio import LibrosaAudio
from data.extractors.openface import find_openface
from data.extractors.vision import NO_FACE, MediapipeFaces, NoFaces, OpenFace
from utils.errors import Parser, UserError, run_program
from utils.signals import deferred_signals


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where all clips are in the file; 2 where some were left out, or nothing could be done."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        args = parse_arguments(argv)
        with deferred_signals():  # a signal amid an import could be lost
            from data.builders.prepare import prepare

        prepare(
            args.data_dir,
            args.output,
            args.language,
            args.datasetName,
            extractors=make_extractors(args),
            openface_tables=(args.openface_csv or args.data_dir / "OpenFace")
            if args.vision == "openface-csv"
            else None,
            bert=args.bert,
            padded={key: getattr(args, f"{key}_length") for key in MODALITIES},
            allow_missing=args.allow_missing,
            jobs=args.jobs,
            resume=args.resume,
        )

    return run_program(work, f"the same command goes on: python data/DataPre.py {shlex.join(argv)}")


def make_extractors(args: argparse.Namespace) -> dict[str, Extractor]:
    """What makes features of sound and faces. Raises UserError where OpenFace isn't there."""
    sound = LibrosaAudio(args.sample_rate, args.hop_length)
    if args.vision == "none":
        return {"audio": sound, "vision": NoFaces()}
    settings = {"pool": args.pool, "fps": args.fps, "no_face": args.no_face}
    if args.vision == "mediapipe":
        return {"audio": sound, "vision": MediapipeFaces(**settings)}
    program = find_openface(args.openface2Path) if args.vision == "openface" else None
    return {"audio": sound, "vision": OpenFace(**settings, program=program)}


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    args = _parser().parse_args(argv)
    if args.vision is None:
        args.vision = "openface-csv" if args.openface_csv and not args.openface2Path else "openface"
    if args.vision == "openface" and args.openface2Path is None:
        raise UserError("name OpenFace 2 with --openface2Path, or another way to see faces: --vision mediapipe")
    for flag, vision in (("openface2Path", "openface"), ("openface_csv", "openface-csv")):
        if getattr(args, flag) is not None and args.vision != vision:
            raise UserError(f"--{flag}: is for --vision {vision}; leave one of them out")
    least = {"pool": 1, "sample_rate": 11025, "hop_length": 32, "jobs": 1}
    least |= {"text_length": 3, "audio_length": 1, "vision_length": 1}
    for flag, smallest in least.items():
        value = getattr(args, flag)
        if value is not None and value < smallest:
            raise UserError(f"--{flag} {value}: expected {smallest} or more")
    if args.fps is not None and not 0 < args.fps < float("inf"):
        raise UserError(f"--fps {args.fps:g}: expected more than 0")
    return args


def _parser() -> Parser:
    parser = Parser(prog="data/DataPre.py", description="Makes a feature file of raw clips and their label table.")
    # fmt: off
    what = parser.add_argument_group("what to read")
    what.add_argument("--data_dir", type=Path, metavar="DIR", required=True, help="folder with label.csv and Raw/")
    what.add_argument(
        "--language", type=str.lower, choices=["en", "cn"], required=True,
        help="of the texts: which BERT reads them, unless --bert names another"
    )
    what.add_argument(
        "--datasetName", type=str.lower, choices=list(DATASETS),
        help="under whose name you will train: whose range the labels lie in; default mosi for en, sims for cn"
    )
    what.add_argument(
        "--bert", metavar="DIR",
        help="the text encoder that you will train with: a folder or hub name; default as run.py's"
    )
    what.add_argument(
        "--allow_missing", action="store_true",
        help="keep clips without sound or without a face, with one frame of zeros; default: they are left out"
    )

    faces = parser.add_argument_group("faces")
    faces.add_argument(
        "--vision", type=str.lower, choices=["openface", "openface-csv", "mediapipe", "none"],
        help="openface: run OpenFace 2, as released; openface-csv: read tables that it made before; mediapipe: face "
        "landmarks, installed with pip; none: no faces. Default openface, where --openface2Path is given"
    )
    faces.add_argument(
        "--openface2Path", type=Path, metavar="PATH",
        help="OpenFace 2's FeatureExtraction, which you build yourself"
    )
    faces.add_argument(
        "--openface_csv", type=Path, metavar="DIR",
        help="folder of OpenFace's tables, <video_id>/<clip_id>.csv; default DIR/OpenFace"
    )
    faces.add_argument("--pool", type=int, metavar="N", default=3, help="pictures averaged to one frame; default 3, as released")
    faces.add_argument(
        "--fps", type=float, metavar="N",
        help="pictures a second that are used; default all, as released. Set it where your clips' rates differ"
    )
    faces.add_argument(
        "--no_face", type=str.lower, choices=NO_FACE, default=NO_FACE[0],
        help="what stands for a picture without a face: keep the last one's values (the default, as released), zero, or "
        "skip it"
    )

    sizes = parser.add_argument_group("sound and sizes")
    sizes.add_argument("--sample_rate", type=int, metavar="HZ", default=22050, help="of the sound; default 22050, as released")
    sizes.add_argument(
        "--hop_length", type=int, metavar="N", default=512, help="samples for a frame of sound; default 512, as released"
    )
    for key, unit in (("text", "tokens"), ("audio", "frames"), ("vision", "frames")):
        sizes.add_argument(
            f"--{key}_length", type=int, metavar="N",
            help=f"{unit} that each clip is cut or padded to; default as released: the mean and three standard deviations"
        )

    run = parser.add_argument_group("the run")
    run.add_argument(
        "--output", type=Path, metavar="FILE",
        help="the feature file; its cache and list of errors (NAME.errors.csv) lie beside it. Default "
        "DIR/Processed/features.pkl"
    )
    run.add_argument("--jobs", type=int, metavar="N", default=1, help="clips at once, each in a process of its own; default 1")
    run.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True,
        help="use what is in the cache (the default); --no-resume extracts everything anew"
    )
    # fmt: on
    return parser


if __name__ == "__main__":
    sys.exit(main())
