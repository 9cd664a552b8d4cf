"""Scores of one recording: by hand, and with stand-ins for the third-party models."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from torch import nn

from stepflow_tts.errors import (
    CheckpointNotFoundError,
    DownloadError,
    MissingDependencyError,
    OptionError,
)
from stepflow_tts.evaluation.lists import Utterance
from stepflow_tts.evaluation.quality import (
    DNSMOS_SAMPLES,
    DistillMos,
    Dnsmos,
    dnsmos_ratings,
    dnsmos_windows,
)
from stepflow_tts.evaluation.scoring import (
    Scorers,
    Sources,
    check_scorable,
    cosine,
    load_16k,
    load_scorers,
    score,
)
from stepflow_tts.evaluation.similarity import SpeakerEncoder
from stepflow_tts.evaluation.sources import find_file, import_package
from stepflow_tts.evaluation.wer import Errors, Recognizer, count_errors

Samples = npt.NDArray[np.float32]


@pytest.mark.parametrize(
    ("text", "heard", "errors"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", (6, 0, 0, 0, 22, 0)),
        ("the cat sat on the mat", "the cat sat on mat", (6, 1, 1, 0, 22, 4)),
        ("yes", "oh yes yes", (1, 2, 0, 2, 3, 7)),
        ("two words", "to words", (2, 1, 0, 0, 9, 1)),
        ("a b c d", "x b c d e", (4, 2, 0, 1, 7, 3)),
        ("nothing came", "", (2, 2, 2, 0, 12, 12)),
        ("", "one two", (0, 2, 0, 2, 0, 7)),
        ("", "", (0, 0, 0, 0, 0, 0)),
        ("  two  spaces ", "two spaces", (2, 0, 0, 0, 10, 0)),
    ],
)
def test_errors_by_hand(text: str, heard: str, errors: tuple[int, ...]) -> None:
    assert count_errors(text, heard) == Errors(*errors)


def test_recognizer_joins_the_segments_and_asks_for_what_scores_are_taken_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {}

    class WhisperModel:
        def __init__(self, model: str, *, device: str, compute_type: str, cpu_threads: int) -> None:
            asked.update(model=model, device=device, compute_type=compute_type)

        def transcribe(self, audio: Samples, **settings: object) -> tuple[object, object]:
            asked.update(settings, num_samples=len(audio))
            words = (" Hello", " there. ")
            return (types.SimpleNamespace(text=word) for word in words), None

    module = types.ModuleType("faster_whisper")
    module.WhisperModel = WhisperModel
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    assert Recognizer(str(tmp_path))(np.zeros(7, np.float32)) == "Hello there."
    assert asked == {
        "model": str(tmp_path),
        "device": "cpu",
        "compute_type": "int8",
        "language": "en",
        "beam_size": 5,
        "temperature": 0.0,
        "condition_on_previous_text": False,
        "without_timestamps": True,
        "num_samples": 7,
    }


def test_recognizer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Invalid model size 'huge'")

    module = types.ModuleType("faster_whisper")
    module.WhisperModel = refuse
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    with pytest.raises(
        CheckpointNotFoundError, match="'huge' cannot be loaded: Invalid model size"
    ):
        Recognizer("huge")


@pytest.mark.parametrize(
    ("seconds", "num_windows"), [(9.01, 1), (9.99, 1), (10, 1), (11, 2), (11.99, 2), (12, 3)]
)
def test_dnsmos_windows_are_9_seconds_one_a_second(seconds: float, num_windows: int) -> None:
    windows = dnsmos_windows(np.arange(round(seconds * 16_000), dtype=np.float32))
    assert [int(window[0]) for window in windows] == [16_000 * i for i in range(num_windows)]
    assert {len(window) for window in windows} == {DNSMOS_SAMPLES}


@pytest.mark.parametrize(("num_samples", "num_windows"), [(80_000, 1), (100_000, 3), (144_159, 9)])
def test_dnsmos_doubles_short_speech_until_it_is_long_enough(
    num_samples: int, num_windows: int
) -> None:
    windows = dnsmos_windows(np.arange(num_samples, dtype=np.float32))
    assert len(windows) == num_windows
    assert len(windows[0]) == DNSMOS_SAMPLES
    assert windows[0][num_samples] == 0


def test_dnsmos_ratings_by_hand() -> None:
    ratings = dnsmos_ratings(np.array([[3.0, 4.0, 2.0], [3.0, 4.0, 4.0]]))
    at_2 = -0.06766283 * 4 + 1.11546468 * 2 + 0.04602535
    at_4 = -0.06766283 * 16 + 1.11546468 * 4 + 0.04602535
    assert ratings["dnsmos"] == pytest.approx((at_2 + at_4) / 2)
    assert ratings["dnsmos_sig"] == pytest.approx(-0.08397278 * 9 + 1.22083953 * 3 + 0.0052439)
    assert ratings["dnsmos_bak"] == pytest.approx(-0.13166888 * 16 + 1.60915514 * 4 - 0.39604546)


def test_dnsmos_clips_and_runs_its_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class InferenceSession:
        def __init__(self, path: str, options: object) -> None:
            assert path.endswith("own.onnx")

        def run(self, _names: None, inputs: dict[str, Samples]) -> list[Samples]:
            peak = np.abs(inputs["input_1"]).max()
            return [np.full((1, 3), peak, np.float32)]

    module = types.ModuleType("onnxruntime")
    module.InferenceSession, module.SessionOptions = InferenceSession, types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    (tmp_path / "own.onnx").write_bytes(b"")
    ratings = Dnsmos(str(tmp_path / "own.onnx"))(np.full(16_000, -1.5, np.float32))
    assert ratings["dnsmos"] == pytest.approx(-0.06766283 + 1.11546468 + 0.04602535)


def test_distillmos_loads_the_weights_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class ConvTransformerSQAModel(nn.Module):
        def __init__(self, load_weights: bool = True) -> None:
            super().__init__()
            assert not load_weights
            self.factor = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return self.factor * x.sum(dim=1, keepdim=True)  # (B, 1)

    module = types.ModuleType("distillmos")
    module.ConvTransformerSQAModel = ConvTransformerSQAModel
    monkeypatch.setitem(sys.modules, "distillmos", module)
    torch.save({"model": {"factor": torch.tensor(0.5)}}, tmp_path / "own.pt")
    assert DistillMos(str(tmp_path / "own.pt"))(np.ones(8, np.float32)) == 4.0


@pytest.fixture
def resemblyzer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in that trims what is not positive; the path of its weights."""

    class VoiceEncoder:
        def __init__(self, device: str, *, verbose: bool, weights_fpath: Path) -> None:
            assert weights_fpath.read_bytes() == b"weights"

        def embed_utterance(self, samples: Samples) -> Samples:
            return np.array([len(samples), samples.max()], np.float32)

    def normalize_volume(samples: Samples, level_db: float, *, increase_only: bool) -> Samples:
        assert samples.any(), "the real one divides by the level of silence"
        assert (level_db, increase_only) == (-30.0, True)
        return 2 * samples

    module = types.ModuleType("resemblyzer")
    module.VoiceEncoder, module.normalize_volume = VoiceEncoder, normalize_volume
    module.trim_long_silences = lambda samples: samples[samples > 0]
    monkeypatch.setitem(sys.modules, "resemblyzer", module)
    (tmp_path / "ge2e.pt").write_bytes(b"weights")
    return tmp_path / "ge2e.pt"


@pytest.mark.parametrize(("num_voiced", "num_used"), [(9000, 9000), (8000, 20_000), (0, 20_000)])
def test_speaker_encoder_hears_the_voiced_part_unless_too_little_is_left(
    resemblyzer: Path, num_voiced: int, num_used: int
) -> None:
    samples = np.zeros(20_000, np.float32)
    samples[:num_voiced] = 0.25
    embedding = SpeakerEncoder(str(resemblyzer))(samples)
    assert embedding.tolist() == [num_used, 0.5 if num_voiced else 0.0]


def test_cosine() -> None:
    assert cosine(np.array([3.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(2**-0.5)


@pytest.fixture
def wav(tmp_path: Path, voice_audio: Callable[..., Samples]) -> Path:
    """1.5 s at 24 kHz."""
    soundfile.write(tmp_path / "spoken.wav", voice_audio(120.0, 1.5), 24_000)
    return tmp_path / "spoken.wav"


def test_load_16k_resamples_and_tells_the_length(wav: Path) -> None:
    samples, seconds = load_16k(wav)
    assert (samples.dtype, len(samples), seconds) == (np.float32, 24_000, 1.5)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) == pytest.approx(120 * 1.5, abs=1)


def test_score_collects_what_is_wanted_and_embeds_a_reference_once(wav: Path) -> None:
    embedded = []

    def embed(samples: Samples) -> Samples:
        embedded.append(len(samples))
        return np.array([1.0, float(len(embedded) > 1)], np.float32)

    scorers = Scorers(
        recognize=lambda samples: "Hello, THE",
        normalize=lambda text: text.lower().replace(",", ""),
        embed=embed,
        dnsmos=lambda samples: {"dnsmos": 3.0},
        distillmos=lambda samples: len(samples) / 16_000,
    )
    voices: dict[Path, Samples] = {}
    utterance = Utterance("Hello there.", wav, wav)
    row = score(utterance, scorers, voices)
    assert row["sim"] == pytest.approx(2**-0.5)
    del row["sim"]
    assert row == {
        "wav": "spoken.wav",
        "audio_seconds": 1.5,
        "text": "Hello there.",
        "reference": "spoken.wav",
        "heard": "Hello, THE",
        "words": 2,
        "word_errors": 1,
        "deletions": 0,
        "insertions": 0,
        "characters": 12,
        "character_errors": 3,
        "dnsmos": 3.0,
        "distillmos": 1.5,
    }
    score(utterance, scorers, voices)
    assert len(embedded) == 3  # the reference once, the recording twice


def test_a_score_that_has_nothing_to_compare_with_is_refused(wav: Path) -> None:
    hears = Scorers(recognize=lambda samples: "")
    knows = Scorers(embed=lambda samples: samples)
    plain = Scorers(dnsmos=lambda samples: {})
    complete, bare = Utterance("Text.", wav, wav), Utterance(None, None, wav)
    check_scorable([complete], hears)
    check_scorable([bare], plain)
    with pytest.raises(OptionError, match=r"Utterance 2 .*spoken.wav\) has no text, .* score wer"):
        check_scorable([complete, bare], hears)
    with pytest.raises(OptionError, match="has no reference, which the score sim needs"):
        check_scorable([complete, bare], knows)


def test_unknown_scores_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(OptionError, match=r"There is no score 'mos'. Choose of: wer, sim"):
        load_scorers(("wer", "mos"), Sources(whisper="/nowhere"))
    assert load_scorers(("speed",), Sources()) == Scorers()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, load, command in (
        ("faster_whisper", Recognizer, "pip install 'stepflow-tts[eval]'"),
        ("onnxruntime", Dnsmos, "pip install 'stepflow-tts[eval]'"),
        ("distillmos", DistillMos, "pip install 'stepflow-tts[eval]'"),
        ("resemblyzer", SpeakerEncoder, "pip install --no-deps Resemblyzer"),
    ):
        monkeypatch.setitem(sys.modules, name, None)  # what Python takes for not installed
        with pytest.raises(MissingDependencyError) as caught:
            load()
        assert command in str(caught.value)
        assert "--metrics" in str(caught.value)
    with pytest.raises(MissingDependencyError, match=r"there is no not_installed/weights.pt"):
        find_file(None, "not_installed", "weights.pt", "The score")


def test_files_come_from_a_package_a_path_or_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = find_file(None, "stepflow_tts", "py.typed", "The score")
    assert (
        packaged == Path(import_package("stepflow_tts", "The score").__file__).parent / "py.typed"
    )
    own = tmp_path / "own.pt"
    own.write_bytes(b"")
    assert find_file(str(own), "stepflow_tts", "py.typed", "The score") == own
    for wrong in ("weights.pt", "./org/name/weights.pt", str(tmp_path / "none.pt")):
        with pytest.raises(CheckpointNotFoundError, match=r"There is no file .* for The score"):
            find_file(wrong, "stepflow_tts", "py.typed", "The score")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DownloadError, match=r"'sub/weights.pt' is no file here .* 'org/name' on the"
    ):
        find_file("org/name/sub/weights.pt", "stepflow_tts", "py.typed", "The score")
