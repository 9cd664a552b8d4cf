"""Copy synthesis: recordings to mels and back, and how far the mels of the result are from theirs.

    python benchmarks/copy_synthesis.py CHECKPOINT OUT_FOLDER WAV [WAV ...] [--iterations 0 1 2 4]

CHECKPOINT is a checkpoint folder (config.json, vocoder.safetensors), a training state
(state.safetensors, read with the vocoder's default sizes), the folder of a Vocos checkpoint (config.yaml,
pytorch_model.bin), or "griffin-lim". OUT_FOLDER/<iterations>/<name>.wav can then be scored by any scorer;
OUT_FOLDER/recording/<name>.wav is what went in, at 24 kHz and the same level.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from stepflow_tts.audio.effects import resample, set_level
from stepflow_tts.audio.griffin_lim import griffin_lim
from stepflow_tts.audio.io import load_audio
from stepflow_tts.audio.mel import band_centres, log_mel
from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.hub import load_checkpoint
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.models.vocos_checkpoint import load_vocos
from stepflow_tts.training.checkpoint import load_weights

Decoder = Callable[[Tensor], Tensor]


def load(path: Path) -> Vocoder:
    """The vocoder at `path`, whichever of the three kinds it is."""
    if path.is_file():
        vocoder = Vocoder(VocoderConfig(), MelConfig())
        vocoder.load_state_dict(load_weights(path))
        return vocoder.eval()
    if (path / "config.yaml").exists():
        return load_vocos(path / "config.yaml", path / "pytorch_model.bin")
    found = load_checkpoint(path).vocoder
    if found is None:
        raise SystemExit(f"{path} has no vocoder.")
    return found.eval()


def with_iterations(vocoder: Vocoder, iterations: int) -> Decoder:
    """`vocoder.decode` with another number of Griffin-Lim rounds."""
    vocoder.config = dataclasses.replace(vocoder.config, griffin_lim_iterations=iterations)
    return vocoder.decode


def band_errors(decoded: Tensor, recording: Tensor, mel: MelConfig) -> tuple[float, float]:
    """Mean absolute log-mel error in nats, of all bands and of those above 8 kHz."""
    floor = 1e-3  # below is inaudible, and in digital silence the logarithm counts nothing else
    a, b = (
        log_mel(x[None], mel).clamp(min=torch.log(torch.tensor(floor)))
        for x in (decoded, recording)
    )
    error = (a - b).abs().mean(dim=(0, 1))  # (M,)
    return error.mean().item(), error[band_centres(mel) > 8000].mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("wavs", nargs="+", type=Path)
    parser.add_argument("--iterations", nargs="+", type=int, default=[0, 1, 2, 4])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vocoder = None if arguments.checkpoint == "griffin-lim" else load(Path(arguments.checkpoint))
    mel = MelConfig() if vocoder is None else vocoder.mel
    recordings = {}
    for path in arguments.wavs:
        waveform, rate = load_audio(path)
        waveform = set_level(resample(waveform, rate, mel.sample_rate), mel.sample_rate)
        recordings[path.stem] = waveform[: len(waveform) // mel.hop_length * mel.hop_length]
    write(arguments.out / "recording", recordings, mel)
    for iterations in arguments.iterations:
        decode: Decoder
        if vocoder is None:
            decode = lambda features, n=iterations: griffin_lim(features, mel, n)  # noqa: E731
        else:
            decode = with_iterations(vocoder, iterations)
        decoded, everything, top, rtf = {}, [], [], []
        for name, recording in recordings.items():
            features = log_mel(recording[None], mel)
            start = time.perf_counter()
            decoded[name] = decode(features)[0]
            rtf.append((time.perf_counter() - start) * mel.sample_rate / len(recording))
            errors = band_errors(decoded[name], recording, mel)
            everything.append(errors[0])
            top.append(errors[1])
        write(arguments.out / str(iterations), decoded, mel)
        print(
            f"{iterations} iterations: log-mel error {statistics.mean(everything):.3f} nats, above 8 kHz "
            f"{statistics.mean(top):.3f}, rtf {statistics.median(rtf):.4f}, {len(decoded)} recordings"
        )


def write(folder: Path, waveforms: dict[str, Tensor], mel: MelConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, waveform in waveforms.items():
        soundfile.write(folder / f"{name}.wav", waveform.clamp(-1, 1).numpy(), mel.sample_rate)


if __name__ == "__main__":
    main()
