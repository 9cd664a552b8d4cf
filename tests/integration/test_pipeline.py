"""Text and a voice to speech, end to end, with random weights of the `test` preset."""

import io
import json
import math
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from stepflow_tts import (
    AudioError,
    CheckpointFormatError,
    CheckpointNotFoundError,
    OptionError,
    Speech,
    StepFlowTTS,
    SynthesisError,
    TextError,
    Voice,
)
from stepflow_tts.hub import load_checkpoint
from stepflow_tts.voices import MAX_CONTEXTS

TEXT = "Hello there, how are you? This is the second sentence of the three. And a third."
RATE = 24_000


@pytest.fixture
def fresh(checkpoint_folder: Path) -> StepFlowTTS:
    """A model that nothing was synthesized with, and that may be damaged."""
    return StepFlowTTS.from_pretrained(checkpoint_folder, device="cpu")


def same(a: Speech, b: Speech) -> bool:
    return a.samples.tobytes() == b.samples.tobytes()


def test_text_to_a_wav_file(tts: StepFlowTTS, tmp_path: Path) -> None:
    speech = tts.synthesize(TEXT)

    path = speech.save(tmp_path / "hello.wav")

    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == tts.sample_rate == speech.sample_rate == RATE
    assert np.abs(samples - speech.samples).max() < 1e-4
    assert 1.0 < speech.duration_seconds < 20.0
    assert np.isfinite(speech.samples).all()
    assert np.abs(speech.samples).max() <= 1.0
    assert np.sqrt((speech.samples**2).mean()) > 0.01
    assert (speech.text, speech.seed) == (TEXT, 0)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    tts: StepFlowTTS, fresh: StepFlowTTS
) -> None:
    first = tts.synthesize(TEXT, seed=7)

    assert same(first, tts.synthesize(TEXT, seed=7))
    assert same(first, fresh.synthesize(TEXT, seed=7))
    assert not same(first, tts.synthesize(TEXT, seed=8))
    assert len(first.samples) == len(tts.synthesize(TEXT, seed=8).samples)


def test_seed_none_draws_one_and_tells_it(tts: StepFlowTTS) -> None:
    speech = tts.synthesize("Hello.", seed=None)

    assert same(speech, tts.synthesize("Hello.", seed=speech.seed))
    assert speech.seed != tts.synthesize("Hello.", seed=None).seed


def test_no_voice_leaks_into_the_next_call(tts: StepFlowTTS, fresh: StepFlowTTS) -> None:
    alone = fresh.synthesize(TEXT, "ben", language="en-us")

    anna = tts.synthesize(TEXT, "anna")
    ben = tts.synthesize(TEXT, "ben", language="en-us")

    assert same(ben, alone)
    assert same(tts.synthesize(TEXT, "anna"), anna)
    assert not same(ben, anna)


def test_many_voices_are_kept_within_bounds(
    fresh: StepFlowTTS, voice_audio: Callable[..., np.ndarray]
) -> None:
    voices = [
        fresh.encode_voice(voice_audio(100.0 + 20 * i), RATE) for i in range(MAX_CONTEXTS + 3)
    ]
    first = fresh.synthesize("Hello.", voices[0])

    others = [fresh.synthesize("Hello.", voice) for voice in voices[1:]]

    assert not any(same(first, other) for other in others)
    assert len(fresh._voices._contexts) == MAX_CONTEXTS
    assert same(first, fresh.synthesize("Hello.", voices[0]))


def test_threads_get_what_single_calls_get(tts: StepFlowTTS) -> None:
    calls = [(f"This is sentence {i}.", name) for i in range(4) for name in ("anna", "ben")]
    single = [tts.synthesize(text, voice, seed=i) for i, (text, voice) in enumerate(calls)]

    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(tts.synthesize, text, voice, seed=i)
            for i, (text, voice) in enumerate(calls)
        ]
        together = [job.result() for job in jobs]

    assert all(same(a, b) for a, b in zip(single, together, strict=True))


def test_what_is_saved_speaks_as_before(tts: StepFlowTTS, tmp_path: Path) -> None:
    tts.save_pretrained(tmp_path / "copy")
    again = StepFlowTTS.from_pretrained(tmp_path / "copy")

    assert same(again.synthesize(TEXT, "ben"), tts.synthesize(TEXT, "ben"))
    assert list(again.voices) == list(tts.voices) == ["anna", "ben"]
    assert again.config == tts.config
    assert (tmp_path / "copy" / "README.md").read_text() == "# A test\n"


def test_a_checkpoint_without_a_card_gets_one(checkpoint_copy: Path, tmp_path: Path) -> None:
    (checkpoint_copy / "README.md").unlink()

    StepFlowTTS.from_pretrained(checkpoint_copy).save_pretrained(tmp_path / "new")

    card = (tmp_path / "new" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: stepflow-tts\npipeline_tag: text-to-speech\n")
    assert "24000 Hz, languages en-us, en-gb" in card
    assert "Number of steps: 1, 2, 4" in card
    assert "Voices: anna, ben" in card


def test_streamed_pieces_joined_are_the_whole(tts: StepFlowTTS) -> None:
    pieces = list(tts.stream(TEXT, "ben", seed=3, speed=1.2, num_steps=2))

    assert len(pieces) > 1
    joined = np.concatenate([piece.samples for piece in pieces])
    assert np.array_equal(
        joined, tts.synthesize(TEXT, "ben", seed=3, speed=1.2, num_steps=2).samples
    )


def test_a_chunk_is_not_changed_by_those_after_it(tts: StepFlowTTS) -> None:
    short = tts.synthesize("Hello there.\n").samples
    long = tts.synthesize("Hello there.\nAnd something else.\n").samples

    assert np.array_equal(long[: len(short)], short)


def test_the_same_words_twice_are_two_takes(tts: StepFlowTTS) -> None:
    pieces = list(tts.stream("Hello there.\nHello there."))
    length = len(pieces[0].samples)

    assert not np.array_equal(pieces[0].samples, pieces[1].samples[-length:])


def test_chunks_meet_in_silence(tts: StepFlowTTS) -> None:
    first, second = tts.stream("Hello there.\nAnd something else.")
    alone = tts.synthesize("Hello there.")

    pause = second.samples[: round(second.words[0].start_seconds * RATE)]
    silence = np.flatnonzero(pause)
    assert len(first.samples) == len(alone.samples)
    assert 0.05 * RATE < (silence[0] if len(silence) else len(pause)) < 2 * RATE
    assert first.samples[0] == first.samples[-1] == second.samples[0] == second.samples[-1] == 0


def test_chunks_of_which_no_symbol_is_known_are_left_out(checkpoint_copy: Path) -> None:
    path = checkpoint_copy / "config.json"
    config = json.loads(path.read_text())
    unused = iter("αγζκλμνξπρστφχψω")
    config["symbols"] = [next(unused) if s in "tˈuː" else s for s in config["symbols"]]
    path.write_text(json.dumps(config))
    tts = StepFlowTTS.from_pretrained(checkpoint_copy)

    assert len(list(tts.stream("Hello.\nTwo.\nHello."))) == 2
    with pytest.raises(TextError, match="Nothing in the text 'Two'"):
        tts.synthesize("Two")


def test_pauses_follow_the_speed(tts: StepFlowTTS) -> None:
    def pause(speed: float) -> int:
        first, _ = tts.stream("Hello there.\nAnd something else.", speed=speed)
        return len(first.samples) - len(tts.synthesize("Hello there.", speed=speed).samples)

    assert pause(0.5) == pytest.approx(2 * pause(1.0), abs=2)
    assert pause(2.0) == pytest.approx(pause(1.0) / 2, abs=2)


def test_speed_changes_the_length(tts: StepFlowTTS) -> None:
    seconds = {s: tts.synthesize(TEXT, speed=s).duration_seconds for s in (0.5, 1.0, 2.0)}

    assert seconds[0.5] == pytest.approx(2 * seconds[1.0], rel=0.03)
    assert seconds[2.0] == pytest.approx(seconds[1.0] / 2, rel=0.03)


def test_steps_and_guidance_are_heard(tts: StepFlowTTS) -> None:
    takes = [
        tts.synthesize("Hello.", num_steps=n, cfg_strength=w)
        for n, w in ((1, 0.0), (2, 0.0), (4, 0.0), (1, 0.5), (4, 0.5))
    ]

    assert len({take.samples.tobytes() for take in takes}) == 5
    assert len({len(take.samples) for take in takes}) == 1


def test_a_teacher_takes_any_number_of_steps(teacher_folder: Path) -> None:
    teacher = StepFlowTTS.from_pretrained(teacher_folder)

    three, ten = (teacher.synthesize("Hello.", num_steps=n, cfg_strength=0.7) for n in (3, 10))
    assert not same(three, ten)
    with pytest.raises(OptionError, match="num_steps is 0; it must be 1 or more"):
        teacher.synthesize("Hello.", num_steps=0)


def test_the_language_is_the_voices_unless_told(tts: StepFlowTTS) -> None:
    text = "Tomatoes in a bath."

    assert same(tts.synthesize(text, "ben"), tts.synthesize(text, "ben", language="en-GB"))
    assert same(tts.synthesize(text, "anna"), tts.synthesize(text, "anna", language="en"))
    assert not same(tts.synthesize(text, "ben"), tts.synthesize(text, "ben", language="en-us"))


def test_every_form_of_a_voice_sounds_the_same(
    tts: StepFlowTTS, tmp_path: Path, voice_audio: Callable[..., np.ndarray]
) -> None:
    samples = (voice_audio(150.0, 3.0, 16_000) * 32767).astype(np.int16)
    wav = tmp_path / "me.wav"
    soundfile.write(wav, samples, 16_000)
    voice = tts.encode_voice(wav, name="Me")
    voice.save(tmp_path / "me.safetensors")
    expected = tts.synthesize("Hello.", voice)

    forms = [
        wav,
        str(wav),
        wav.read_bytes(),
        io.BytesIO(wav.read_bytes()),
        (samples, 16_000),
        (torch.from_numpy(samples), 16_000),
        tmp_path / "me.safetensors",
        Voice.load(tmp_path / "me.safetensors"),
    ]
    assert all(same(tts.synthesize("Hello.", form), expected) for form in forms)
    assert not same(tts.synthesize("Hello."), expected)


def test_none_is_the_first_voice(tts: StepFlowTTS) -> None:
    assert same(tts.synthesize("Hello."), tts.synthesize("Hello.", "anna"))


def test_calls_leave_the_process_as_it_was(tts: StepFlowTTS, tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    running = threading.active_count()

    tts.synthesize("Hello.", seed=None)

    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()
    assert threading.active_count() <= running  # one of an earlier test may end meanwhile


# Bad input


def messy_audio(**changes: Any) -> tuple[np.ndarray, int]:
    """Two seconds of a tone, with what makes it bad."""
    rate = changes.get("rate", RATE)
    t = np.arange(int(changes.get("seconds", 2.0) * rate)) / rate
    samples = changes.get("level", 0.1) * np.sin(2 * math.pi * 200 * t)
    for position, value in changes.get("values", {}).items():
        samples[position] = value
    return samples.astype(np.float32), rate


@pytest.mark.parametrize(
    "text", ["", "  \n\t ", "...!?", "🎉🎉", "—", "\u200b", "\x00", None, b"Hello.", 3]
)
def test_text_with_nothing_to_say(tts: StepFlowTTS, text: Any) -> None:
    with pytest.raises(TextError):
        tts.synthesize(text)
    with pytest.raises(TextError):
        tts.stream(text)


@pytest.mark.parametrize(
    "text", ["Это предложение.", "これは文です。", "هذه جملة", "这是一个句子。"]
)
def test_text_in_a_script_that_is_not_spoken(tts: StepFlowTTS, text: str) -> None:
    with pytest.raises(TextError, match=r"(?i)english|en-us|latin"):
        tts.synthesize(text)


def test_a_megabyte_of_text(tts: StepFlowTTS) -> None:
    with pytest.raises(TextError, match=r"1000000 characters; 100000 are allowed"):
        tts.stream("Hello. " * 142_857 + "H")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 0}, r"speed is 0; it must be from 0\.5 to 2\.0"),
        ({"speed": 2.01}, r"speed is 2\.01"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"speed": float("inf")}, "speed is inf"),
        ({"speed": "fast"}, "speed is 'fast'; it must be a number"),
        ({"speed": True}, "speed is True"),
        ({"num_steps": 3}, "num_steps is 3; this checkpoint knows 1, 2, 4"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": 1.0}, r"num_steps is 1\.0; it must be a whole number"),
        ({"num_steps": True}, "num_steps is True"),
        ({"num_steps": None}, "num_steps is None"),
        ({"cfg_strength": -0.1}, r"cfg_strength is -0\.1; it must be 0 or more"),
        ({"cfg_strength": float("nan")}, "cfg_strength is nan"),
        ({"cfg_strength": float("inf")}, "cfg_strength is inf"),
        ({"seed": -1}, r"seed is -1; it must be from 0 to 2\*\*63 - 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": 0.5}, r"seed is 0\.5"),
        ({"language": "de"}, "'de'"),
        ({"language": 5}, "5"),
        ({"language": ""}, "''"),
        ({"voice": "carol"}, "no voice 'carol'. Choose one of: anna, ben"),
    ],
)
def test_options_out_of_range(tts: StepFlowTTS, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tts.synthesize("Hello.", **options)
    with pytest.raises(OptionError, match=message):
        tts.stream("Hello.", **options)


def test_whole_numbers_of_numpy_are_numbers(tts: StepFlowTTS) -> None:
    plain = tts.synthesize("Hello.", num_steps=2, seed=5, speed=1.5)
    numpy = tts.synthesize("Hello.", num_steps=np.int64(2), seed=np.uint8(5), speed=np.float32(1.5))

    assert same(plain, numpy)
    assert type(numpy.seed) is int


@pytest.mark.parametrize(
    "voice",
    [
        "missing.wav",
        Path("missing"),
        b"",
        b"not audio at all",
        io.BytesIO(b""),
        messy_audio(level=0.0),
        messy_audio(seconds=0.5),
        messy_audio(values={5: math.nan}),
        messy_audio(values={5: math.inf}),
        (messy_audio()[0], 0),
        (messy_audio()[0], None),
        (np.zeros(0, np.float32), RATE),
        messy_audio()[0],
        (messy_audio()[0],),
        5,
    ],
    ids=str,
)
def test_references_that_cannot_be_used(
    tts: StepFlowTTS, voice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises((AudioError, OptionError)):
        tts.synthesize("Hello.", voice)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_reference(tts: StepFlowTTS, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder"):
        tts.synthesize("Hello.", tmp_path)


@pytest.mark.parametrize(
    ("rate", "channels", "dtype"),
    [(8_000, 1, np.float32), (192_000, 1, np.float32), (RATE, 6, np.float32), (RATE, 1, np.int32)],
)
def test_unusual_references_are_used(
    tts: StepFlowTTS, rate: int, channels: int, dtype: type, voice_audio: Callable[..., np.ndarray]
) -> None:
    samples = np.repeat(voice_audio(120.0, 2.0, rate)[:, None], channels, axis=1)
    if dtype is np.int32:
        samples = (samples.astype(np.float64) * 2**31).astype(np.int32)

    assert tts.synthesize("Hello.", (samples, rate)).duration_seconds > 0.2


def test_a_voice_for_other_mels(tts: StepFlowTTS) -> None:
    anna = tts.voices["anna"]
    other = Voice(anna.log_mel, replace(anna.mel, hop_length=300), name="Other")

    with pytest.raises(OptionError, match=r"'Other' was made for .*hop_length=300"):
        tts.synthesize("Hello.", other)


def test_a_checkpoint_without_voices_wants_one(checkpoint_copy: Path) -> None:
    shutil.rmtree(checkpoint_copy / "voices")
    mute = StepFlowTTS.from_pretrained(checkpoint_copy)

    assert dict(mute.voices) == {}
    with pytest.raises(OptionError, match="no voices: pass voice="):
        mute.synthesize("Hello.")


def test_its_voices_cannot_be_changed_from_outside(tts: StepFlowTTS) -> None:
    with pytest.raises(TypeError):
        tts.voices["eve"] = tts.voices["anna"]  # type: ignore[index]


def test_a_language_that_the_checkpoint_does_not_speak(checkpoint_copy: Path) -> None:
    path = checkpoint_copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "languages": ["en-us"]}))
    tts = StepFlowTTS.from_pretrained(checkpoint_copy)

    with pytest.raises(OptionError, match=r"does not speak 'en-gb'\. Choose one of: en-us"):
        tts.synthesize("Hello.", "ben")


@pytest.mark.parametrize("device", ["tpu", "meta", "", "cpu:1", "cuda:99", "gpu"])
def test_devices_that_do_not_exist(tts: StepFlowTTS, checkpoint_folder: Path, device: str) -> None:
    with pytest.raises(OptionError, match=f"The device '{device}'"):
        tts.to(device)
    with pytest.raises(OptionError, match=f"The device '{device}'"):
        StepFlowTTS.from_pretrained(checkpoint_folder, device=device)
    assert tts.device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_an_error(checkpoint_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"'cuda' does not exist here; PyTorch finds: cpu"):
        StepFlowTTS.from_pretrained(checkpoint_folder, device="cuda")


def test_broken_checkpoints(checkpoint_copy: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        StepFlowTTS.from_pretrained(checkpoint_copy / "nowhere")
    weights = checkpoint_copy / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointFormatError, match="not a whole safetensors file"):
        StepFlowTTS.from_pretrained(checkpoint_copy)


def test_symbols_that_are_no_symbols(checkpoint_copy: Path) -> None:
    path = checkpoint_copy / "config.json"
    config = json.loads(path.read_text())
    config["symbols"][5] = "ab"
    path.write_text(json.dumps(config))

    with pytest.raises(CheckpointFormatError, match="'ab'"):
        StepFlowTTS.from_pretrained(checkpoint_copy)


def test_weights_that_speak_noise_are_reported(checkpoint_copy: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(checkpoint_copy / "model.safetensors")
    tensors["dit.out.bias"].fill_(-60_000.0)
    safetensors.torch.save_file(tensors, checkpoint_copy / "model.safetensors")
    tts = StepFlowTTS(load_checkpoint(checkpoint_copy))

    with pytest.raises(SynthesisError, match="Chunk 0"):
        tts.synthesize("Hello.").save(tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()
