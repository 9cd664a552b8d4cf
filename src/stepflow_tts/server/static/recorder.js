// A recording of the microphone, or a file that somebody has, as samples.

import { toInt16, wavOf } from "./wav.js";

const MAX_SECONDS = 60;
const MAX_FILE_BYTES = 100e6;

/** A WAV and how long it is. */
function clipOf(parts, sampleRate) {
  const numSamples = parts.reduce((sum, part) => sum + part.length, 0);
  return { wav: wavOf(parts.map(toInt16), sampleRate), seconds: numSamples / sampleRate };
}

export class Recorder {
  #context = null;
  #stream = null;
  #capture = null;
  #parts = [];

  /** Whether it records just now. */
  get isOn() {
    return this.#stream !== null;
  }

  /** Seconds recorded so far. */
  get seconds() {
    const numSamples = this.#parts.reduce((sum, part) => sum + part.length, 0);
    return numSamples ? numSamples / this.#context.sampleRate : 0;
  }

  /** Begin; `onBlock` is told the loudness of each block, from 0 to 1. Throws an Error in words. */
  async start(onBlock) {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers record only over https, or on localhost. Choose a file instead.");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false },
      });
    } catch (error) {
      throw new Error(inWords(error));
    }
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule("/static/capture.js");
    this.#capture = new AudioWorkletNode(this.#context, "capture", { numberOfOutputs: 0 });
    this.#capture.port.onmessage = ({ data }) => {
      this.#parts.push(data);
      onBlock(data.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0));
    };
    this.#context.createMediaStreamSource(this.#stream).connect(this.#capture);
  }

  /** End it; the clip. */
  stop() {
    const clip = clipOf(this.#parts, this.#context.sampleRate);
    this.cancel();
    return clip;
  }

  /** End it, and let go of the microphone. */
  cancel() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.#capture?.port.close();
    this.#capture = null;
    this.#context?.close();
    this.#context = null;
    this.#parts = [];
  }
}

/** Why there is no microphone. */
function inWords(error) {
  if (error.name === "NotAllowedError") {
    return "The browser may not use the microphone. Allow it beside the address, or choose a file.";
  }
  if (error.name === "NotFoundError") return "There is no microphone. Choose a file instead.";
  return `The microphone does not work (${error.message}). Choose a file instead.`;
}

/** The clip in a file of any kind that this browser can play. Throws an Error in words. */
export async function clipFromFile(file) {
  const { name } = file;
  if (file.size > MAX_FILE_BYTES) throw new Error(`${name} has more than 100 MB. Cut a few seconds out.`);
  const context = new OfflineAudioContext(1, 1, 48000);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${name} cannot be read as sound. Choose a WAV, MP3, FLAC, Ogg or M4A file.`);
  }
  if (buffer.duration > MAX_SECONDS) {
    const seconds = Math.round(buffer.duration);
    throw new Error(`${name} is ${seconds} s long; at most ${MAX_SECONDS} s are taken. Cut it.`);
  }
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((x, k) => (mono[k] += x / buffer.numberOfChannels));
  }
  return clipOf([mono], buffer.sampleRate);
}
