"""How long after a call the first sound is there, on otherwise idle cores.

    python benchmarks/first_audio.py [--rounds 5] [--threads 2]

Each text is streamed in turn, after one round to warm up, with a voice that is in memory. Time runs from the call of
`stream` to its first piece; `rtf` is the time of the whole stream over its length.
"""

import time

import numpy as np
from measuring import options, parse, record

from stepflow_tts import StepFlowTTS

REST = (
    " The road went on through the hills for most of the day. At noon they stopped to eat, and the"
    " younger of the two asked how far it was. Nobody knew."
)
TEXTS = {
    "one_word": "Hello.",
    "short_sentence": "It is easy to tell the depth of a well.",
    "short_first_sentence": "It is easy to tell the depth of a well." + REST,
    "long_first_sentence": (
        "These days a chicken leg is a rare dish, or so they say in the city, where the people who"
        " remember how it used to be are few, and fewer every year." + REST
    ),
    "no_comma_in_long_first_sentence": (
        "The people who remember how the old market used to look on the morning of a holiday are"
        " few in number and live far away from the city now." + REST
    ),
}


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--voice", default=None, help="of the checkpoint, or a recording")
    args = parse(parser)
    tts = StepFlowTTS.from_pretrained(args.model)
    voice = tts.voices.get(args.voice or next(iter(tts.voices))) or tts.encode_voice(args.voice)
    first: dict[str, list[float]] = {name: [] for name in TEXTS}
    rtf: dict[str, list[float]] = {name: [] for name in TEXTS}
    seconds: dict[str, float] = {}
    for turn in range(args.rounds + 1):
        for name, text in TEXTS.items():
            start = time.perf_counter()
            stream = tts.stream(text, voice)
            piece = next(stream)
            sounded = time.perf_counter()
            length = piece.duration_seconds + sum(p.duration_seconds for p in stream)
            ended = time.perf_counter()
            seconds[name] = piece.duration_seconds
            if turn:  # the first warms up
                first[name].append(sounded - start)
                rtf[name].append((ended - start) / length)
    record(
        "first_audio",
        {
            name: {
                "first_audio_ms_median": round(1000 * float(np.median(first[name]))),
                "first_audio_ms_p90": round(1000 * float(np.percentile(first[name], 90))),
                "first_piece_seconds": round(seconds[name], 2),
                "rtf_median": round(float(np.median(rtf[name])), 4),
            }
            for name in TEXTS
        },
    )


if __name__ == "__main__":
    main()
