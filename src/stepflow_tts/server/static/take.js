// One thing that was said: its samples as they come, its words, and what it took.

import { wavOf } from "./wav.js";

const PEAKS_PER_SECOND = 100;

export class Take {
  /** Of `request`, the fields that were sent; `voice` is the name to show. */
  constructor(request, voice) {
    this.request = request;
    this.voice = voice;
    this.askedAt = performance.now();
    this.firstSeconds = null; // from the request to the first samples, as the page saw it
    this.pieces = []; // Int16Array each
    this.starts = []; // of the pieces, in samples
    this.numSamples = 0;
    this.sampleRate = 0;
    this.words = [];
    this.synthesisSeconds = 0;
    this.peaks = [];
    this.srt = null;
    this.isOver = false; // nothing more will come, be it complete or not
  }

  /** Take in an event of the stream. */
  add(event) {
    if (event.srt !== undefined) {
      this.srt = event.srt;
      return;
    }
    this.firstSeconds ??= (performance.now() - this.askedAt) / 1000;
    this.sampleRate = event.sample_rate;
    this.synthesisSeconds += event.synthesis_seconds;
    this.words.push(...event.words);
    if (event.samples.length === 0) return;
    this.pieces.push(event.samples);
    this.starts.push(this.numSamples);
    this.numSamples += event.samples.length;
    this.#measure(event.samples);
  }

  /** Whether all of it is here. */
  get isComplete() {
    return this.srt !== null;
  }

  /** Seconds of speech so far. */
  get duration() {
    return this.numSamples ? this.numSamples / this.sampleRate : 0;
  }

  /** Seconds of computing for a second of speech, as the server counted them. */
  get rtf() {
    return this.synthesisSeconds / this.duration;
  }

  /** All of it as a file. */
  toWav() {
    return wavOf(this.pieces, this.sampleRate);
  }

  /** Keep the loudest sample of each hundredth of a second, in [0, 1]. */
  #measure(samples) {
    const step = this.sampleRate / PEAKS_PER_SECOND;
    for (let start = 0; start < samples.length; start += step) {
      let peak = 0;
      for (const x of samples.subarray(start, start + step)) peak = Math.max(peak, Math.abs(x));
      this.peaks.push(peak / 32768);
    }
  }
}
