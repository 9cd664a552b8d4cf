"""Speech with subtitles that fit it: python examples/subtitles.py text.txt speech.mp3

Writes speech.mp3, speech.srt and speech.vtt; players show the subtitles that lie beside a film or sound.
"""

import sys
from pathlib import Path

from stepflow_tts import StepFlowTTS

text = Path(sys.argv[1]).read_text(encoding="utf-8")
speech = StepFlowTTS.from_pretrained().synthesize(text)
path = speech.save(sys.argv[2])
path.with_suffix(".srt").write_text(speech.to_srt(), encoding="utf-8")
path.with_suffix(".vtt").write_text(speech.to_vtt(), encoding="utf-8")
for word in speech.words:
    print(f"{word.start_seconds:7.2f} s  {word.text}")
