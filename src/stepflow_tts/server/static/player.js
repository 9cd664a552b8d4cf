// Plays a take through Web Audio, from its first piece on, while others are still on their way.

const LEAD_SECONDS = 0.03; // between asking for sound and its beginning
const FULL_SCALE = 32768;

/** Its `change` event tells that `state` is another: "empty", "playing", "paused" or "ended". */
export class Player extends EventTarget {
  #context = null;
  #take = null;
  #sources = new Set();
  #next = 0; // the piece to schedule next
  #from = 0; // where in the take playing began, in seconds
  #origin = 0; // the context's time at which the take began, or would have
  state = "empty";

  /** Call this in a click or a key's press, without which browsers stay silent. */
  open(sampleRate = 24000) {
    if (this.#context?.sampleRate !== sampleRate) {
      this.#context?.close();
      // At the take's rate: pieces resampled one by one would click where they meet.
      this.#context = new AudioContext({ sampleRate });
    }
    this.#context.resume();
  }

  /** Play another take from its beginning, as far as it is there. */
  load(take) {
    this.#take = take;
    this.#from = 0;
    if (take.numSamples) this.seek(0);
    else this.#silence();
    this.#become("playing");
  }

  /** Have nothing to play. */
  unload() {
    this.#silence();
    this.#take = null;
    this.#become("empty");
  }

  /** There is more of the take, or it is over. */
  feed() {
    if (this.#take.sampleRate !== this.#context.sampleRate && this.#take.numSamples) {
      this.open(this.#take.sampleRate);
    }
    this.#schedule();
    this.#end();
  }

  /** Go on or stop for a while; after the end, begin anew. */
  toggle() {
    if (this.state === "ended") this.seek(0);
    else if (this.state === "playing") this.pause();
    else if (this.state === "paused") {
      this.#context.resume();
      this.#become("playing");
    }
  }

  /** Stop for a while. */
  pause() {
    if (this.state !== "playing") return;
    this.#context.suspend();
    this.#become("paused");
  }


  /** Play from here, in seconds. */
  seek(seconds) {
    const take = this.#take;
    if (!take?.numSamples) return;
    this.open(take.sampleRate);
    this.#silence();
    const sample = Math.min(Math.round(seconds * take.sampleRate), take.numSamples - 1);
    this.#from = Math.max(0, sample) / take.sampleRate;
    this.#next = Math.max(0, take.starts.findLastIndex((start) => start <= sample));
    this.#schedule();
    this.#become("playing");
  }

  /** Where the listener is in the take, in seconds. */
  get position() {
    if (!this.#take || this.state === "ended") return this.#take?.duration ?? 0;
    if (!this.#sources.size) return this.#from;
    const heard = this.#context.currentTime - (this.#context.outputLatency || 0) - this.#origin;
    return Math.max(this.#from, Math.min(heard, this.#take.duration));
  }

  /** Queue the pieces that are there and not queued yet. */
  #schedule() {
    const { pieces, starts, sampleRate } = this.#take;
    for (; this.#next < pieces.length; this.#next++) {
      const start = starts[this.#next] / sampleRate;
      const skip = Math.max(0, this.#from - start);
      const source = this.#sourceOf(pieces[this.#next]); // first: copying takes a while
      // On a whole sample, so that pieces meet without being interpolated.
      const earliest = Math.ceil((this.#context.currentTime + LEAD_SECONDS) * sampleRate) / sampleRate;
      // The first piece sets the origin; so does one that came too late, after a silence.
      const isFirst = this.#sources.size === 0;
      if (isFirst || this.#origin + start + skip < earliest) this.#origin = earliest - start - skip;
      this.#sources.add(source);
      source.start(this.#origin + start + skip, skip);
    }
  }

  /** What plays a piece; its end may be the end of all. */
  #sourceOf(piece) {
    const buffer = this.#context.createBuffer(1, piece.length, this.#context.sampleRate);
    const channel = buffer.getChannelData(0);
    for (let k = 0; k < piece.length; k++) channel[k] = piece[k] / FULL_SCALE;
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    source.onended = () => {
      if (this.#sources.delete(source)) {
        if (!this.#sources.size) this.#from = this.#take.duration;
        this.#end();
      }
    };
    return source;
  }

  /** Notice that everything was heard. */
  #end() {
    const take = this.#take;
    if (this.state === "playing" && take.isOver && !this.#sources.size) this.#become("ended");
  }

  /** Forget what is queued. */
  #silence() {
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#next = 0;
  }

  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }
}
