import json
import os
import pickle

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from stepflow_tts.audio.mel import log_mel
from stepflow_tts.audio.reference import load_reference
from stepflow_tts.config import MelConfig
from stepflow_tts.errors import (
    AudioError,
    CheckpointFormatError,
    CheckpointNotFoundError,
    OptionError,
)
from stepflow_tts.voice import Voice

MEL = MelConfig()


def random_log_mel(num_frames=200, seed=0):
    return torch.randn(num_frames, 100, generator=torch.Generator().manual_seed(seed)) * 3 - 5


@pytest.fixture
def voice():
    return Voice(random_log_mel(), MEL, "Ada", "en-gb", "A calm voice.")


@pytest.fixture
def parts(voice, tmp_path):
    """Tensors and metadata of a good file."""
    with safetensors.safe_open(voice.save(tmp_path / "good.safetensors"), framework="pt") as file:
        return {"log_mel": file.get_tensor("log_mel")}, file.metadata()


def test_a_saved_voice_is_exactly_the_same(voice, tmp_path):
    path = voice.save(tmp_path / "ada.safetensors")
    loaded = Voice.load(str(path))
    assert torch.equal(loaded.log_mel, voice.log_mel)
    assert loaded.log_mel.dtype == torch.float32
    assert (loaded.mel, loaded.name) == (MEL, "Ada")
    assert (loaded.language, loaded.description) == ("en-gb", "A calm voice.")
    assert loaded.digest == voice.digest
    assert os.listdir(tmp_path) == ["ada.safetensors"]


def test_its_log_mel_is_its_own_and_within_half_precision():
    source = random_log_mel()
    voice = Voice(source, MEL)
    assert ((voice.log_mel - source).abs() <= source.abs() * 2**-11 + 1e-7).all()
    kept = voice.log_mel.clone()
    source.zero_()
    assert torch.equal(voice.log_mel, kept)


def test_it_holds_the_log_mel_of_the_reference():
    time = np.arange(3 * 16_000) / 16_000
    samples = 0.2 * np.sin(2 * np.pi * 300 * time)
    voice = Voice.from_audio(samples, 16_000, name="Tone")
    expected = log_mel(load_reference(samples, 16_000)[None], MEL)[0]
    assert voice.log_mel.shape == (1 + 72_000 // 256, 100)
    assert (voice.log_mel - expected).abs().max() < 0.01
    assert (voice.name, voice.language, voice.mel) == ("Tone", "en-us", MEL)


def test_the_longest_voice_stays_under_150_kb(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * 24_000)
    text = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 100
    voice = Voice.from_audio(noise, 24_000, name=text, language=text, description=text)
    assert voice.save(tmp_path / "a.safetensors").stat().st_size < 150_000


def test_audio_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(AudioError, match="no audio file"):
        Voice.from_audio(tmp_path / "missing.wav")


def test_it_can_be_pickled_and_trained_with(voice):
    copy = pickle.loads(pickle.dumps(voice))
    assert torch.equal(copy.log_mel, voice.log_mel)
    assert copy.digest == voice.digest
    with torch.inference_mode():
        made = Voice(random_log_mel(), MEL)
    weight = torch.ones(100, requires_grad=True)
    (made.log_mel * weight).sum().backward()
    assert torch.allclose(weight.grad, made.log_mel.sum(dim=0))


def test_the_digest_tells_sounds_apart_and_nothing_else(voice):
    other = random_log_mel()
    other[7, 7] += 0.1
    assert Voice(other, MEL).digest != voice.digest
    assert Voice(random_log_mel(), MelConfig(floor=1e-5)).digest != voice.digest
    assert Voice(random_log_mel(), MEL, "Other name").digest == voice.digest


@pytest.mark.parametrize("shape", [(200,), (200, 80), (0, 100), (752, 100), (1, 200, 100)])
def test_a_log_mel_of_another_shape_is_refused(shape):
    with pytest.raises(AudioError, match="1 to 751, 100"):
        Voice(torch.zeros(shape), MEL)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_values_that_are_not_finite_in_half_precision_are_refused(value):
    features = random_log_mel()
    features[3, 4] = value
    with pytest.raises(AudioError, match="not finite"):
        Voice(features, MEL)


@pytest.mark.parametrize("texts", [{"name": " "}, {"language": ""}, {"description": "x" * 101}])
def test_names_that_are_empty_or_long_are_refused(texts):
    with pytest.raises(OptionError):
        Voice(random_log_mel(), MEL, **texts)


def test_it_is_saved_as_safetensors_into_a_folder_that_exists(voice, tmp_path):
    with pytest.raises(OptionError, match=r"\.safetensors"):
        voice.save(tmp_path / "a.pt")
    with pytest.raises(OptionError, match="no folder"):
        voice.save(tmp_path / "missing" / "a.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_missing_voice_is_not_found(tmp_path):
    for path in (tmp_path / "a.safetensors", tmp_path):
        with pytest.raises(CheckpointNotFoundError, match="no voice file"):
            Voice.load(path)


def test_files_of_other_kinds_say_what_they_are(tmp_path):
    path = tmp_path / "a.safetensors"
    torch.save({"log_mel": random_log_mel()}, path)
    with pytest.raises(CheckpointFormatError, match="is a pickle"):
        Voice.load(path)
    path.write_bytes(pickle.dumps({"log_mel": [1.0]}))
    with pytest.raises(CheckpointFormatError, match="is a pickle"):
        Voice.load(path)
    path.write_bytes(b"RIFF" + bytes(1_000))
    with pytest.raises(CheckpointFormatError, match=r"Voice\.from_audio"):
        Voice.load(path)
    path.write_bytes(b"RIFF" + bytes(2_000_000))
    with pytest.raises(CheckpointFormatError, match="2000004 bytes"):
        Voice.load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointFormatError, match="damaged"):
        Voice.load(path)
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointFormatError, match="not a voice"):
        Voice.load(path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
    """A header of 384 bytes begins with the byte 0x80, as pickles do."""
    first_bytes = set()
    for length in range(1, 100, 4):
        voice = Voice(random_log_mel(2), MEL, description="x" * length)
        path = voice.save(tmp_path / "a.safetensors")
        first_bytes.add(path.read_bytes()[0])
        assert Voice.load(path).digest == voice.digest
    assert 0x80 in first_bytes


def test_half_a_file_and_a_flipped_bit_are_noticed(voice, tmp_path):
    path = voice.save(tmp_path / "a.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointFormatError, match="damaged"):
        Voice.load(path)
    path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    with pytest.raises(CheckpointFormatError, match="checksum"):
        Voice.load(path)


def test_a_file_cut_anywhere_is_noticed(voice, tmp_path):
    data = voice.save(tmp_path / "a.safetensors").read_bytes()
    for length in (1, 7, 8, 9, 100, 700, len(data) // 2, len(data) - 1):
        (tmp_path / "a.safetensors").write_bytes(data[:length])
        with pytest.raises(CheckpointFormatError, match=r"a\.safetensors is (damaged|a pickle)"):
            Voice.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "piper voice", "not a voice"),
        ("format_version", "2", r"format 2; this version reads 1.*pip install -U"),
        ("format_version", None, "not a voice"),
        ("name", None, "lacks 'name'"),
        ("name", "", "name must not be empty"),
        ("mel", "{", "not JSON"),
        ("mel", "[]", "must be an object"),
        ("mel", json.dumps({"n_mels": 80}), r"\(200, 100\).*80"),
        ("mel", json.dumps({"hops": 80}), "unknown key 'hops'"),
        ("mel", json.dumps({"hop_length": 0}), "above 0"),
        ("digest", "0" * 64, "checksum"),
    ],
)
def test_metadata_is_read_strictly(parts, tmp_path, key, value, message):
    tensors, metadata = parts
    metadata = {k: v for k, v in (metadata | {key: value}).items() if v is not None}
    path = tmp_path / "bad.safetensors"
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(CheckpointFormatError, match=message):
        Voice.load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds nothing"),
        ({"log_mel": torch.zeros(200, 100)}, "float32"),
        ({"mel": torch.zeros(200, 100).half()}, "holds mel"),
        ({"log_mel": torch.zeros(200, 100).half(), "extra": torch.zeros(1)}, "extra"),
        ({"log_mel": torch.zeros(100, 200).half()}, r"\(100, 200\)"),
        ({"log_mel": torch.full((200, 100), float("nan")).half()}, "not finite"),
    ],
)
def test_tensors_are_read_strictly(parts, tmp_path, tensors, message):
    path = tmp_path / "bad.safetensors"
    safetensors.torch.save_file(tensors, path, parts[1])
    with pytest.raises(CheckpointFormatError, match=message):
        Voice.load(path)
