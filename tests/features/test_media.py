"""Reading clips: parts, files cut short, damage, mirrored pictures, cancelled and silent sound, replaced files."""

import itertools
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data.builders.clip_cache import CachedFeatures, extract_clip
from data.builders.label_table import LabelledClip
from data.builders.prepare import _check_clips
from data.extractors import Clip, ClipError, Extracted
from data.extractors.audio import LibrosaAudio
from data.extractors.media import read_facts, read_sound, read_video_frames
from data.extractors.vision import MediapipeFaces, NoFaces, OpenFace
from features import clips

NOISE = (np.random.default_rng(0).normal(0, 3000, 3 * clips.RATE).astype(np.int16), clips.RATE)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """3 seconds, 30 video frames."""
    return clips.write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", NOISE)


def copy(clip: Path, file: Path, start: float, length: float, content: bytes = b"") -> Path:
    """Copies a clip with `content` in place of a part of its bytes, given as shares of the file."""
    whole = clip.read_bytes()
    first, last = (round(len(whole) * share) for share in (start, start + length))
    file.write_bytes(whole[:first] + content * (last - first) + whole[last:])
    return file


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_part_is_the_same_as_that_part_of_the_whole(clip, tmp_path, suffix):
    file = clips.remux(clip, tmp_path / f"a{suffix}")
    sound, rate = read_sound(Clip(file))
    pictures = list(read_video_frames(Clip(file)))
    for start, end in ((0.0, 1.0), (1.0, 2.0), (1.5, 2.25), (2.0, None)):
        part = read_sound(Clip(file, None, start, end))[0]
        shifts = range(-30, 31)  # Matroska's times are in milliseconds
        stretch = slice(round((start + 0.1) * rate), round(((end or 2.8) - 0.1) * rate))
        offset = round(0.1 * rate)
        differences = [
            np.abs(part[0, offset + shift :][: stretch.stop - stretch.start] - sound[0, stretch]).mean()
            for shift in shifts
        ]
        assert min(differences) < 1e-3 < np.median(differences)
        if suffix == ".mp4":
            assert np.argmin(differences) == 30
        if end is not None:
            assert part.shape == (1, round((end - start) * rate))
        shown = list(read_video_frames(Clip(file, None, start, end)))
        expected = round(((end or 3) - start) * clips.FPS)
        assert abs(len(shown) - expected) <= 1
        assert any(all(map(np.array_equal, shown, pictures[first:])) for first in range(len(pictures)))


def test_decoding_stops_when_the_caller_has_enough(clip):
    assert 0.5 <= read_sound(Clip(clip, None, 0, 0.5))[0].shape[1] / clips.RATE < 0.6
    vision = MediapipeFaces(pool=2)(Clip(clip), longest=4)
    assert vision.frames.shape[0] == 4 and vision.video_frames == 8
    assert vision.seconds == pytest.approx(3, abs=0.1) and vision.fps == clips.FPS
    whole, short = LibrosaAudio()(Clip(clip)), LibrosaAudio()(Clip(clip), longest=20)
    assert 40 <= len(short.frames) < 45 < len(whole.frames)
    assert whole.seconds == short.seconds == pytest.approx(3, abs=0.1)
    assert LibrosaAudio()(Clip(clip, None, 1, 2.5)).seconds == 1.5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_half_a_download_is_refused(clip, tmp_path, suffix):
    whole = clips.remux(clip, tmp_path / f"a{suffix}", **({"movflags": "faststart"} if suffix == ".mp4" else {}))
    half = copy(whole, tmp_path / f"half{suffix}", 0.55, 0.45)
    for read in (read_sound, lambda file: list(read_video_frames(file))):
        assert len(read(Clip(whole)))
        with pytest.raises(ClipError, match=r"only [01]\.\d of \d\.\d s|cannot be decoded: damaged, cut off"):
            read(Clip(half))
    assert len(list(read_video_frames(Clip(half, None, 0, 0.5)))) == 5  # that part is there


def test_a_length_that_is_only_estimated_is_not_compared(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        stream = container.add_stream("libmp3lame", rate=clips.RATE)
        frame = av.AudioFrame.from_ndarray(NOISE[0][None], format="s16", layout="mono")
        frame.sample_rate = clips.RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    half = copy(tmp_path / "a.mp3", tmp_path / "half.mp3", 0.5, 0.5)
    assert 0 < read_sound(Clip(half))[0].shape[1] < 2 * clips.RATE


def test_a_hole_in_the_middle_is_refused(clip, tmp_path):
    whole = clips.remux(clip, tmp_path / "a.mkv", cluster_time_limit="500")
    damaged = copy(whole, tmp_path / "b.mkv", 0.3, 0.5, b"\0")
    with pytest.raises(ClipError, match=r"only [0-2]\.\d of 3\.0 s of audio"):
        read_sound(Clip(damaged))


def test_a_track_that_begins_late_is_whole(clip, tmp_path):
    import av

    with av.open(str(clip)) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts += round(2 / packet.time_base)
                    packet.dts += round(2 / packet.time_base)
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert read_sound(Clip(tmp_path / "a.mp4"))[0].shape[1] / clips.RATE == pytest.approx(3, abs=0.1)
    assert read_sound(Clip(tmp_path / "a.mp4", None, 1, 4))[0].shape[1] / clips.RATE == pytest.approx(2, abs=0.1)


MATRICES = [m for m in itertools.product((-1, 0, 1), repeat=4) if abs(m[0] * m[3] - m[1] * m[2]) == 1]


@pytest.mark.parametrize("matrix", [m for m in MATRICES if sum(map(abs, m)) == 2])
def test_pictures_are_turned_and_mirrored_as_the_clip_says(tmp_path, matrix):
    def spot(_: int) -> np.ndarray:
        picture = np.zeros((clips.SIZE, clips.SIZE, 3), np.uint8)
        picture[60:70, 20:30] = 255
        return picture

    file = clips.write_clip(tmp_path / "a.mp4", None, 0.1, spot)
    clips.record_matrix(file, *matrix)
    centre, (a, b, c, d) = clips.SIZE / 2, matrix
    x, y = 25 - centre, 65 - centre
    (picture,) = read_video_frames(Clip(file))
    rows, columns = np.nonzero(picture[:, :, 0] > 128)
    assert abs(columns.mean() - centre - (a * x + c * y)) < 2 and abs(rows.mean() - centre - (b * x + d * y)) < 2


def write_wav(file: Path, *channels: np.ndarray) -> Clip:
    import wave

    with wave.open(str(file), "wb") as sound:
        sound.setparams((len(channels), 2, clips.RATE, 0, "NONE", ""))
        sound.writeframes(np.stack(channels, axis=1).astype(np.int16).tobytes())
    return Clip(file)


def test_channels_that_cancel_each_other_are_not_silence(tmp_path):
    tone = 8000 * np.sin(np.arange(clips.RATE) / 20)
    expected = LibrosaAudio()(write_wav(tmp_path / "mono.wav", tone)).frames
    inverted = LibrosaAudio()(write_wav(tmp_path / "inverted.wav", tone, -tone)).frames
    louder = LibrosaAudio()(write_wav(tmp_path / "louder.wav", tone, -0.98 * tone)).frames
    assert np.array_equal(inverted, expected) and np.array_equal(louder, expected)
    averaged = LibrosaAudio()(write_wav(tmp_path / "one.wav", tone, 0 * tone)).frames
    half = LibrosaAudio()(write_wav(tmp_path / "half.wav", tone / 2)).frames
    assert np.allclose(averaged, half, atol=0.2)  # as released: the mean, up to rounding


@pytest.mark.parametrize("level", [0, 1, -300])
def test_sound_that_is_silent_throughout_is_missing(tmp_path, level):
    silence = np.full(clips.RATE, level)
    assert LibrosaAudio()(write_wav(tmp_path / "a.wav", silence, silence)).missing == "the sound is silent throughout"


def test_a_clip_replaced_by_one_of_equal_size_and_time_is_extracted_again(tmp_path):
    class Reader(NoFaces):
        def __call__(self, clip, longest=None):
            return Extracted(np.full((1, 1), clip.file.read_bytes()[0], np.float32))

    (tmp_path / "v").mkdir()
    extractors = {"audio": Reader(), "vision": Reader()}
    labelled = LabelledClip("v", "1", "word", 1.0, "train")
    for content in (b"a", b"b"):
        file = tmp_path / "v" / "1.mp4"
        file.write_bytes(content)
        os.utime(file, (1, 1))
        features = extract_clip(extractors, tmp_path, None, tmp_path, False, labelled)
        assert features["vision"].load() == features["audio"].load() == content[0]


def cached(seconds: float = 3.0, fps: float = 30.0, faces: int = 1) -> dict[str, CachedFeatures]:
    return {key: CachedFeatures(Path(), 9, None, "", seconds, fps, faces) for key in ("audio", "vision")}


def test_clips_that_differ_are_told_once_with_an_example(capsys):
    good = {"a": cached(), "b": cached(fps=29.97)}
    tokens = dict.fromkeys("abcde", range(12))
    assert _check_clips(good, tokens, OpenFace()) == pytest.approx(29.98, abs=0.011) and not capsys.readouterr().err
    odd = good | {"c": cached(fps=15), "d": cached(faces=2), "e": cached(seconds=1.0)}
    assert _check_clips(odd, tokens | {"e": range(90)}, OpenFace()) == 30
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "1 clips, such as d" in lines[0] and "most confident" in lines[0]
    assert "1 clips, such as e" in lines[1] and "more text than can be spoken" in lines[1] and "15 to 30" in lines[2]
    assert _check_clips({"d": cached(faces=2)}, tokens, OpenFace(face=1, fps=10)) is None
    assert _check_clips({"a": cached(), "c": cached(fps=15)}, tokens, OpenFace(fps=10)) is None
    assert not capsys.readouterr().err


def test_browsers_do_not_say_how_long_a_recording_is(clip, tmp_path):
    file = clips.remux(clip, tmp_path / "a.mkv", live="1")
    assert read_facts(Clip(file)).seconds == 0
    assert LibrosaAudio()(Clip(file)).seconds == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_that_stand_still_are_no_damage(tmp_path, suffix):
    """Screen recorders write no frame while nothing moves."""
    with av.open(str(tmp_path / f"a{suffix}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30, width=32, height=32, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 33 * number + 5000 * (number > 10), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(list(read_video_frames(Clip(tmp_path / f"a{suffix}")))) == 20
