"""One chunk of text to sound: durations, flow, vocoder, and the checks of what comes out.

Everything here is a function of its arguments alone, so that a chunk sounds the same whether it is
streamed, synthesized with others or synthesized alone.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.audio.effects import active_level_db
from stepflow_tts.audio.griffin_lim import griffin_lim
from stepflow_tts.audio.mel import from_flow, raise_contrast, raise_formants
from stepflow_tts.config import CheckpointConfig, MelConfig
from stepflow_tts.errors import SynthesisError
from stepflow_tts.models.acoustic import AcousticModel, VoiceContext
from stepflow_tts.models.conditioning import StepIndex, TimeConditioning
from stepflow_tts.models.duration import round_durations
from stepflow_tts.models.shapes import FRAME_STEP, TOKEN_STEP, round_up
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.options import Options
from stepflow_tts.speech import Speech
from stepflow_tts.subtitles import Phoneme, Word
from stepflow_tts.text.plan import Part
from stepflow_tts.text.tokenizer import is_phone

MIN_LEVEL_DB = -50.0  # speech is made at -26 dBFS
LIMITER_KNEE = 0.9  # louder samples are bent towards 1.0
FADE_SECONDS = 0.005  # at both ends of a chunk, so that it meets the pause without a click


def minimum_frames(symbols: tuple[str, ...]) -> Tensor:
    """(symbols,) the fewest frames that a token may have: 1 for a phone, begin and end, else 0."""
    return torch.tensor([is_phone(symbol) for symbol in symbols]).long()


class Take(NamedTuple):
    """A chunk that was spoken."""

    waveform: Tensor  # (S,) samples in [-1, 1] on the CPU
    durations: Tensor  # (L,) integers, frames of each token

    def token_seconds(self, mel: MelConfig) -> list[float]:
        """L + 1 times in seconds: where each token begins, and where the last one ends."""
        longest = len(self.waveform) / mel.sample_rate
        ends = self.durations.cumsum(0).tolist()
        return [min(frames / mel.frame_rate, longest) for frames in (0, *ends)]


def draw_noise(num_frames: int, n_mels: int, seed: int, index: int) -> Tensor:
    """(1, num_frames, n_mels) of a standard normal that depends on seed and chunk index alone."""
    digest = hashlib.sha256(f"{seed} {index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    return torch.randn(1, num_frames, n_mels, generator=generator)


def sample(
    model: AcousticModel,
    noise: Tensor,
    conditions: Tensor,
    voice: VoiceContext,
    num_steps: int,
    cfg_strength: float,
    frame_mask: Tensor | None = None,
) -> Tensor:
    """The endpoint of the flow: (B, T, M) normalized log-mel.

    Args:
        model: teacher or student.
        noise: (B, T, M), as scaled for inference.
        conditions: (B, T, E) of `AcousticModel.frame_conditions`.
        voice: of `AcousticModel.encode_voice`.
        num_steps: Euler steps; for a student one of those it knows.
        cfg_strength: w of classifier-free guidance; 0 evaluates the network once a step, not twice.
        frame_mask: (B, T) bool, True = real; None when nothing is padded.
    """
    is_teacher = isinstance(model.step, TimeConditioning)
    no_text = model.null_conditions(*conditions.shape[:2])
    no_voice = model.null_voice(len(noise))

    def velocity(x: Tensor, t: float) -> Tensor:
        step = (
            torch.full((len(x),), t, device=x.device)
            if is_teacher
            else StepIndex(num_steps, round(t * num_steps))
        )
        conditional = model.velocity(x, step, conditions, voice, frame_mask)
        if cfg_strength == 0:
            return conditional
        unconditional = model.velocity(x, step, no_text, no_voice, frame_mask)
        return flow.guide(conditional, unconditional, cfg_strength)

    return flow.euler(velocity, noise, flow.time_grid(num_steps))


SLOWEST, FASTEST = 0.9, 1.1
"""Speeds at which the network speaks, as it has heard people speak; beyond, its log-mel is warped."""


class Draft(NamedTuple):
    """A chunk before the flow."""

    durations: Tensor  # (L,) integers, frames of each token as it is heard
    spoken: Tensor  # (L,) integers, frames of each token as the network speaks it
    conditions: Tensor  # (1, T, E), T the frames that are spoken
    noise: Tensor  # (1, T, M)


def warp(x: Tensor, spoken: Tensor, durations: Tensor) -> Tensor:
    """Frames at which each token lasts as long as it should: pitch stays, since it is in the bands.

    Args:
        x: (1, T, M) log-mel with `spoken` frames of each token.
        spoken: (L,) integers, with the sum T.
        durations: (L,) integers, with the sum U.

    Returns:
        (1, U, M), each frame between two of x; x itself where nothing changes.
    """
    if torch.equal(spoken, durations):
        return x
    token = torch.repeat_interleave(torch.arange(len(durations)), durations)  # (U,)
    inside = torch.arange(len(token)) - (durations.cumsum(0) - durations)[token] + 0.5
    start = (spoken.cumsum(0) - spoken)[token]
    place = start + inside / durations[token] * spoken[token] - 0.5  # (U,), in frames of x
    place = place.clamp(0, x.shape[1] - 1).to(x.device)
    before = place.floor().long()
    after = (before + 1).clamp(max=x.shape[1] - 1)
    return torch.lerp(x[:, before], x[:, after], (place - before)[None, :, None].to(x.dtype))


@torch.inference_mode()
def draft_part(
    config: CheckpointConfig,
    model: AcousticModel,
    part: Part,
    voice: VoiceContext,
    options: Options,
    index: int,
) -> Draft:
    """What the flow of a part starts from.

    Args:
        config: of the checkpoint.
        model: the acoustic model.
        part: of the plan.
        voice: of `AcousticModel.encode_voice`.
        options: of the call.
        index: the part's place in the plan.
    """
    device = next(model.parameters()).device
    length = len(part.token_ids)
    tokens = torch.zeros(1, round_up(length, TOKEN_STEP), dtype=torch.long)
    tokens[0, :length] = torch.tensor(part.token_ids)
    tokens, mask = (t.to(device) for t in (tokens, _mask([length], tokens.shape[1])))
    encoding = model.encode_text(tokens, voice, mask)
    log_durations = model.predict_durations(encoding, voice, mask)
    log_durations = log_durations[0, :length].cpu()  # (L,); MPS has no float64
    encoding = encoding[:, :length]  # (1, L, E)
    minimum = minimum_frames(config.symbols)[part.token_ids]
    speed = options.speed * part.rate
    durations, spoken = (
        set_pauses(
            round_durations(log_durations, speed=rate, minimum=minimum),
            part.inner_pauses,
            config.mel,
        )
        for rate in (speed, min(max(speed, SLOWEST), FASTEST))
    )  # (L,)
    conditions = model.frame_conditions(encoding, spoken[None].to(device))  # (1, T, E)
    noise = draw_noise(conditions.shape[1], config.mel.n_mels, options.seed, index)
    noise = (noise * config.flow.noise_scale).to(device)
    return Draft(durations, spoken, conditions, noise)


@torch.inference_mode()
def flow_of(
    model: AcousticModel, drafts: Sequence[Draft], voice: VoiceContext, options: Options
) -> list[Tensor]:
    """(1, T, M) normalized log-mel of each draft, all in one batch and one voice."""
    lengths = [draft.noise.shape[1] for draft in drafts]
    longest = round_up(max(lengths), FRAME_STEP)
    noise, conditions = (
        torch.cat([F.pad(tensor, (0, 0, 0, longest - tensor.shape[1])) for tensor in column])
        for column in ([d.noise for d in drafts], [d.conditions for d in drafts])
    )  # (B, T, ...)
    mask = _mask(lengths, longest).to(noise.device)
    x = sample(model, noise, conditions, voice, options.num_steps, options.cfg_strength, mask)
    return [
        warp(x[i : i + 1, :length], draft.spoken, draft.durations)
        for i, (draft, length) in enumerate(zip(drafts, lengths, strict=True))
    ]


def _mask(lengths: Sequence[int], longest: int) -> Tensor:
    """(B, longest) bool, True before each of the lengths."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


@torch.inference_mode()
def take_of(
    config: CheckpointConfig, vocoder: Vocoder | None, draft: Draft, x: Tensor, index: int
) -> Take:
    """A draft's samples, out of its normalized log-mel x (1, T, M).

    Args:
        config: of the checkpoint.
        vocoder: None for Griffin-Lim.
        draft: of `draft_part`.
        x: of `flow_of`.
        index: the part's place in the plan.

    Raises:
        SynthesisError: what came out is not finite, or silent.
    """
    log_mel = from_flow(raise_contrast(x, config.flow.contrast), config.flow)  # (1, T, M)
    log_mel = log_mel.clamp(min=config.flow.log_floor)
    if vocoder is None:
        log_mel = raise_formants(log_mel, config.flow.formants, config.mel)
        decoded = griffin_lim(log_mel, config.mel)
    else:
        num_frames = log_mel.shape[1]
        more = round_up(num_frames, FRAME_STEP) - num_frames
        longer = F.pad(log_mel.transpose(1, 2), (0, more), mode="replicate").transpose(1, 2)
        decoded = vocoder.decode(longer, config.flow.formants)
        decoded = decoded[:, : (num_frames - 1) * config.mel.hop_length]
    waveform = decoded[0].float().cpu()  # (S,)
    check_is_speech(waveform, config.mel.sample_rate, index)
    faded = fade_ends(limit(waveform), round(FADE_SECONDS * config.mel.sample_rate))
    return Take(faded, draft.durations)


def piece_of(
    part: Part, take: Take, options: Options, mel: MelConfig, silence_seconds: float
) -> tuple[Speech, float]:
    """A spoken part with its words, and the seconds of silence that should follow it.

    Args:
        part: of the plan.
        take: of `take_of`.
        options: of the call.
        mel: of the checkpoint.
        silence_seconds: what should follow the part before it, and begins this piece.
    """
    before = silence_seconds + part.before_seconds
    silence = torch.zeros(round(before * mel.sample_rate))
    start = len(silence) / mel.sample_rate
    times = [start + t for t in take.token_seconds(mel)]  # (L + 1,)
    phonemes = tuple(Phoneme(s.text, times[s.start], times[s.end]) for s in part.phoneme_spans())
    words = tuple(Word(s.text, times[s.start], times[s.end]) for s in part.word_spans())
    pause = part.pause_seconds / options.speed
    if part.exact_pause:
        pause = max(0.0, part.pause_seconds - (times[-1] - phonemes[-1].end_seconds))
    samples = torch.cat((silence, take.waveform)).numpy()
    text = " ".join(word.text for word in words)
    return Speech(samples, mel.sample_rate, options.seed, text, words, phonemes), pause


def set_pauses(
    durations: Tensor, pauses: Sequence[tuple[int, int, float]], mel: MelConfig
) -> Tensor:
    """(L,) frames of each token, in which pauses last as long as was asked.

    Args:
        durations: (L,) integers.
        pauses: first token, the one after the last, and seconds; the mark that comes first takes
            them all.
        mel: whose frames they are.
    """
    durations = durations.clone()
    for start, end, seconds in pauses:
        durations[start:end] = 0
        durations[start] = round(seconds * mel.frame_rate)
    return durations


def check_is_speech(waveform: Tensor, sample_rate: int, index: int) -> None:
    """Refuse (S,) samples that cannot be speech.

    Raises:
        SynthesisError: a sample is not finite, or the level is below -50 dBFS.
    """
    advice = "Try another seed or voice; if it stays, the checkpoint is damaged or badly trained."
    if not waveform.isfinite().all():
        raise SynthesisError(f"Chunk {index} of the speech has non-finite samples. {advice}")
    level = active_level_db(waveform, sample_rate)
    if level < MIN_LEVEL_DB:
        raise SynthesisError(
            f"Chunk {index} of the speech has words but a level of {level:.0f} dBFS; at least "
            f"{MIN_LEVEL_DB:.0f} is expected. {advice}"
        )


def limit(waveform: Tensor) -> Tensor:
    """Samples of any shape in [-1, 1]: up to 0.9 as they are, beyond that bent by a tanh.

    Each sample by itself, so that no chunk changes the loudness of another.
    """
    room = 1.0 - LIMITER_KNEE
    magnitude = waveform.abs()
    bent = LIMITER_KNEE + room * torch.tanh((magnitude - LIMITER_KNEE) / room)
    return torch.where(magnitude > LIMITER_KNEE, waveform.sign() * bent, waveform).clamp(-1.0, 1.0)


def fade_ends(waveform: Tensor, num_samples: int) -> Tensor:
    """(S,) that rises from zero and falls to zero within `num_samples` each."""
    num_samples = min(num_samples, len(waveform) // 2)
    ramp = torch.linspace(0.0, 1.0, num_samples)
    middle = waveform.new_ones(len(waveform) - 2 * num_samples)
    return waveform * torch.cat((ramp, middle, ramp.flip(0)))
