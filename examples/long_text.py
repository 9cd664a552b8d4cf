"""A text of any length to one file: python examples/long_text.py chapter.txt chapter.mp3"""

import sys
import time
from pathlib import Path

from stepflow_tts import StepFlowTTS

text = Path(sys.argv[1]).read_text(encoding="utf-8")
tts = StepFlowTTS.from_pretrained()
start = time.perf_counter()
speech = tts.synthesize(text)
seconds = time.perf_counter() - start
path = speech.save(sys.argv[2])
print(f"{path}: {speech.duration_seconds:.1f} s of speech in {seconds:.1f} s")
