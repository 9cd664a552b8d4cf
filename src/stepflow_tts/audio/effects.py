"""Pure functions on one mono waveform (S,): resampling, level, trimming, cross-fade."""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
import torchaudio.functional
from torch import Tensor

from stepflow_tts.errors import OptionError

FRAME_SECONDS = 0.02
ABSOLUTE_GATE_DB = -70.0  # BS.1770's; frames below are silence whatever the level of the rest
RELATIVE_GATE_DB = -16.0  # P.56's margin (15.9): breaths and room noise do not count as speech
TRIM_RANGE_DB = (-40.0, -20.0)  # where the border of silence may lie, relative to the speech
TRIM_ABOVE_NOISE_DB = 6.0
NOISE_WINDOW_SECONDS = 0.04  # of a spectrum in which noise is looked for
NOISE_SHARE = 0.1  # of the frames, the quietest, that hold nothing but noise
NOISE_OVER_QUIETEST = (
    3.0  # mean power of a steady noise over its quietest tenth, with some to spare
)
LOWEST_GAIN = 0.05  # -26 dB: what is left of noise, so that pauses do not fall silent
MAX_RATIO_DENOMINATOR = (
    1000  # exact for every usual rate; the filter bank of 44099 -> 24000 is 4 GB
)


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """The waveform at another sample rate; the same tensor when the rates are equal.

    Rates whose ratio is unwieldy (44099 to 24000) are approximated within a millionth.

    Args:
        waveform: (..., S) float32.
        source_rate: its sample rate in Hz.
        target_rate: the wanted one in Hz.

    Returns:
        (..., ceil(S * target_rate / source_rate)) float32, up to that approximation.

    Raises:
        OptionError: a rate is not a positive number.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise OptionError(
            f"Cannot resample from {source_rate} Hz to {target_rate} Hz: both must be above 0."
        )
    if source_rate == target_rate:
        return waveform
    ratio = Fraction(source_rate, target_rate).limit_denominator(MAX_RATIO_DENOMINATOR)
    # Width 64 with roll-off .99 keeps 16 kHz recordings flat to 7.7 kHz; the default width 6 starts
    # to fall at 6 kHz.
    resampled: Tensor = torchaudio.functional.resample(
        waveform, ratio.numerator, ratio.denominator, lowpass_filter_width=64, rolloff=0.99
    )
    return resampled


def active_level_db(waveform: Tensor, sample_rate: int) -> float:
    """RMS level of the speech in dBFS, pauses left out; -inf when all of it is below -70 dBFS.

    Args:
        waveform: (S,) in [-1, 1].
        sample_rate: in Hz.

    Source: gating as in ITU-R BS.1770, on 20 ms frames, with the margin of ITU-T P.56.
    """
    power = _frame_power(waveform, sample_rate)
    loud = power[power > _power(ABSOLUTE_GATE_DB)]
    if loud.numel() == 0:
        return -math.inf
    speech = loud
    for _ in range(2):  # the first mean is still diluted by pauses that are not silent
        speech = loud[loud > speech.mean() * _power(RELATIVE_GATE_DB)]
    return 10 * math.log10(speech.mean().item())


def set_level(waveform: Tensor, sample_rate: int, level_db: float = -26.0) -> Tensor:
    """The waveform with its speech at `level_db` dBFS, or as near as a peak of 1.0 allows.

    Silence, which has no level, comes back as it is.

    Args:
        waveform: (S,) float32.
        sample_rate: in Hz.
        level_db: wanted RMS level of active speech, in dB of full scale.

    Returns:
        (S,) in [-1, 1].
    """
    active = active_level_db(waveform, sample_rate)
    gain = 1.0 if active == -math.inf else 10 ** ((level_db - active) / 20)
    peak = waveform.abs().max().item() if waveform.numel() else 0.0
    if peak * gain > 1.0:
        gain = 1.0 / peak
    return (waveform * gain).clamp(-1.0, 1.0)


def trim_silence(waveform: Tensor, sample_rate: int, keep_seconds: float = 0.1) -> Tensor:
    """The waveform without its outer silence; pauses inside stay.

    A frame is silent when it is less than 6 dB above the noise floor (the quietest tenth of the
    frames); that border is kept between 40 and 20 dB below the speech. A waveform without speech
    comes back whole.

    Args:
        waveform: (S,) float32.
        sample_rate: in Hz.
        keep_seconds: silence left on either side, which also holds weak first and last consonants.

    Returns:
        (S',), a slice of the waveform.
    """
    active = active_level_db(waveform, sample_rate)
    if active == -math.inf:
        return waveform
    power = _frame_power(waveform, sample_rate)
    noise = torch.quantile(power, 0.1).item() * _power(TRIM_ABOVE_NOISE_DB)
    low, high = (_power(active + margin) for margin in TRIM_RANGE_DB)
    voiced = torch.nonzero(power > min(max(noise, low), high)).flatten()
    frame = _frame_length(waveform, sample_rate)
    keep = round(keep_seconds * sample_rate)
    start = max(0, int(voiced[0]) * frame - keep)
    end = min(waveform.numel(), (int(voiced[-1]) + 1) * frame + keep)
    return waveform[start:end]


def reduce_noise(waveform: Tensor, sample_rate: int) -> Tensor:
    """The waveform with its steady noise, such as hiss or hum, lowered by up to 26 dB.

    At each frequency the quietest tenth of the frames tell how loud the noise is; what is above it
    stays. Clean speech hardly changes. A waveform shorter than one window comes back as it is.

    Args:
        waveform: (S,) float32, with pauses.
        sample_rate: in Hz.

    Source: spectral subtraction, Boll 1979, with the noise from minimum statistics, Martin 2001.
    """
    hop = round(NOISE_WINDOW_SECONDS * sample_rate) // 4
    if waveform.numel() < 4 * hop:
        return waveform
    window = torch.hann_window(4 * hop)
    spectrum = torch.stft(waveform, 4 * hop, hop, window=window, return_complex=True)  # (F, T)
    power = _mean_around(spectrum.abs().square(), 9)
    noise = NOISE_OVER_QUIETEST * power.quantile(NOISE_SHARE, dim=1, keepdim=True)  # (F, 1)
    gain = (1 - noise / power.clamp(min=1e-12)).clamp(min=0.0)
    gain = _mean_around(_mean_around(gain, 3).T, 3).T.clamp(min=LOWEST_GAIN)
    return torch.istft(spectrum * gain, 4 * hop, hop, window=window, length=waveform.numel())


def cross_fade(first: Tensor, second: Tensor, num_samples: int) -> Tensor:
    """`first` then `second`, overlapping by `num_samples` with weights that sum to one.

    Args:
        first: (S1,) float32.
        second: (S2,) float32.
        num_samples: length of the overlap; 0 joins them end to end.

    Returns:
        (S1 + S2 - num_samples,). A constant stays exactly constant.

    Raises:
        OptionError: the overlap is negative or longer than one of the two.
    """
    shorter = min(first.numel(), second.numel())
    if not 0 <= num_samples <= shorter:
        raise OptionError(
            f"A cross-fade of {num_samples} samples does not fit: allowed are 0 to {shorter}, "
            "the length of the shorter part."
        )
    if num_samples == 0:
        return torch.cat([first, second])
    position = (
        torch.arange(num_samples, dtype=first.dtype, device=first.device) + 0.5
    ) / num_samples
    weight = 0.5 - 0.5 * torch.cos(math.pi * position)  # raised cosine, 0 to 1
    tail, head = first[-num_samples:], second[:num_samples]
    return torch.cat([first[:-num_samples], torch.lerp(tail, head, weight), second[num_samples:]])


def _mean_around(values: Tensor, count: int) -> Tensor:
    """(R, C) means over `count` neighbours in a row; at the ends over those that there are."""
    padding = count // 2
    return F.avg_pool1d(values[None], count, 1, padding, count_include_pad=False)[0]


def _power(db: float) -> float:
    """Power of a level in dB."""
    return float(10 ** (db / 10))


def _frame_length(waveform: Tensor, sample_rate: int) -> int:
    return max(1, min(round(FRAME_SECONDS * sample_rate), waveform.numel()))


def _frame_power(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mean square of each whole 20 ms frame, (F,); a shorter waveform is one frame."""
    if waveform.numel() == 0:
        return waveform
    frame = _frame_length(waveform, sample_rate)
    frames = waveform[: waveform.numel() // frame * frame].view(-1, frame)  # (F, 20 ms)
    return frames.square().mean(dim=1)
