"""Features of CMU-MultimodalSDK and the transcripts of its corpora -> a feature file that run.py trains on:

    python data/TextPre.py --features mosi_data.pkl --transcripts Transcript/Segmented --output aligned_50.pkl --aligned

    --features      {"train" | "valid" | "test": {"audio" (N, La, Da), "vision" (N, Lv, Dv), "labels" (N,), "id"}},
                    padded at either end
    --transcripts   CMU's: *.annotprocessed of MOSI, *.txt of MOSEI; or a table with video_id, clip_id, text
    --output        in the official layout (data/schema.py); NAME.errors.csv beside it lists what was left out

The work is in data/builders/cmu.py.
"""

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # started by its path: Python then looks for modules in data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from config.config_regression import DATASETS
from utils.errors import Parser, UserError, run_program

SHORTEST_TEXT = 3  # [CLS], one token, [SEP]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where all clips are in the file; 2 where some were left out, or nothing was done."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        args = parse_arguments(argv)
        from data.builders.cmu import join_cmu

        join_cmu(
            args.features,
            args.transcripts,
            args.output,
            DATASETS[args.datasetName],
            bert=args.bert,
            aligned=args.aligned,
            text_length=args.text_length,
        )

    return run_program(work, f"nothing was written; to begin again: python data/TextPre.py {shlex.join(argv)}")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="data/TextPre.py",
        description="Makes a feature file of CMU-MultimodalSDK's features of MOSI or MOSEI, and of the transcripts.",
    )
    # fmt: off
    parser.add_argument(
        "--features", type=Path, metavar="FILE", required=True,
        help="pickle with train, valid and test, and in each audio, vision, labels and id, as the files that came with "
        "MulT and MFN have them (mosi_data.pkl, mosei_senti_data_noalign.pkl, ...). Its word vectors aren't used"
    )
    parser.add_argument(
        "--transcripts", type=Path, metavar="PATH",
        help="what is said: a folder with CMU's transcripts anywhere below it, or a CSV file with video_id, clip_id, "
        "text, and start and end where known. Default: the pickle's own raw_text"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", required=True, help="the feature file; NAME.errors.csv lies beside it"
    )
    parser.add_argument(
        "--aligned", action="store_true",
        help="the pickle has one frame of sound and face for each word: give each token those of its word. Default: "
        "sound and face keep their own lengths"
    )
    parser.add_argument(
        "--datasetName", type=str.lower, choices=["mosi", "mosei"], default="mosi",
        help="whose clips: for the range of labels and the run that is proposed; default mosi"
    )
    parser.add_argument(
        "--bert", metavar="DIR",
        help="the text encoder that you will train with: a folder or hub name; default as run.py's"
    )
    parser.add_argument(
        "--text_length", type=int, metavar="N", default=50,
        help="tokens that each text is cut or padded to, [CLS] and [SEP] included; default 50, as released"
    )
    # fmt: on
    args = parser.parse_args(argv)
    if args.text_length < SHORTEST_TEXT:
        raise UserError(f"--text_length {args.text_length}: expected {SHORTEST_TEXT} or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
