"""Decode an upload in a process of its own: `python -m stepflow_tts.server.decode`.

Reads an audio file from standard input and writes one line of JSON: {"sample_rate": ...} and then
mono float32 samples, or {"error": ...}. Its time and memory are limited and it can open no other
file, so that a file which unfolds to hours or breaks the decoder harms nothing but itself. It imports
neither torch nor anything of the server.
"""

import io
import json
import sys

import numpy as np
import soundfile

MAX_SECONDS = 60.0
MAX_CHANNELS = 8
SAMPLE_RATES = (8_000, 96_000)
BLOCK_SECONDS = 1.0
CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30


def limit_resources() -> None:
    """Bound this process's time and memory, and let it write no file and start no process."""
    import resource  # POSIX only; imported here, so that the module can be imported anywhere

    limits = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 8,
        resource.RLIMIT_NPROC: 0,
    }
    if sys.platform != "darwin":  # which knows the limit but does not take it
        limits[resource.RLIMIT_AS] = MEMORY_BYTES
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))


def decode(data: bytes) -> tuple[dict[str, object], bytes]:
    """The head that tells the sample rate or what is wrong, and mono samples."""
    low, high = SAMPLE_RATES
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, channels = file.samplerate, file.channels
            if not low <= rate <= high:
                return {"error": f"has {rate} Hz; {low} to {high} Hz are taken."}, b""
            if channels > MAX_CHANNELS:
                return {"error": f"has {channels} channels; at most {MAX_CHANNELS} are taken."}, b""
            blocks: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
            size, length = round(BLOCK_SECONDS * rate), 0
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                length += len(block)
                if length > MAX_SECONDS * rate:
                    return {"error": f"is longer than {MAX_SECONDS:.0f} s. Cut it."}, b""
                blocks.append(block.mean(axis=1))
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError, OverflowError):
        return {"error": "cannot be decoded. Send WAV, FLAC, Ogg, Opus or MP3."}, b""
    if not blocks:
        return {"error": "holds no samples."}, b""
    return {"sample_rate": rate}, np.concatenate(blocks).tobytes()


def main() -> None:
    """Serve one file."""
    data = sys.stdin.buffer.read()
    limit_resources()
    head, samples = decode(data)
    sys.stdout.buffer.write(json.dumps(head).encode("ascii") + b"\n" + samples)


if __name__ == "__main__":
    main()
