// The table of what was said, to compare by ear and by number.

const MAX_TAKES = 6;

export class Takes {
  #body;
  #takes = [];

  /** In a table's body; `onPlay` is told the take whose button was pressed. */
  constructor(body, onPlay) {
    this.#body = body;
    this.onPlay = onPlay;
  }

  /** Another one, on top; the oldest goes. */
  add(take) {
    this.#takes = [take, ...this.#takes].slice(0, MAX_TAKES);
  }

  /** Draw the table, with the current take marked. */
  show(current) {
    this.#body.replaceChildren(...this.#takes.map((take) => this.#row(take, take === current)));
  }

  #row(take, isCurrent) {
    const row = document.createElement("tr");
    if (isCurrent) row.setAttribute("aria-current", "true");
    const { num_steps: steps, speed } = take.request;
    const play = document.createElement("button");
    Object.assign(play, { type: "button", className: "round small" });
    play.setAttribute("aria-label", `Play ${take.voice} at ${steps === 1 ? "1 step" : `${steps} steps`}`);
    play.append(document.createElement("span"));
    play.addEventListener("click", () => this.onPlay(take));
    const cells = [
      play,
      take.voice,
      steps,
      `${speed.toFixed(2)}×`,
      `${take.duration.toFixed(1)} s`,
      `${take.firstSeconds.toFixed(2)} s`,
      take.rtf.toFixed(3),
    ];
    for (const content of cells) row.insertCell().append(content);
    return row;
  }
}
