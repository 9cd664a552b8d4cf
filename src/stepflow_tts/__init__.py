"""Zero-shot text to speech in one network evaluation."""
