"""Joins features of CMU-MultimodalSDK with the corpora's transcripts to a feature file (data/schema.py) for run.py:

    python data/TextPre.py --features mosi_data.pkl --transcripts Transcript/Segmented --output aligned_50.pkl --aligned

--features is a pickle of {"train" | "valid" | "test": {"audio" (N, La, Da), "vision" (N, Lv, Dv), "labels" (N,), "id"}}, padded
at either end. The work is in data/builders/cmu.py.
"""

import sys
from pathlib import Path

if not __package__:  # started by its path: Python then looks for modules in data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from config.config_regression import DATASETS
from utils.errors import Parser, run_program


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 if all clips are in the file; 2 if some were left out, or after an error."""
    parser = Parser(prog="data/TextPre.py", description="Joins CMU's features of MOSI or MOSEI with transcripts.")
    add = parser.add_argument
    # fmt: off
    add("--features", type=Path, metavar="FILE", required=True,
        help="CMU's pickle, as distributed with MulT and MFN (mosi_data.pkl, mosei_senti_data_noalign.pkl, ...)")
    add("--transcripts", type=Path, metavar="PATH",
        help="a folder with MOSI's *.annotprocessed or MOSEI's *.txt anywhere below it, or a CSV table with video_id, "
        "clip_id, text and, if known, start and end; default: the pickle's raw_text")
    add("--output", type=Path, metavar="FILE", required=True, help="feature file; NAME.errors.csv lists clips left out")
    add("--aligned", action="store_true", help="the pickle has one frame for each word: give each token its word's")
    add("--datasetName", type=str.lower, choices=["mosi", "mosei"], default="mosi", help="default mosi")
    add("--bert", metavar="DIR", help="the text encoder, a folder or hub name; default: run.py's")
    add("--text_length", type=int, metavar="N", default=50,
        help="tokens that each text is cut or padded to, [CLS] and [SEP] included; default 50, as released")
    # fmt: on

    def work() -> None:
        args = vars(parser.parse_args(argv))
        from data.builders.cmu import join_cmu

        join_cmu(dataset=DATASETS[args.pop("datasetName")], **args)

    return run_program(work, "nothing was written; run the same command again")


if __name__ == "__main__":
    sys.exit(main())
