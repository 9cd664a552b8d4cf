"""The OpenAI-compatible server: `stepflow-tts serve`, extra [serve]."""
