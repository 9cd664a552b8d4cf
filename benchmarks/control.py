"""What `speed` does: how much shorter speech becomes, and whether its pitch stays.

    python benchmarks/control.py [--texts 20] [--speeds 0.5 0.75 1.5 2.0] [--whisper base]

Each text is spoken at speed 1 and at each of --speeds by the same voice with the same seed. Pitch is compared
sound by sound, so that it does not matter of which sounds there is more: the median of a sound's voiced frames
against that of the same sound at speed 1. With --whisper, the word error rate at each speed.
"""

import statistics
from math import isfinite

import numpy as np
import torch
from measuring import fewest_errors, for_ears, options, parse, record

from stepflow_tts import Speech, StepFlowTTS
from stepflow_tts.config import MelConfig
from stepflow_tts.evaluation.wer import Errors, Recognizer
from stepflow_tts.training.pitch import track_pitch

SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background, and then wait for an hour.",
    "It is easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish, or so they say in the city.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
)


def pitches_of(speech: Speech, mel: MelConfig) -> list[float]:
    """Hz of each phoneme; NaN where it has no voiced frame."""
    pitch = track_pitch(torch.from_numpy(np.array(speech.samples)), mel)
    hz = torch.where(pitch.voiced > 0.5, pitch.f0, torch.nan)[0]  # (T,)
    edges = [
        (round(p.start_seconds * mel.frame_rate), round(p.end_seconds * mel.frame_rate))
        for p in speech.phonemes
    ]
    return [hz[start : max(end, start + 1)].nanmedian().item() for start, end in edges]


def spoken_seconds(speech: Speech) -> float:
    """From the first sound's begin to the last one's end."""
    return speech.phonemes[-1].end_seconds - speech.phonemes[0].start_seconds


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--speeds", type=float, nargs="+", default=[0.5, 0.75, 1.5, 2.0])
    parser.add_argument("--whisper", metavar="MODEL", help="size, folder or Hub id")
    args = parse(parser)
    tts = StepFlowTTS.from_pretrained(args.model)
    mel = tts.config.mel
    recognize = None if args.whisper is None else Recognizer(args.whisper)
    voices = list(tts.voices)
    result: dict[str, object] = {"texts": args.texts}
    normal: list[tuple[float, list[float]]] = []
    for speed in [1.0, *args.speeds]:
        lengths: list[float] = []
        changes: dict[str, list[float]] = {voice: [] for voice in voices}  # percent
        errors: list[Errors] = []
        for i in range(args.texts):
            text, voice = SENTENCES[i % len(SENTENCES)], voices[i % len(voices)]
            speech = tts.synthesize(text, voice, speed=speed)
            if speed == 1.0:
                normal.append((spoken_seconds(speech), pitches_of(speech, mel)))
            seconds, hz = normal[i]
            lengths.append(spoken_seconds(speech) * speed / seconds)
            pairs = zip(pitches_of(speech, mel), hz, strict=True)
            changes[voice] += [100 * (a / b - 1) for a, b in pairs if isfinite(a / b)]
            if recognize is not None:
                errors.append(fewest_errors([text], recognize(for_ears(speech))))
        pooled = [change for of in changes.values() for change in of]
        found = {
            # 1.0 = exactly as much shorter as was asked
            "length_median": round(statistics.median(lengths), 4),
            "length_range": [round(min(lengths), 4), round(max(lengths), 4)],
            "sounds_with_pitch": len(pooled),
            "pitch_change_percent": round(statistics.median(pooled), 2),
            "pitch_change_percent_by_voice": {
                voice: round(statistics.median(of), 2) for voice, of in changes.items() if of
            },
        }
        if errors:
            words = sum(e.words for e in errors)
            found["wer_percent"] = round(100 * sum(e.word_errors for e in errors) / words, 2)
        result[f"speed_{speed:g}"] = found
    record("control", result)


if __name__ == "__main__":
    main()
