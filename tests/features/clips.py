"""Makes small clips: a voice over a moving face."""

import csv
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

FPS = 10
SIZE = 192
RATE = 22050

ODD = 'it\'s a "film"; rm -rf $HOME'  # a file name
TEXT = "word1 word2 word3"


def say(text: str, speed: int = 170, pitch: int = 50) -> tuple[np.ndarray, int]:
    """Returns (samples,) int16 and their rate: espeak-ng's voice, or a hum of about that length if it is not installed."""
    if shutil.which("espeak-ng"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "voice.wav"
            subprocess.run(["espeak-ng", "-w", file, "-s", str(speed), "-p", str(pitch), text], check=True)
            with wave.open(str(file)) as sound:
                return np.frombuffer(sound.readframes(sound.getnframes()), np.int16), sound.getframerate()
    time = np.arange(int(RATE * 60 / speed * len(text.split()))) / RATE
    tones = sum(np.sin(2 * np.pi * (60 + 2 * pitch) * number * time) / number for number in range(1, 12))
    return (4000 * tones * (1 + np.sin(2 * np.pi * 4 * time))).astype(np.int16), RATE


def face(number: int) -> np.ndarray:
    """Returns an image of a face that moves a little with each number."""
    from skimage import data

    shift = int(8 * np.sin(number / 3))
    return np.ascontiguousarray(data.astronaut()[10 + shift : 10 + shift + SIZE, 130 - shift : 130 - shift + SIZE])


def wall(number: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 90 + number, np.uint8)


def write_clip(
    file: Path,
    sound: tuple[np.ndarray, int] | None,
    seconds: float | None = None,
    image=face,
    turned: int = 0,
) -> Path:
    """Writes an mp4. seconds: by default the length of the sound. turned: quarter turns of the camera, recorded in the file."""
    import av

    file.parent.mkdir(parents=True, exist_ok=True)
    if seconds is None:
        seconds = len(sound[0]) / sound[1]
    with av.open(str(file), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=sound[1], layout="mono")
        for number in range(max(1, round(seconds * FPS))):
            pixels = np.ascontiguousarray(np.rot90(image(number), turned))
            for packet in video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        container.mux(video.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound[0][None, : int(seconds * sound[1])], format="s16", layout="mono")
            frame.sample_rate = sound[1]
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    if turned:
        record_matrix(file, *[(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)][turned])
    return file


def record_matrix(file: Path, a: int, b: int, c: int, d: int) -> None:
    """Writes the display matrix into the video track's header, as phones do: ISO 14496-12, 8.3.2."""
    matrix = [a, b, 0, c, d, 0, 0, 0, 1]
    fixed = [value << (30 if place % 3 == 2 else 16) for place, value in enumerate(matrix)]
    content = bytearray(file.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = np.array(fixed, ">i4").tobytes()
    file.write_bytes(content)


def remux(clip: Path, file: Path, **options: str) -> Path:
    """Copies a clip's streams to another format, by the new file's suffix."""
    import av

    with av.open(str(clip)) as source, av.open(str(file), "w", options=options) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return file


def write_table(folder: Path, rows: list[tuple]) -> Path:
    """Writes label.csv. rows: (video_id, clip_id, text, label, mode)."""
    with open(folder / "label.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "clip_id", "text", "label", "mode"])
        table.writerows(rows)
    return folder


def data_pre(folder: Path, *flags: object) -> int:
    from data import DataPre

    argv = ["--data_dir", folder, "--language", "en", "--bert", folder / "bert", "--vision", "mediapipe"]
    return DataPre.main([str(word) for word in (*argv, *flags)])
