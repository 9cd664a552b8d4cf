"""Speaks a language model's answer while it is being written.

    llm "Tell me a story." | python examples/llm_to_speech.py answer.wav

Reads any program's output, as it comes. With an API pass the iterator of its pieces of text to
`tts.stream` instead. A sentence is spoken as soon as no later text can change it.
"""

import sys
import time

import soundfile

from stepflow_tts import StepFlowTTS

tts = StepFlowTTS.from_pretrained()
tts.synthesize("Ready.")  # the first call is slower: let it not be the one that is waited for
pieces_of_text = iter(lambda: sys.stdin.read(1), "")
start = time.perf_counter()
with soundfile.SoundFile(sys.argv[1], "w", samplerate=tts.sample_rate, channels=1) as file:
    for speech in tts.stream(pieces_of_text):
        file.write(speech.samples)  # or to a sound card, a socket, a telephone
        print(f"after {time.perf_counter() - start:.2f} s: {speech.text}")
