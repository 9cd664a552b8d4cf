"""Whether a long text stays as it began: loudness, voice and words, and the memory that it takes.

    python benchmarks/long_text.py --text PROSE.txt [--minutes 10] [--paragraph 5] [--whisper base]

PROSE.txt has one paragraph a line, or, with --paragraph N, one sentence a line, N of which make a paragraph.
Of every minute: its loudness (BS.1770), the cosine of its speaker embedding to the voice (whose log-mel
becomes sound by Griffin-Lim) and to the first minute. The word error rate of the stream is taken piece by
piece, and again with each piece's text in a call of its own. Memory: the peak of a fresh process that streams
and keeps nothing, for each of --memory-minutes.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchaudio
from measuring import fewest_errors, for_ears, options, parse, peak_memory_mb, record

from stepflow_tts import Speech, StepFlowTTS, Voice
from stepflow_tts.audio.griffin_lim import griffin_lim
from stepflow_tts.evaluation.intervals import Pair, difference, ratio_of_sums
from stepflow_tts.evaluation.scoring import cosine
from stepflow_tts.evaluation.similarity import SpeakerEncoder
from stepflow_tts.evaluation.wer import Errors, Recognizer

CHARACTERS_A_MINUTE = 1200  # more than anyone says


def prose(path: Path, paragraph: int, minutes: float) -> str:
    """Enough of the file for some minutes, its paragraphs with a blank line between."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    paragraphs = [" ".join(lines[i : i + paragraph]) for i in range(0, len(lines), paragraph)]
    text = "\n\n".join(paragraphs)
    wanted = round(minutes * CHARACTERS_A_MINUTE)
    if len(text) < wanted:
        raise SystemExit(
            f"{path} has {len(text)} characters; {minutes:g} minutes take up to {wanted}."
        )
    return text[: text.index("\n", wanted)] if "\n" in text[wanted:] else text


def pieces_of(tts: StepFlowTTS, text: str, voice: str, minutes: float) -> Iterator[Speech]:
    """The stream until it has lasted that long."""
    seconds = 0.0
    for piece in tts.stream(text, voice):
        yield piece
        seconds += piece.duration_seconds
        if seconds >= 60 * minutes:
            return


def peak_of(model: str | None, text: str, voice: str, minutes: float, threads: int) -> float:
    """MB at most while a process streams and keeps nothing."""
    torch.set_num_threads(threads)
    tts = StepFlowTTS.from_pretrained(model)
    for _ in pieces_of(tts, text, voice, minutes):
        pass
    return peak_memory_mb()


def minutes_of(samples: np.ndarray, rate: int, voice: Voice) -> list[dict[str, float]]:
    """Loudness and voice of every whole minute of (S,) samples."""
    encoder = SpeakerEncoder()

    def embedding(part: np.ndarray) -> np.ndarray:
        return encoder(for_ears(Speech(part, rate, 0)))

    target = embedding(griffin_lim(voice.log_mel[None], voice.mel)[0].numpy())
    found: list[dict[str, float]] = []
    first: np.ndarray | None = None
    for start in range(0, len(samples) - 60 * rate + 1, 60 * rate):
        part = samples[start : start + 60 * rate]
        here = embedding(part)
        first = here if first is None else first
        lufs = torchaudio.functional.loudness(torch.from_numpy(part)[None], rate)
        found.append(
            {
                "lufs": round(lufs.item(), 2),
                "sim": round(cosine(target, here), 4),
                "sim_to_first": round(cosine(first, here), 4),
            }
        )
    return found


def rates(errors: list[Errors]) -> dict[str, float]:
    """Percent of the words."""
    words = sum(e.words for e in errors)
    return {
        "words": words,
        "wer_percent": round(100 * sum(e.word_errors for e in errors) / words, 2),
        "deletions_per_1000": round(1000 * sum(e.deletions for e in errors) / words, 1),
        "insertions_per_1000": round(1000 * sum(e.insertions for e in errors) / words, 1),
    }


def percent_pair(errors: list[Errors]) -> Pair:
    """Errors in percent and words, piece by piece."""
    wrong = np.array([100.0 * e.word_errors for e in errors])
    return Pair(wrong, np.array([float(e.words) for e in errors]))


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("--text", type=Path, required=True, metavar="PROSE.txt")
    parser.add_argument("--paragraph", type=int, default=1, metavar="LINES")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--memory-minutes", type=float, nargs="*", default=[2, 10])
    parser.add_argument("--voice", default="emma", help="of the checkpoint")
    parser.add_argument("--whisper", default="base", help="size, folder or Hub id")
    args = parse(parser)
    tts = StepFlowTTS.from_pretrained(args.model)
    text = prose(args.text, args.paragraph, args.minutes)
    pieces = list(pieces_of(tts, text, args.voice, args.minutes))
    samples = np.concatenate([piece.samples for piece in pieces])
    minutes = minutes_of(samples, tts.sample_rate, tts.voices[args.voice])
    recognize = Recognizer(args.whisper)
    together = [fewest_errors([p.text], recognize(for_ears(p))) for p in pieces]
    alone = [
        fewest_errors([p.text], recognize(for_ears(tts.synthesize(p.text, args.voice))))
        for p in pieces
    ]
    peaks = {}
    for length in args.memory_minutes:
        call = (args.model, prose(args.text, args.paragraph, length), args.voice, length)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            peaks[f"{length:g}_minutes"] = round(
                pool.submit(peak_of, *call, torch.get_num_threads()).result(), 1
            )
    record(
        "long_text",
        {
            "voice": args.voice,
            "pieces": len(pieces),
            "minutes": minutes,
            "furthest_lu": spread(minutes, "lufs"),
            "furthest_sim": spread(minutes, "sim"),
            "stream": rates(together),
            "each_alone": rates(alone),
            "wer_points_more": difference(
                ratio_of_sums, percent_pair(together), percent_pair(alone)
            )._asdict(),
            "peak_memory_mb": peaks,
        },
    )


def spread(minutes: list[dict[str, float]], name: str) -> float:
    """How far the furthest minute is from the first."""
    values = [minute[name] for minute in minutes]
    return round(max((abs(value - values[0]) for value in values), default=0.0), 4)


if __name__ == "__main__":
    main()
