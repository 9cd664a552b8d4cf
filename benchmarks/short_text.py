"""Very short texts, and repeated words, digits and spelled letters: what a recognizer hears in them.

    python benchmarks/short_text.py [--whisper base] [--limit N] [--keep FOLDER]
    python benchmarks/short_text.py --wavs FOLDER     # another system's: short_000.wav, repeated_000.wav ...

short_texts.tsv: TEXT [<tab> other spellings of the same sound, with | between]; word error rate against the
nearest spelling. repeated_texts.tsv: TEXT; digits, and where all is spelled, letters, are counted one by one
however they are written ("444", "A-B-C", "see"). What repeats is hard for a recognizer too: --wavs shows how
hard. Each text has one of the checkpoint's voices, in turn.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import soundfile
from measuring import fewest_errors, for_ears, options, parse, record, units

from stepflow_tts import Speech, StepFlowTTS
from stepflow_tts.evaluation.wer import Errors, Recognizer, count_errors

FOLDER = Path(__file__).parent
Source = Callable[[str, str], Speech]  # name of the recording and text


def read(name: str) -> list[list[str]]:
    """Each text with its other spellings."""
    lines = (FOLDER / f"{name}_texts.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.partition("\t") for line in lines]
    return [
        [text, *(spelling for spelling in more.split("|") if spelling)] for text, _, more in rows
    ]


def errors_of(name: str, accepted: list[str], heard: str) -> Errors:
    """By the rules of the list."""
    if name == "short":
        return fewest_errors(accepted, heard)
    (text,) = accepted
    words = text.replace(",", " ").replace(".", " ").split()
    letters = all(len(word) == 1 and word.isalpha() for word in words)
    return count_errors(units(text, letters=letters), units(heard, letters=letters))


def measure(
    name: str, rows: list[tuple[int, list[str]]], speak: Source, recognize: Recognizer
) -> dict[str, object]:
    """How much of a list is heard, and what is not."""
    wrong: list[dict[str, object]] = []
    errors: list[Errors] = []
    for i, accepted in rows:
        speech = speak(f"{name}_{i:03d}", accepted[0])
        heard = recognize(for_ears(speech))
        errors.append(errors_of(name, accepted, heard))
        if errors[-1].word_errors:
            seconds = round(speech.duration_seconds, 2)
            wrong.append({"number": i, "text": accepted[0], "heard": heard, "seconds": seconds})
    hundred = sum(e.words for e in errors) / 100
    return {
        "texts": len(rows),
        "words": sum(e.words for e in errors),
        "wer_percent": round(sum(e.word_errors for e in errors) / hundred, 2),
        "deletions_per_100": round(sum(e.deletions for e in errors) / hundred, 2),
        "insertions_per_100": round(sum(e.insertions for e in errors) / hundred, 2),
        "texts_wrong": len(wrong),
        "wrong": wrong,
    }


def recordings(folder: Path) -> Source:
    """Reads what another system made."""

    def read_wav(name: str, _text: str) -> Speech:
        samples, rate = soundfile.read(folder / f"{name}.wav", dtype="float32")
        return Speech(samples, rate, 0)

    return read_wav


def speaker(args: argparse.Namespace) -> Source:
    """Speaks with the voices of the checkpoint in turn."""
    tts = StepFlowTTS.from_pretrained(args.model)
    voices = list(tts.voices)

    def speak(name: str, text: str) -> Speech:
        voice = voices[int(name.rpartition("_")[2]) % len(voices)]
        speech = tts.synthesize(text, voice, num_steps=args.steps, speed=args.speed)
        if args.keep is not None:
            speech.save(args.keep / f"{name}.wav")
        return speech

    return speak


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("--whisper", default="base", help="size, folder or Hub id")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--limit", type=int, help="of texts, spread over each list")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the recordings")
    parser.add_argument("--wavs", type=Path, metavar="FOLDER", help="score these instead")
    args = parse(parser)
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
    speak = speaker(args) if args.wavs is None else recordings(args.wavs)
    recognize = Recognizer(args.whisper)
    result: dict[str, object] = {"steps": args.steps, "speed": args.speed}
    for name in ("short", "repeated"):
        rows = list(enumerate(read(name)))
        step = 1 if args.limit is None else max(1, len(rows) // args.limit)
        result[name] = measure(name, rows[::step], speak, recognize)
    record("short_text" if args.wavs is None else f"short_text_{args.wavs.name}", result)


if __name__ == "__main__":
    main()
