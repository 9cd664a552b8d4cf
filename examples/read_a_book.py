"""Reads a book aloud, a FLAC file a chapter: python examples/read_a_book.py book.epub audiobook

Takes an EPUB, or a text file whose chapters begin with lines such as "Chapter 1". Stop it when you like: the
same command goes on at the paragraph where it stopped. For another voice take another folder.
"""

import argparse
import hashlib
import os
import posixpath
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import soundfile
from tqdm import tqdm  # huggingface_hub brings it

from stepflow_tts import StepFlowError, StepFlowTTS, TextError

PAUSE_SECONDS = 0.6  # after a paragraph
NUMBER = r"(\d+|[ivxlc]+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|the \w+)"
HEADING = re.compile(rf"(chapter|part|book) {NUMBER}\b.{{0,60}}|prologue|epilogue", re.IGNORECASE)
BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "tr", "br", "hr"}


class Chapter(NamedTuple):
    title: str
    paragraphs: list[str]


class Page(HTMLParser):
    """The paragraphs of a page, and its first heading."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.paragraphs: list[str] = []
        self._words: list[str] = []
        self._unread = 0  # how deep in what is not read
        self.feed(html)
        self.close()
        self._end_block("")

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        if tag in BLOCKS:
            self._end_block("")
        self._unread += tag in ("head", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        if tag in BLOCKS:
            self._end_block(tag)
        self._unread = max(0, self._unread - (tag in ("head", "script", "style")))

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._words.append(data)

    def _end_block(self, tag: str) -> None:
        text = " ".join("".join(self._words).split())
        self._words = []
        if text:
            self.paragraphs.append(text)
            if tag in ("h1", "h2", "h3") and not self.title:
                self.title = text


def epub_chapters(path: Path) -> Iterator[Chapter]:
    """Its pages in reading order, those without text left out."""
    with zipfile.ZipFile(path) as book:
        container = ElementTree.fromstring(book.read("META-INF/container.xml"))
        opf = container.find(".//{*}rootfile").attrib["full-path"]
        package = ElementTree.fromstring(book.read(opf))
        items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
        locked = "META-INF/encryption.xml"
        locked = book.read(locked).decode() if locked in book.namelist() else ""
        for reference in package.iterfind(".//{*}spine/{*}itemref"):
            item = items[reference.get("idref")]
            is_contents = "nav" in item.get("properties", "").split()
            if is_contents or reference.get("linear") == "no":
                continue
            name = posixpath.normpath(
                posixpath.join(posixpath.dirname(opf), unquote(item.get("href")))
            )
            if name in locked:
                sys.exit(f"{path} is protected against being read: {name} is encrypted.")
            page = Page(book.read(name).decode("utf-8-sig"))
            if page.paragraphs:
                yield Chapter(page.title or page.paragraphs[0][:60], page.paragraphs)


def text_chapters(path: Path) -> Iterator[Chapter]:
    """Parts between headings that stand alone; lines of a paragraph are joined."""
    blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig"))
    chapter = Chapter(path.stem, [])
    for block in filter(None, (" ".join(block.split()) for block in blocks)):
        if HEADING.fullmatch(block):
            if chapter.paragraphs:
                yield chapter
            chapter = Chapter(block, [])
        chapter.paragraphs.append(block)
    if chapter.paragraphs:
        yield chapter


def join(parts: list[Path], target: Path, title: str) -> None:
    """The target, whole or not at all."""
    rate = soundfile.info(parts[0]).samplerate
    temporary = target.with_name(f".{target.name}.tmp")
    with soundfile.SoundFile(temporary, "w", rate, channels=1, format="FLAC") as file:
        file.title = title
        for part in parts:
            file.write(soundfile.read(part, dtype="float32")[0])
            file.write(np.zeros(round(PAUSE_SECONDS * rate), dtype=np.float32))
    os.replace(temporary, target)
    for part in set(parts):
        part.unlink()


def read_aloud(tts: StepFlowTTS, chapters: list[Chapter], args: argparse.Namespace) -> None:
    """A file a chapter; paragraphs are kept in a folder of parts until theirs is whole."""
    folder = args.folder / ".parts"
    folder.mkdir(parents=True, exist_ok=True)
    settings = f"{args.model} {args.voice} {args.speed}"
    total = sum(len(text) for chapter in chapters for text in chapter.paragraphs)
    with tqdm(total=total, unit=" characters", unit_scale=True) as bar:
        for number, (title, paragraphs) in enumerate(chapters, start=1):
            name = re.sub(r"[^\w ,.'-]", "", title).strip(" .")[:60]
            target = args.folder / f"{number:02d} {name}.flac"
            bar.set_description(title[:20])
            parts = []
            for text in paragraphs if not target.exists() else ():
                key = hashlib.sha256(f"{settings} {text}".encode()).hexdigest()
                part = folder / f"{key[:20]}.flac"
                try:
                    if not part.exists():
                        tts.synthesize(text, args.voice, speed=args.speed).save(part)
                    parts.append(part)
                except TextError as error:
                    bar.write(f"{title[:20]}: left out. {error}", file=sys.stderr)
                bar.update(len(text))
            if target.exists():
                bar.update(sum(map(len, paragraphs)))
            elif parts:
                join(parts, target, title)
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads a book aloud, a FLAC file a chapter.")
    parser.add_argument("book", type=Path, help="an .epub or a text file")
    parser.add_argument("folder", type=Path, help="for the chapters")
    parser.add_argument("--voice", help="a name, a .safetensors file or a recording")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--model", help="a folder or a Hub id instead of the bundled one")
    args = parser.parse_args()
    is_epub = zipfile.is_zipfile(args.book)
    chapters = list(epub_chapters(args.book) if is_epub else text_chapters(args.book))
    try:
        read_aloud(StepFlowTTS.from_pretrained(args.model), chapters, args)
    except StepFlowError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
