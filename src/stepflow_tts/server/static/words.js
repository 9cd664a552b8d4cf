// The text that is spoken: words light up as they are heard, and a click on one plays from there.

export class Words {
  #box;
  #words = []; // {button, start, end}
  #rest; // the node of the text whose words are still to come
  #current = -1;
  #tabbable = 0;

  /** In an element; `onSeek` is told the seconds to go to. */
  constructor(box, onSeek) {
    this.#box = box;
    box.addEventListener("click", (event) => {
      const word = this.#words[this.#indexOf(event.target)];
      if (word) onSeek(word.start);
    });
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const at = this.#indexOf(event.target);
      if (by === undefined || at < 0) return;
      event.preventDefault();
      this.#makeTabbable(Math.max(0, Math.min(at + by, this.#words.length - 1)));
      this.#words[this.#tabbable].button.focus();
    });
  }

  /** Another text, with the words that are known of it. */
  show(text, words) {
    this.#words = [];
    this.#current = -1;
    this.#tabbable = 0;
    this.#rest = document.createTextNode(text);
    this.#box.replaceChildren(this.#rest);
    this.#box.scrollTop = 0;
    this.add(words);
  }

  /** The next words of the text, with their times. */
  add(words) {
    for (const { text, start_seconds: start, end_seconds: end } of words) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.tabIndex = this.#words.length ? -1 : 0;
      const at = this.#rest.data.indexOf(text);
      if (at < 0) {
        // Written otherwise than it was typed: better twice than not at all.
        this.#rest.before(button, " ");
      } else {
        const after = this.#rest.splitText(at);
        after.deleteData(0, text.length);
        after.before(button);
        this.#rest = after;
      }
      this.#words.push({ button, start, end });
    }
  }

  /** How much of the text has its words, from 0 to 1. */
  get share() {
    const text = this.#box.textContent;
    return text ? 1 - this.#rest.data.trim().length / text.length : 0;
  }

  /** The listener is here, in seconds. */
  mark(position) {
    const current = this.#words.findLastIndex(({ start }) => start <= position);
    if (current === this.#current) return;
    this.#current = current;
    this.#words.forEach(({ button }, at) => {
      button.classList.toggle("said", at < current);
      if (at === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    if (current < 0) return;
    if (!this.#box.contains(document.activeElement)) this.#makeTabbable(current);
    this.#keepInSight(this.#words[current].button);
  }

  #indexOf(button) {
    return this.#words.findIndex((word) => word.button === button);
  }

  /** One word alone is reached with the Tab key: there may be hundreds. */
  #makeTabbable(at) {
    this.#words[this.#tabbable].button.tabIndex = -1;
    this.#tabbable = at;
    this.#words[at].button.tabIndex = 0;
  }

  /** Scroll the box, never the page. */
  #keepInSight(button) {
    const top = button.offsetTop - this.#box.offsetTop;
    const isSeen = top >= this.#box.scrollTop && top + button.offsetHeight <= this.#box.scrollTop + this.#box.clientHeight;
    if (!isSeen) this.#box.scrollTop = top - this.#box.clientHeight / 3;
  }
}
