"""Recordings laid out as others lay them out, down to prepared folders; and sources that are not whole."""

import io
import json
import logging
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError
from stepflow_tts.training.layouts import find_sources
from stepflow_tts.training.prepare import prepare
from stepflow_tts.training.utterances import open_audio, open_mels, read_utterances

Audio = Callable[..., npt.NDArray[np.float32]]


@pytest.fixture
def clip(voice_audio: Audio) -> Callable[..., bytes]:
    """The bytes of a recording of 0.6 s: `clip(format, rate)`."""

    def make(format: str = "wav", rate: int = 24_000) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, voice_audio(130.0, 0.6, rate), rate, format=format)
        return file.getvalue()

    return make


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def emilia(clip: Callable[..., bytes], *names: str, **changes: Any) -> dict[str, bytes]:
    """Members of a shard, JSON and recording in turn."""
    members = {}
    for i, name in enumerate(names):
        fields = {"id": name, "text": f"Number {i}.", "speaker": name[:2], "language": "en"}
        members[f"{name}.json"] = json.dumps(fields | {"dnsmos": 3.3} | changes).encode()
        members[f"{name}.mp3"] = clip("mp3")
    return members


def found(folder: Path) -> list[tuple[str, str, str, str]]:
    return [(u.corpus, u.speaker, u.id, u.text) for u in read_utterances(folder)]


def is_whole(folder: Path) -> bool:
    last = read_utterances(folder)[-1]
    frames, samples = last.start_frame + last.num_frames, last.start_sample + last.num_samples
    sizes = len(open_mels(folder, MelConfig())), len(open_audio(folder))
    return sizes == (frames, samples) and not (folder / "progress.json").exists()


def test_ljspeech(tmp_path: Path, clip: Callable[..., bytes]) -> None:
    folder = tmp_path / "LJSpeech-1.1"
    (folder / "wavs").mkdir(parents=True)
    for name in ("LJ1", "LJ2"):
        (folder / "wavs" / f"{name}.wav").write_bytes(clip("wav", 22_050))
    lines = 'LJ1|He said "no|He said "no\nLJ2|In 1999.|In nineteen ninety-nine.\n'
    (folder / "metadata.csv").write_text(lines, encoding="utf-8")
    assert prepare([folder], tmp_path / "out") == {"written": 2}
    assert found(tmp_path / "out") == [
        ("LJSpeech-1.1", "LJSpeech-1.1", "LJ1", 'He said "no'),
        ("LJSpeech-1.1", "LJSpeech-1.1", "LJ2", "In nineteen ninety-nine."),
    ]
    assert read_utterances(tmp_path / "out")[0].source_sample_rate == 22_050
    (folder / "metadata.csv").write_text("LJ1|fine\nLJ2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"metadata\.csv, line 2 is not id\|text"):
        prepare([folder], tmp_path / "again")


def test_libritts(tmp_path: Path, clip: Callable[..., bytes]) -> None:
    folder = tmp_path / "train-clean"
    for speaker, chapter in (("14", "208"), ("19", "198")):
        place = folder / speaker / chapter
        place.mkdir(parents=True)
        (place / f"{speaker}_{chapter}_0_1.wav").write_bytes(clip())
        (place / f"{speaker}_{chapter}_0_1.normalized.txt").write_text(f"I am {speaker}.\n")
        (place / f"{speaker}_{chapter}_0_1.original.txt").write_text("No.")
    (place / "19_198_0_2.normalized.txt").write_text("Without a recording.")
    assert prepare([folder], tmp_path / "out") == {"written": 2, "unreadable": 1}
    assert found(tmp_path / "out") == [
        ("train-clean", "14", "14_208_0_1", "I am 14."),
        ("train-clean", "19", "19_198_0_1", "I am 19."),
    ]


def test_emilia(tmp_path: Path, clip: Callable[..., bytes]) -> None:
    folder = tmp_path / "EN"
    write_shard(folder / "b.tar", emilia(clip, "S3_W0"))
    write_shard(
        folder / "a.tar",
        emilia(clip, "S1_W0", "S2_W0")
        | emilia(clip, "DE_W0", language="de")
        | {"S4_W0.json": b'{"text": "Alone.", "speaker": "S4"}', "note.txt": b"x"},
    )
    counts = prepare([folder], tmp_path / "out")
    assert counts == {"written": 3, "language de": 1}
    assert found(tmp_path / "out") == [
        ("EN", "S1", "S1_W0", "Number 0."),
        ("EN", "S2", "S2_W0", "Number 1."),
        ("EN", "S3", "S3_W0", "Number 0."),
    ]
    assert is_whole(tmp_path / "out")
    prepare([folder / "b.tar"], tmp_path / "one")
    assert found(tmp_path / "one") == [("EN", "S3", "S3_W0", "Number 0.")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no tar at all" * 100, r"b\.tar cannot be read beyond its first 0 recordings"),
        ({"x.mp3": b"1", "x.json": b"{"}, r"x\.json in the shard .*b\.tar .* is not JSON"),
        ({"x.json": b'{"text": "a"}', "x.mp3": b"1"}, r"x\.json .* lacks text or speaker"),
        ({"x.txt": b"1"}, r"b\.tar holds no pair"),
    ],
)
def test_an_unreadable_shard_stops_and_leaves_what_was_whole(
    tmp_path: Path,
    clip: Callable[..., bytes],
    caplog: pytest.LogCaptureFixture,
    data: bytes | dict[str, bytes],
    said: str,
) -> None:
    caplog.set_level(logging.INFO, "stepflow_tts")
    folder = tmp_path / "EN"
    write_shard(folder / "a.tar", emilia(clip, "S1_W0", "S2_W0"))
    bad = folder / "b.tar"
    bad.write_bytes(data) if isinstance(data, bytes) else write_shard(bad, data)
    with pytest.raises(InputError, match=said):
        prepare([folder], tmp_path / "out")
    assert "1 of 2 sources are whole and kept" in caplog.text
    (folder / "a.tar").write_bytes(b"")  # it is not read again
    write_shard(bad, emilia(clip, "S3_W0"))
    assert prepare([folder], tmp_path / "out") == {"written": 3}
    assert [speaker for _, speaker, _, _ in found(tmp_path / "out")] == ["S1", "S2", "S3"]
    assert is_whole(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["EN", "out"]


@pytest.mark.parametrize("end", ["in a recording", "between two members"])
def test_a_shard_that_was_cut_off_stops_and_can_be_replaced(
    tmp_path: Path, clip: Callable[..., bytes], end: str
) -> None:
    folder = tmp_path / "EN"
    write_shard(folder / "a.tar", emilia(clip, "S1_W0"))
    whole = write_shard(folder / "b.tar", emilia(clip, "S2_W0", "S3_W0")).read_bytes()
    with tarfile.open(folder / "b.tar") as tar:
        last = tar.getmember("S3_W0.mp3")
        cut = last.offset_data + 100 if end == "in a recording" else last.offset
    (folder / "b.tar").write_bytes(whole[:cut])
    with pytest.raises(InputError, match=r"b\.tar cannot be read beyond its first 1 recordings"):
        prepare([folder], tmp_path / "out")
    (folder / "b.tar").write_bytes(whole)
    prepare([folder], tmp_path / "out")
    assert [speaker for _, speaker, _, _ in found(tmp_path / "out")] == ["S1", "S2", "S3"]
    assert is_whole(tmp_path / "out")


def test_other_shards_or_another_seed_begin_anew(
    tmp_path: Path, clip: Callable[..., bytes]
) -> None:
    shards = [write_shard(tmp_path / f"{n}.tar", emilia(clip, f"{n}1_W0")) for n in "abc"]
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"x" * 2000)
    for paths, seed in (([shards[1]], 0), ([shards[0], shards[1]], 1)):
        with pytest.raises(InputError, match=r"broken\.tar"):
            prepare([shards[0], broken], tmp_path / "out")
        prepare(paths, tmp_path / "out", seed=seed)
        assert [s for _, s, _, _ in found(tmp_path / "out")] == [p.stem + "1" for p in paths]
        assert is_whole(tmp_path / "out")
        (tmp_path / "out").rename(tmp_path / f"done {seed}")


def test_a_full_disk_stops_and_leaves_what_was_whole(
    tmp_path: Path, clip: Callable[..., bytes]
) -> None:
    """A limit on the size of files stands for the disk: the second shard's audio does not fit."""
    shards = [write_shard(tmp_path / f"{n}.tar", emilia(clip, f"{n}1_W0")) for n in "ab"]
    prepare([shards[0]], tmp_path / "one")
    size = (tmp_path / "one" / "audio.i16").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large, while writing .*out\.partial"):
            prepare(shards, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out").exists()
    prepare(shards, tmp_path / "out")
    assert [speaker for _, speaker, _, _ in found(tmp_path / "out")] == ["a1", "b1"]
    assert is_whole(tmp_path / "out")


def test_folders_without_a_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no recordings .* metadata\.csv \(LJSpeech\)"):
        find_sources(tmp_path)
    with pytest.raises(InputError, match="holds no recordings"):
        prepare([tmp_path / "missing"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
