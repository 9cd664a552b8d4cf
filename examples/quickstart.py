"""One sentence in the default voice, into quickstart.wav: python examples/quickstart.py"""

from stepflow_tts import StepFlowTTS

tts = StepFlowTTS.from_pretrained()
speech = tts.synthesize("Hello there. This sentence was made in a single step.")
path = speech.save("quickstart.wav")
print(f"{path}: {speech.duration_seconds:.2f} s")
