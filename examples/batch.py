"""Every line of a text to a file of its own: python examples/batch.py lines.txt folder

The same line, voice and seed always give the same samples, so a run that was cut off can be repeated.
"""

import sys
from pathlib import Path

from stepflow_tts import StepFlowTTS, TextError

lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
tts = StepFlowTTS.from_pretrained()
for number, line in enumerate(lines, start=1):
    path = folder / f"{number:04d}.wav"
    if path.exists():
        continue
    try:
        tts.synthesize(line).save(path)
    except TextError as error:  # an empty line, or one without words
        print(f"line {number}: {error}", file=sys.stderr)
