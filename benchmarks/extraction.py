"""Times data/DataPre.py on copies of one clip for several values of --jobs: in total, and per clip and modality.

python -m benchmarks.extraction CLIP.mp4 --bert DIR [--vision mediapipe] [--clips 24] [--jobs 1 2 4]
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from config.config_regression import REPOSITORY

SENTENCE = "I really liked the first half of this film, but the end was a little bit too long for me"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--bert", required=True)
    parser.add_argument("--vision", default="mediapipe")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ["video_id,clip_id,text,label,mode"]
        (folder / "Raw" / "v").mkdir(parents=True)
        for number in range(args.clips):
            shutil.copy(args.clip, folder / "Raw" / "v" / f"{number}.mp4")
            rows.append(f'v,{number},"{SENTENCE}",{1 - 2 * (number % 2)},{("train", "valid", "test")[number % 3]}')
        (folder / "label.csv").write_text("\n".join(rows) + "\n")
        prepare(folder, args, 1)  # compiles librosa
        baseline = None
        for jobs in args.jobs:
            seconds, report = prepare(folder, args, jobs)
            baseline = baseline or seconds
            parts = re.findall(r"(\w+): .*extracted in ([\d.]+) s", report)
            print(
                f"--jobs {jobs}: {seconds:.1f} s for {args.clips} clips, {args.clips / seconds:.2f} clips per second, "
                f"{baseline / seconds:.2f} times the speed of the first; seconds per clip in each worker: "
                + ", ".join(f"{modality} {mean}" for modality, mean in parts)
            )


def prepare(folder: Path, args: argparse.Namespace, jobs: int) -> tuple[float, str]:
    """Extracts all clips without the cache. Returns the seconds, start-up included, and the output of DataPre.py."""
    flags = ["--data_dir", folder, "--language", "en", "--vision", args.vision, "--bert", args.bert]
    command = [sys.executable, REPOSITORY / "data" / "DataPre.py", *flags, "--jobs", str(jobs)]
    shutil.rmtree(folder / "Processed", ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return time.perf_counter() - start, process.stdout


if __name__ == "__main__":
    main()
