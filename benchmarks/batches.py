"""How much faster a batch is than call after call: python benchmarks/batches.py [--voice NAME] [--texts 32]

Both ways speak the same sentences in one process, in turn, three times; the smallest times are compared.
"""

import time

from measuring import options, parse, record

from stepflow_tts import Speech, StepFlowTTS

SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background, and then wait for an hour.",
    "It is easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish, or so they say in the city.",
)


def main(model: str | None, voice: str, count: int) -> None:
    """Measure, print and write down."""
    tts = StepFlowTTS.from_pretrained(model)
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(count)]
    single: list[float] = []
    batch: list[float] = []
    spoken = 0.0
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        alone = [tts.synthesize(text, voice) for text in texts]
        single.append(time.perf_counter() - start)
        start = time.perf_counter()
        together = tts.synthesize_batch(texts, voice)
        batch.append(time.perf_counter() - start)
        for a, b in zip(alone, together, strict=True):
            assert isinstance(b, Speech)
            assert len(a.samples) == len(b.samples)
        spoken = sum(speech.duration_seconds for speech in alone)
    best = (min(single[1:]), min(batch[1:]))
    record(
        "batches",
        {
            "texts": count,
            "device": str(tts.device),
            "single_rtf": round(best[0] / spoken, 4),
            "batch_rtf": round(best[1] / spoken, 4),
            "times_as_fast": round(best[0] / best[1], 3),
        },
    )


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--voice", default="emma")
    parser.add_argument("--texts", type=int, default=32)
    arguments = parse(parser)
    main(arguments.model, arguments.voice, arguments.texts)
