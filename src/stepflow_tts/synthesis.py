"""One chunk of text to sound: durations, flow, vocoder, and the checks of what comes out.

Everything here is a function of its arguments alone, so that a chunk sounds the same whether it is
streamed, synthesized with others or synthesized alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.audio.effects import active_level_db
from stepflow_tts.audio.griffin_lim import griffin_lim
from stepflow_tts.audio.mel import from_flow
from stepflow_tts.config import CheckpointConfig, MelConfig
from stepflow_tts.errors import SynthesisError
from stepflow_tts.models.acoustic import AcousticModel, VoiceContext
from stepflow_tts.models.conditioning import StepIndex, TimeConditioning
from stepflow_tts.models.duration import round_durations
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
) -> Tensor:
    """The endpoint of the flow: (B, T, M) normalized log-mel.

    Args:
        model: teacher or student.
        noise: (B, T, M), as scaled for inference.
        conditions: (B, T, E) of `AcousticModel.frame_conditions`.
        voice: of `AcousticModel.encode_voice`.
        num_steps: Euler steps; for a student one of those it knows.
        cfg_strength: w of classifier-free guidance; 0 evaluates the network once a step, not twice.
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
        conditional = model.velocity(x, step, conditions, voice)
        if cfg_strength == 0:
            return conditional
        unconditional = model.velocity(x, step, no_text, no_voice)
        return flow.guide(conditional, unconditional, cfg_strength)

    return flow.euler(velocity, noise, flow.time_grid(num_steps))


@torch.inference_mode()
def synthesize_chunk(
    config: CheckpointConfig,
    model: AcousticModel,
    vocoder: Vocoder | None,
    token_ids: list[int],
    voice: VoiceContext,
    options: Options,
    index: int,
    pauses: Sequence[tuple[int, int, float]] = (),
) -> Take:
    """A chunk's samples, at the checkpoint's sample rate, and its durations.

    Args:
        config: of the checkpoint.
        model: the acoustic model.
        vocoder: None for Griffin-Lim.
        token_ids: of the chunk, with begin and end.
        voice: of `AcousticModel.encode_voice`.
        options: of the call.
        index: the chunk's place in the plan.
        pauses: seconds that the tokens from a first to before a last one take, at any speed.

    Raises:
        SynthesisError: what came out is not finite, or silent.
    """
    device = next(model.parameters()).device
    tokens = torch.tensor([token_ids], device=device)  # (1, L)
    encoding = model.encode_text(tokens, voice)  # (1, L, E)
    log_durations = model.predict_durations(encoding, voice)[0].cpu()  # (L,); MPS has no float64
    minimum = minimum_frames(config.symbols)[token_ids]
    durations = round_durations(log_durations, speed=options.speed, minimum=minimum)  # (L,)
    durations = set_pauses(durations, pauses, config.mel)
    conditions = model.frame_conditions(encoding, durations[None].to(device))  # (1, T, E)
    noise = draw_noise(conditions.shape[1], config.mel.n_mels, options.seed, index)
    noise = (noise * config.flow.noise_scale).to(device)
    x = sample(model, noise, conditions, voice, options.num_steps, options.cfg_strength)
    log_mel = from_flow(x, config.flow).clamp(min=config.flow.log_floor)  # (1, T, M)
    decoded = griffin_lim(log_mel, config.mel) if vocoder is None else vocoder.decode(log_mel)
    waveform = decoded[0].float().cpu()  # (S,)
    check_is_speech(waveform, config.mel.sample_rate, index)
    faded = fade_ends(limit(waveform), round(FADE_SECONDS * config.mel.sample_rate))
    return Take(faded, durations)


def speak(
    config: CheckpointConfig,
    model: AcousticModel,
    vocoder: Vocoder | None,
    part: Part,
    voice: VoiceContext,
    options: Options,
    index: int,
    *,
    last: bool,
) -> Speech:
    """A part of a plan with its words, and the pause that follows it unless it is the `last`.

    The other arguments and errors are those of `synthesize_chunk`.
    """
    own = replace(options, speed=options.speed * part.rate)
    take = synthesize_chunk(
        config, model, vocoder, part.token_ids, voice, own, index, part.inner_pauses
    )
    times = [part.before_seconds + t for t in take.token_seconds(config.mel)]  # (L + 1,)
    phonemes = tuple(Phoneme(s.text, times[s.start], times[s.end]) for s in part.phoneme_spans())
    words = tuple(Word(s.text, times[s.start], times[s.end]) for s in part.word_spans())

    if last and not part.always_pause:
        pause = 0.0
    elif part.exact_pause:
        pause = max(0.0, part.pause_seconds - (times[-1] - phonemes[-1].end_seconds))
    else:
        pause = part.pause_seconds / options.speed
    rate = config.mel.sample_rate
    silences = [torch.zeros(round(seconds * rate)) for seconds in (part.before_seconds, pause)]
    waveform = torch.cat((silences[0], take.waveform, silences[1]))
    text = " ".join(word.text for word in words)
    return Speech(waveform.numpy(), rate, options.seed, text, words, phonemes)


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
