// Runs in the audio thread: hands every block of the microphone's samples to the page.

registerProcessor(
  "capture",
  class extends AudioWorkletProcessor {
    process([input]) {
      if (input.length) this.port.postMessage(input[0].slice());
      return true;
    }
  },
);
