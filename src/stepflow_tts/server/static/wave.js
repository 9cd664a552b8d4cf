// The waveform: shows where the listener is, and takes them elsewhere.

const BAR = 3; // pixels, with the gap after it
const GAP = 1.5;
const KEY_SECONDS = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -5, PageUp: 5 };

export class Wave {
  #canvas;
  #take = null;
  #position = 0;
  #total = 0; // seconds that the width stands for

  /** On a canvas; `onSeek` is told the seconds to go to. */
  constructor(canvas, onSeek) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    window.addEventListener("themechange", () => this.#draw());
    const seekTo = (event) => {
      const { left, width } = canvas.getBoundingClientRect();
      onSeek(((event.clientX - left) / width) * this.#total);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      seekTo(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) seekTo(event);
    });
    canvas.addEventListener("keydown", (event) => {
      const to = { Home: 0, End: this.#take?.duration }[event.key];
      const by = KEY_SECONDS[event.key];
      if (to === undefined && by === undefined) return;
      event.preventDefault();
      onSeek(to ?? this.#position + by);
    });
  }

  /** Show a take with the listener at `position`; `total` is how long it will probably be. */
  show(take, position, total) {
    this.#take = take;
    this.#position = position;
    this.#total = total;
    const [now, all] = [position.toFixed(1), total.toFixed(1)];
    const told = `${now} of ${all} seconds`;
    if (this.#canvas.getAttribute("aria-valuetext") !== told) {
      this.#canvas.setAttribute("aria-valuemax", all);
      this.#canvas.setAttribute("aria-valuenow", now);
      this.#canvas.setAttribute("aria-valuetext", told);
    }
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = window.devicePixelRatio || 1;
    const context = this.#canvas.getContext("2d");
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    context.scale(scale, scale);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const peaks = this.#take?.peaks ?? [];
    const loudest = peaks.reduce((a, b) => Math.max(a, b), 0.01);
    const numBars = Math.floor((width + GAP) / (BAR + GAP));
    const perBar = this.#take?.duration ? (this.#total * peaks.length) / this.#take.duration / numBars : 0;
    for (let bar = 0; bar < numBars; bar++) {
      const first = Math.floor(bar * perBar);
      const some = peaks.slice(first, Math.max(first + 1, Math.floor((bar + 1) * perBar)));
      const tall = Math.max(BAR, (Math.max(0, ...some) / loudest) * height);
      const isHeard = ((bar + 0.5) / numBars) * this.#total < this.#position;
      context.globalAlpha = isHeard ? 1 : some.length ? 0.38 : 0.15;
      context.beginPath();
      context.roundRect(bar * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      context.fill();
    }
  }
}
