"""From written text to token ids: normalize, split, phonemize, tokenize."""
