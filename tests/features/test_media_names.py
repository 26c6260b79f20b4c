"""A clip is a file, whatever its name or its content say: reading it opens no connection and no other file."""

import shutil
import socket
from pathlib import Path

import pytest

from data.builders.transcript import find_clips
from data.extractors import Clip, ClipError
from data.extractors.media import read_facts, read_sound
from data.extractors.vision import OpenFace
from features import clips
from features.test_media import NOISE, write_wav


@pytest.fixture
def address():
    """HOST:PORT of a server that must get no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield "{}:{}".format(*server.getsockname())
        with pytest.raises(BlockingIOError):
            server.accept()


def test_names_that_ffmpeg_takes_for_addresses_or_patterns_are_files(tmp_path, address, monkeypatch):
    clip = clips.write_clip(tmp_path / "clip", NOISE, 0.3)
    monkeypatch.chdir(tmp_path)
    # Those first that fail at once where a name is an address: a server that answers nothing is waited for.
    protocols = (
        "data:,1",
        "concat:clip|clip",
        "subfile,,end,9,,:clip",
        "file:1",
        f"http:/{address}/1",
        f"tcp:{address}?",
    )
    for name in (*protocols, "1%d", "a?b#c", "-f", "1*"):
        file = Path("new", f"{name}.mp4")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, file)
        monkeypatch.chdir("new")
        assert read_facts(Clip(Path(f"{name}.mp4"))).video_frames == 3
        monkeypatch.chdir(tmp_path)
    assert len(find_clips([Path("new")])) == len(protocols) + 4


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
SESSION = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {} RTP/AVP 0\n"


def test_playlists_do_not_make_other_files_clips(tmp_path, address):
    other = write_wav(tmp_path / "other.wav", NOISE[0]).file
    sound = clips.remux(other, tmp_path / "other.mkv")
    port = int(address.partition(":")[2])
    for name, content in (
        ("1.mp4", f"ffconcat version 1.0\nfile {other.name}\n"),
        ("2.mp4", f"ffconcat version 1.0\nfile tcp://{address}\n"),
        ("1.m3u8", PLAYLIST.format(sound.name)),
        ("2.m3u8", PLAYLIST.format(f"http://{address}/1.ts")),
        ("1.sdp", SESSION.format(port)),
        ("3.mp4", SESSION.format(port)),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ClipError, match="cannot be decoded"):
            read_sound(Clip(tmp_path / name))
        with pytest.raises(ClipError, match="cannot be decoded"):  # before a program that would follow it is started
            OpenFace(program=tmp_path / "no program")(Clip(tmp_path / name))
