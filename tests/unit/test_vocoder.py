"""The vocoder: exact starts, Vocos's own output, and what it does with odd input."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from vocos import Vocos
from vocos.feature_extractors import MelSpectrogramFeatures
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError, InputError
from stepflow_tts.models.source import (
    LOWEST_HZ,
    NUM_CANDIDATES,
    Pitch,
    PitchLogits,
    carry,
    integrate,
    pulse_train,
    sample_phase,
)
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.models.vocos_checkpoint import load_vocos
from stepflow_tts.training.discriminators import (
    Discriminator,
    Judgement,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from stepflow_tts.training.loop import LoopConfig, train
from stepflow_tts.training.pitch import PITCH_FILE, open_pitch, track_pitch
from stepflow_tts.training.vocoder import VocoderTrainingConfig, pitch_loss, vocoder_task

MEL = MelConfig()
SMALL = VocoderConfig(dim=16, intermediate_dim=32, num_layers=1, pitch_dim=8, pitch_layers=1)
TURN = 2 * math.pi


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hum(seconds: float = 1.0, hertz: float = 150.0, bend: float = 20.0) -> tuple[torch.Tensor, ...]:
    """A voice-like tone (S,), its pitch (S,) and its phase (S,)."""
    time = torch.arange(int(seconds * 24000), dtype=torch.float64) / 24000
    f0 = hertz + bend * torch.sin(TURN * 2 * time)
    phase = TURN * f0.cumsum(0) / 24000 + 0.7
    tone = 0.05 * sum(torch.cos(k * phase) / k for k in range(1, 71))
    return tone.float(), f0.float(), phase.float()


def small_vocoder(**changes: object) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(dataclasses.replace(SMALL, **changes), MEL).eval()  # type: ignore[arg-type]


# Sizes and the source


def test_default_vocoder_is_small() -> None:
    count = sum(p.numel() for p in Vocoder(VocoderConfig(), MEL).parameters())
    assert 3.5e6 < count < 4.5e6


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 40])
@pytest.mark.parametrize("prior", [True, False])
def test_decode_gives_a_hop_between_frames(num_frames: int, prior: bool) -> None:
    log_mels = -5 + 2 * torch.randn(2, num_frames, 100, generator=generator())
    waveform = small_vocoder(prior=prior, griffin_lim_iterations=2).decode(log_mels)
    assert waveform.shape == (2, (num_frames - 1) * 256)


def test_decode_is_deterministic_and_the_same_in_a_batch() -> None:
    vocoder = small_vocoder()
    log_mels = -5 + 2 * torch.randn(3, 30, 100, generator=generator())
    together = vocoder.decode(log_mels)
    torch.manual_seed(99)
    assert torch.equal(together, vocoder.decode(log_mels))
    torch.testing.assert_close(together[1:2], vocoder.decode(log_mels[1:2]), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("value", [-100.0, math.log(1e-7), 0.0, 10.0, 80.0, 1000.0])
def test_decode_is_finite_for_any_level(value: float) -> None:
    for iterations in (0, 2):
        vocoder = small_vocoder(griffin_lim_iterations=iterations)
        assert vocoder.decode(torch.full((1, 20, 100), value)).isfinite().all()


@pytest.mark.parametrize("prior", [True, False])
def test_magnitudes_are_limited(prior: bool) -> None:
    vocoder = small_vocoder(prior=prior)
    with torch.no_grad():
        vocoder.head.out.bias[:513] = 200.0
    spectrum = vocoder.spectrum(torch.zeros(1, 20, 100))
    assert spectrum.log_magnitude.max().item() == pytest.approx(math.log(100))


def test_noise_has_no_certain_phase() -> None:
    vocoder = small_vocoder()
    pitch = Pitch(
        torch.full((1, 40), 140.0), integrate(torch.full((1, 40), 140.0), MEL), torch.ones(1, 40)
    )
    certainty = vocoder.spectrum(torch.zeros(1, 40, 100), pitch).certainty[:, 4:-4]
    assert certainty[..., :150].square().mean().sqrt().item() == pytest.approx(
        1, rel=0.1
    )  # to 3.5 kHz
    assert certainty[..., 300:].max() < 0.01  # above 7 kHz
    silent = pitch._replace(voiced=torch.zeros(1, 40))
    assert vocoder.spectrum(torch.zeros(1, 40, 100), silent).certainty.max() == 0


def test_carry_draws_lines_between_what_is_known() -> None:
    values = torch.tensor([[9.0, 1.0, 9.0, 9.0, 4.0, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    known = torch.tensor([[False, True, False, False, True, False], [False] * 6])
    expected = torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [3.5] * 6])
    torch.testing.assert_close(carry(values, known), expected)


def test_phase_advances_by_the_pitch_and_meets_every_frame() -> None:
    f0 = torch.full((1, 200), 93.75 * 2.25)  # two turns and a quarter a frame
    quarter = torch.tensor([0.0, TURN / 4, TURN / 2, TURN * 3 / 4])
    torch.testing.assert_close(integrate(f0, MEL)[0, :4], quarter, atol=1e-4, rtol=0)
    f0 = 120 + 40 * torch.rand(1, 30, generator=generator())
    phase = integrate(f0, MEL) + 0.1 * torch.randn(1, 30, generator=generator(1))
    samples = sample_phase(Pitch(f0, phase, torch.ones(1, 30)), MEL)
    assert samples.shape == (1, 29 * 256)
    at_frames = samples[:, ::256] - phase[:, :-1]
    torch.testing.assert_close(torch.cos(at_frames), torch.ones(1, 29), atol=1e-4, rtol=0)
    steps = samples.diff(dim=1)
    steps = steps - TURN * torch.round(steps / TURN)
    assert steps.min() > TURN * 60 / 24000  # no sample falls back, none leaps
    assert steps.max() < TURN * 240 / 24000


def test_pulse_train_is_the_sum_of_its_harmonics() -> None:
    phase = torch.linspace(-20, 20, 4001)[None]
    f0 = torch.full_like(phase, 900.0)  # 13 harmonics below 12 kHz
    direct = sum(torch.cos(k * phase.double()) for k in range(1, 14)) * math.sqrt(4 * 900 / 24000)
    torch.testing.assert_close(pulse_train(phase, f0, 24000).double(), direct, atol=2e-3, rtol=0)


def test_pulse_train_is_as_strong_as_white_noise() -> None:
    phase = TURN * 130 * torch.arange(240000)[None] / 24000
    pulses = pulse_train(phase % TURN, torch.full_like(phase, 130.0), 24000)
    assert pulses.square().mean().item() == pytest.approx(1.0, rel=0.03)


# The start


def test_before_training_the_magnitude_has_the_mels_it_was_given() -> None:
    tone, f0, phase = hum()
    log_mels = log_mel(tone[None], MEL)
    frames = torch.arange(0, 24001, 256).clamp(max=23999)
    pitch = Pitch(f0[frames][None], phase[frames][None], torch.ones(1, len(frames)))
    spectrum = small_vocoder().spectrum(log_mels, pitch)
    filters = small_vocoder().inverse.filters
    mels = (spectrum.log_magnitude.exp() @ filters).log()
    assert (mels - log_mels)[:, 5:-5].abs().mean() < 0.1
    # Harmonics 150 Hz apart in bands 100 Hz wide: the pulses tell peaks from valleys.
    truth = torch.stft(tone, 1024, 256, window=torch.hann_window(1024), return_complex=True).T.abs()
    top = slice(90, 115)  # 2.1 to 2.7 kHz
    a, b = spectrum.log_magnitude[0, 5:-5, top], truth[5:-5, top].clamp(min=1e-5).log()
    assert torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1] > 0.8


def test_before_training_true_pitch_gives_the_recording_back() -> None:
    tone, f0, phase = hum()
    frames = torch.arange(0, 24001, 256).clamp(max=23999)
    pitch = Pitch(f0[frames][None], phase[frames][None], torch.ones(1, len(frames)))
    vocoder = small_vocoder()
    waveform = vocoder.waveform(vocoder.spectrum(log_mel(tone[None], MEL), pitch))[0]
    middle = slice(2400, 21600)
    a, b = waveform[middle], tone[: len(waveform)][middle]
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.95


def test_noise_follows_its_gains_in_time() -> None:
    vocoder = small_vocoder()
    with torch.no_grad():
        vocoder.shape.bias[3 : 3 + 4] = 3.0  # the half of each frame's samples before its centre
    pitch = Pitch(torch.full((1, 40), 100.0), torch.zeros(1, 40), torch.zeros(1, 40))
    shape = vocoder.shape(torch.zeros(1, 40, 16))
    noise = torch.ones(1, 39 * 256)
    loud = vocoder._source(pitch, noise, shape)
    before = vocoder.head.istft(loud.noise.transpose(1, 2))
    power = before[0, 2048:-2048].unfold(0, 256, 256).square().mean(dim=0)
    assert power[160:224].mean() > 50 * power[32:96].mean()


def test_gradients_reach_every_parameter_and_the_mels() -> None:
    vocoder = small_vocoder()
    with torch.no_grad():  # at zero the backbone gets none
        vocoder.head.out.weight.normal_(std=0.02)
        vocoder.shape.weight.normal_(std=0.02)
    log_mels = (-5 + 2 * torch.randn(1, 30, 100, generator=generator())).requires_grad_()
    vocoder(log_mels).square().mean().backward()
    assert log_mels.grad is not None
    assert log_mels.grad.isfinite().all()
    assert log_mels.grad.abs().sum() > 0
    for name, parameter in vocoder.named_parameters():
        if not name.startswith("pitch."):  # its choice is discrete; it has a loss of its own
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


# Vocos's own checkpoints


def save_vocos(folder: Path, **changes: object) -> Vocos:
    """A Vocos with random weights in `folder`, as its authors publish theirs."""
    torch.manual_seed(0)
    sizes = {"input_channels": 100, "dim": 24, "intermediate_dim": 48, "num_layers": 2}
    head = {"dim": 24, "n_fft": 1024, "hop_length": 256, "padding": "center"}
    model = Vocos(MelSpectrogramFeatures(), VocosBackbone(**sizes), ISTFTHead(**head)).eval()
    config = {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100},
        },
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": sizes},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": head},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        (config[part]["init_args"] if name != "class_path" else config[part])[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def test_a_vocos_checkpoint_sounds_the_same_here(tmp_path: Path) -> None:
    original = save_vocos(tmp_path)
    vocoder = load_vocos(tmp_path / "config.yaml", tmp_path / "pytorch_model.bin")
    log_mels = -5 + 2 * torch.randn(2, 50, 100, generator=generator())
    expected = original.decode(log_mels.transpose(1, 2))
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(vocoder.decode(log_mels), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(vocoder(log_mels), expected, atol=1e-5, rtol=0)


def test_the_published_sizes_of_vocos() -> None:
    config = VocoderConfig(dim=512, intermediate_dim=1536, num_layers=8, prior=False)
    names = set(Vocoder(config, MEL).state_dict())
    theirs = Vocos(
        MelSpectrogramFeatures(),
        VocosBackbone(100, 512, 1536, 8),
        ISTFTHead(512, 1024, 256, "center"),
    ).state_dict()
    assert names == {k for k in theirs if not k.startswith("feature_extractor.")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head__padding": "same"}, "head.padding is 'same'"),
        ({"head__hop_length": 128}, "head.hop_length is 128"),
        ({"feature_extractor__class_path": "vocos.feature_extractors.EncodecFeatures"}, "Encodec"),
        ({"head__class_path": "os.system"}, "os.system"),
        ({"backbone__adanorm_num_embeddings": 4}, "adanorm"),
        ({"backbone__dim": 32}, "does not fit"),
    ],
)
def test_other_vocos_checkpoints_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    save_vocos(tmp_path, **changes)
    with pytest.raises(CheckpointFormatError, match=message):
        load_vocos(tmp_path / "config.yaml", tmp_path / "pytorch_model.bin")


def test_a_vocos_pickle_is_never_run(tmp_path: Path) -> None:
    save_vocos(tmp_path)
    torch.save({"head.out.weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointFormatError, match="not a file of tensors"):
        load_vocos(tmp_path / "config.yaml", tmp_path / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin").write_bytes(b"half a file")
    with pytest.raises(CheckpointFormatError, match="not a file of tensors"):
        load_vocos(tmp_path / "config.yaml", tmp_path / "pytorch_model.bin")
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(CheckpointFormatError, match="not YAML"):
        load_vocos(tmp_path / "config.yaml", tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointNotFoundError, match="There is no file"):
        load_vocos(tmp_path / "other.yaml", tmp_path / "pytorch_model.bin")


class Trap:
    """Something that an unpickler would have to build."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the pickle was run",))


# Pitch of recordings


def test_tracked_pitch_and_phase_of_a_known_tone() -> None:
    tone, f0, phase = hum(2.0)
    found = track_pitch(tone, MEL)
    inner = slice(8, -8)
    assert found.f0.shape == (1, 1 + 48000 // 256)
    assert found.voiced[0, inner].min() == 1
    frames = torch.arange(0, 48001, 256).clamp(max=47999)
    ratio = found.f0[0, inner] / f0[frames][inner]
    assert (ratio - 1).abs().max() < 0.01
    turned = torch.cos(found.phase[0, inner] - phase[frames][inner])
    assert turned.min() > 0.97


def test_noise_and_silence_are_not_voiced() -> None:
    noise = 0.05 * torch.randn(24000, generator=generator())
    assert track_pitch(noise, MEL).voiced.mean() < 0.1
    silence = track_pitch(torch.zeros(24000), MEL)
    assert silence.voiced.sum() == 0
    assert silence.f0.isfinite().all()


def test_pitch_loss_by_hand() -> None:
    on_candidate = torch.tensor([[LOWEST_HZ * 2 ** (50 / 48), 100.0]])
    truth = Pitch(on_candidate, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    even = PitchLogits(torch.zeros(1, 2, NUM_CANDIDATES), torch.zeros(1, 2))
    assert pitch_loss(even, truth).item() == pytest.approx(math.log(NUM_CANDIDATES) + math.log(2))
    sure = torch.full((1, 2, NUM_CANDIDATES), -1e4)
    sure[0, 0] = -0.5 * (torch.arange(NUM_CANDIDATES) - 50.0).square()
    right = PitchLogits(sure, torch.tensor([[100.0, -100.0]]))
    entropy = 0.5 * math.log(TURN * math.e)  # of a normal distribution of width 1
    assert pitch_loss(right, truth).item() == pytest.approx(entropy, abs=1e-3)


# Adversary and training


def test_discriminator_losses_by_hand() -> None:
    real = Judgement(torch.tensor([2.0, 0.5]), (torch.tensor([1.0, 3.0]),))
    fake = Judgement(torch.tensor([-3.0, 0.0]), (torch.tensor([2.0, 3.0]),))
    assert discriminator_loss(real, fake).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1) / 2)
    assert generator_loss(fake).item() == pytest.approx((4 + 1) / 2)
    assert feature_loss(real, fake).item() == pytest.approx(0.5 / 2)


def test_discriminator_hears_phase() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(channels=4)
    pulses = torch.zeros(1, 4800)
    pulses[:, ::160] = 0.5
    smeared = torch.fft.irfft(torch.fft.rfft(pulses) * torch.exp(1j * 40 * torch.rand(2401)))
    for index in range(3):
        a, b = discriminator(pulses, index), discriminator(smeared, index)
        assert a.score.shape == b.score.shape
        assert (a.score - b.score).abs().mean() > 1e-3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of four hums of 1 s, the last one held out and the last but one narrow."""
    folder = tmp_path_factory.mktemp("prepared")
    rows, audio = [], []
    for i, (speaker, rate) in enumerate([("a", 24000), ("b", 22050), ("c", 16000), ("d", 24000)]):
        tone, _, _ = hum(1.0, 110.0 + 40 * i)
        audio.append((tone * 32767).to(torch.int16).numpy())
        rows.append(
            {
                "id": speaker,
                "corpus": "hums",
                "speaker": speaker,
                "text": "",
                "language": "en-us",
                "source_sample_rate": float(rate),
                "start_frame": 94 * i,
                "num_frames": 94,
                "start_sample": 24000 * i,
                "num_samples": 24000,
                "phonemes": None,
                "token_ids": None,
                "durations": None,
                "split": "held_out" if speaker == "d" else "train",
            }
        )
    (folder / "utterances.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    np.concatenate(audio).tofile(folder / "audio.i16")
    return folder


CONFIG = VocoderTrainingConfig(
    vocoder=SMALL, batch_size=2, crop_frames=16, discriminator_channels=2, adversarial_from=2
)


def test_batches_follow_from_seed_and_step(prepared: Path) -> None:
    task, again = vocoder_task(prepared, CONFIG, 3), vocoder_task(prepared, CONFIG, 3)
    for step in (0, 7):
        for a, b in zip(task.batch(step)[:2], again.batch(step)[:2], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(task.batch(0).waveform, task.batch(1).waveform)
    assert not torch.equal(
        task.batch(0).waveform, vocoder_task(prepared, CONFIG, 4).batch(0).waveform
    )


def test_crops_meet_their_pitch_and_keep_held_out_speakers_out(prepared: Path) -> None:
    task = vocoder_task(prepared, CONFIG, 0)
    assert (prepared / PITCH_FILE).exists()
    assert open_pitch(prepared).shape == (376, 3)
    assert [u.speaker for u in task.training_crops.wide] == ["a", "b"]
    assert [u.speaker for u in task.training_crops.narrow] == ["c"]
    assert [u.speaker for u in task.held_out_crops.wide] == ["d"]
    crop = task.held_out_crops.draw(40, 0.0, generator())
    fundamental = torch.cos(sample_phase(Pitch(*crop.pitch.T[:, None]), MEL))[0]
    similar = torch.nn.functional.cosine_similarity(fundamental, crop.waveform, dim=0)
    assert (
        similar > 0.3
    )  # one of 19 harmonics at 1 / k has .79 of the size: half a frame off gives 0
    whole = task.held_out_crops.draw(120, 0.0, generator())
    assert whole.waveform.shape == (120 * 256,)
    assert whole.waveform[24000:].abs().max() == 0
    assert whole.pitch.shape == (121, 3)
    assert whole.pitch[94:, 2].max() == 0


def test_narrow_share_is_kept(prepared: Path) -> None:
    crops = vocoder_task(prepared, CONFIG, 0).training_crops
    source = generator()
    lowest = [crops.draw(16, 0.25, source).pitch[:, 0].mean().item() for _ in range(200)]
    narrow = sum(f0 > 168 for f0 in lowest) / 200  # the narrow hum's pitch is 190 Hz, 150 the next
    assert 0.15 < narrow < 0.35


def test_floors_stay_within_their_range(prepared: Path) -> None:
    config = dataclasses.replace(CONFIG, jitter=0.0, batch_size=64)
    lowest = vocoder_task(prepared, config, 0).batch(0).log_mel.amin(dim=(1, 2))
    assert lowest.min() >= math.log(1e-7) - 1e-4
    floors = torch.cat(
        [vocoder_task(prepared, config, s).batch(0).log_mel.amin(dim=(1, 2)) for s in (1, 2)]
    )
    assert floors.max() > -9  # ln 1e-4 is -9.2


def test_the_adversary_joins_at_its_step_and_training_lowers_the_loss(
    prepared: Path, tmp_path: Path
) -> None:
    task = vocoder_task(prepared, CONFIG, 0)
    assert [loss.module for loss in task.losses(task.batch(1), 1)] == ["vocoder"]
    assert [loss.module for loss in task.losses(task.batch(2), 2)] == ["discriminator", "vocoder"]
    config = dataclasses.replace(CONFIG, adversarial_from=1000)
    task = vocoder_task(prepared, config, 0)
    before = task.validate(task.vocoder, 0)
    ema = train(task, tmp_path, LoopConfig(num_updates=12, warmup_updates=1, learning_rate=3e-3))
    after = task.validate(ema, 12)
    assert after["held_out_reconstruction"] < before["held_out_reconstruction"]


def test_the_vocoder_is_not_moved_by_the_discriminators_loss(prepared: Path) -> None:
    task = vocoder_task(prepared, CONFIG, 0)
    losses = task.losses(task.batch(2), 2)
    first = next(losses)
    first.value.backward()
    assert all(p.grad is None for p in task.vocoder.parameters())
    assert any(p.grad is not None for p in task.discriminator.parameters())


def test_a_folder_without_held_out_speakers_is_refused(prepared: Path, tmp_path: Path) -> None:
    lines = (prepared / "utterances.jsonl").read_text().splitlines()[:3]
    (tmp_path / "utterances.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "audio.i16").write_bytes((prepared / "audio.i16").read_bytes())
    with pytest.raises(InputError, match="held_out"):
        vocoder_task(tmp_path, CONFIG, 0)
