"""What is to be evaluated: texts and references to speak, or recordings that were made before."""

from dataclasses import dataclass
from pathlib import Path

from stepflow_tts.errors import OptionError

LIST_FILE = "list.tsv"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a list."""

    text: str | None  # what is said; None = not known
    reference: Path | None  # a recording of the voice; None = not known
    wav: Path | None = None  # what was made of it; None = to be spoken


def read_pairs(path: Path, limit: int | None = None) -> list[Utterance]:
    """The lines TEXT <tab> REFERENCE, at most `limit`; references are relative to the file.

    Raises:
        OptionError: the file cannot be read, is empty, or a line (whose number is told) is not of
            this form or names a reference that is not there.
    """
    utterances = []
    for number, fields in _lines(path):
        if len(fields) != 2 or not fields[0].strip():
            raise OptionError(
                f"{path}, line {number} has {len(fields)} fields; it must be TEXT <tab> REFERENCE."
            )
        reference = _file(path, number, fields[1])
        utterances.append(Utterance(fields[0], reference))
    return _some(utterances, path, limit)


def read_recordings(source: Path, limit: int | None = None) -> list[Utterance]:
    """Recordings made before, at most `limit`.

    Args:
        source: a list of lines WAV [<tab> TEXT [<tab> REFERENCE]], paths relative to it; a folder
            that holds such a list as list.tsv; or a folder of recordings NAME.wav, each with its
            text in NAME.txt where there is one.
        limit: None for all.

    Raises:
        OptionError: as for `read_pairs`.
    """
    if source.is_dir() and not (source / LIST_FILE).is_file():
        wavs = sorted(p for p in source.iterdir() if p.suffix.lower() in (".wav", ".flac"))
        return _some([Utterance(_text_beside(wav), None, wav) for wav in wavs], source, limit)
    path = source / LIST_FILE if source.is_dir() else source
    utterances = []
    for number, fields in _lines(path):
        if len(fields) > 3:
            raise OptionError(
                f"{path}, line {number} has {len(fields)} fields; it must be "
                "WAV [<tab> TEXT [<tab> REFERENCE]]."
            )
        wav, text, reference = [*fields, "", ""][:3]
        utterances.append(
            Utterance(
                text if text.strip() else None,
                _file(path, number, reference) if reference else None,
                _file(path, number, wav),
            )
        )
    return _some(utterances, path, limit)


def format_recordings(utterances: list[Utterance]) -> str:
    """The list of recordings that `read_recordings` reads, with absolute paths."""
    return "".join(
        "\t".join(str(field) for field in (u.wav and u.wav.resolve(), u.text, u.reference) if field)
        + "\n"
        for u in utterances
    )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and tab-separated fields of every line that is not empty."""
    try:
        # Not splitlines: a text may hold U+2028 and its like.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The list {path} cannot be read: {error}.") from error
    return [(i, line.rstrip("\r").split("\t")) for i, line in enumerate(lines, 1) if line.strip()]


def _file(path: Path, number: int, name: str) -> Path:
    """The file that a line of the list `path` names."""
    file = (path.parent / name).resolve()
    if not file.is_file():
        raise OptionError(f"{path}, line {number} names {name!r}, but there is no file {file}.")
    return file


def _text_beside(wav: Path) -> str | None:
    """What NAME.txt beside NAME.wav says."""
    path = wav.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The text {path} cannot be read: {error}.") from error


def _some(utterances: list[Utterance], source: Path, limit: int | None) -> list[Utterance]:
    if limit is not None and limit < 1:
        raise OptionError(f"The limit is {limit} utterances; it must be 1 or more.")
    if not utterances:
        raise OptionError(f"There is nothing to evaluate in {source}.")
    return utterances[:limit]
