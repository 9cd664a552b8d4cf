"""What `speed` does: how much shorter speech becomes, and whether its pitch stays.

    python benchmarks/control.py [--texts 20] [--speeds 0.5 0.75 1.5 2.0] [--whisper base]

Each text is spoken at speed 1 and at each of --speeds by the same voice with the same seed. Pitch is the median
of the voiced frames. With --whisper, the word error rate at each speed.
"""

import statistics

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


def median_hz(speech: Speech, mel: MelConfig) -> float:
    """Of the voiced frames."""
    pitch = track_pitch(torch.from_numpy(np.array(speech.samples)), mel)
    return float(pitch.f0[pitch.voiced > 0.5].median())


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
    normal: list[tuple[float, float]] = []
    for speed in [1.0, *args.speeds]:
        lengths: list[float] = []
        pitches: list[float] = []
        errors: list[Errors] = []
        for i in range(args.texts):
            text = SENTENCES[i % len(SENTENCES)]
            speech = tts.synthesize(text, voices[i % len(voices)], speed=speed)
            if speed == 1.0:
                normal.append((spoken_seconds(speech), median_hz(speech, mel)))
            seconds, hz = normal[i]
            lengths.append(spoken_seconds(speech) * speed / seconds)
            pitches.append(100 * (median_hz(speech, mel) / hz - 1))
            if recognize is not None:
                errors.append(fewest_errors([text], recognize(for_ears(speech))))
        largest = max(pitches, key=abs)
        found = {
            # 1.0 = exactly as much shorter as was asked
            "length_median": round(statistics.median(lengths), 4),
            "length_range": [round(min(lengths), 4), round(max(lengths), 4)],
            "pitch_change_percent_median": round(statistics.median(pitches), 2),
            "pitch_change_percent_median_size": round(statistics.median(map(abs, pitches)), 2),
            "pitch_change_percent_largest": round(largest, 2),
        }
        if errors:
            words = sum(e.words for e in errors)
            found["wer_percent"] = round(100 * sum(e.word_errors for e in errors) / words, 2)
        result[f"speed_{speed:g}"] = found
    record("control", result)


if __name__ == "__main__":
    main()
