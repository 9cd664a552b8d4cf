// The voices to choose from.

const HUES = 6; // as many as style.css has
const ACCENTS = { "en-us": "American", "en-gb": "British" };

export class Voices {
  #box;
  #about;
  #voices = [];
  #addButton;

  /** In `box`, with words on the chosen one in `about`; `onAdd`, `onDelete(voice)`: the buttons. */
  constructor(box, about, onAdd, onDelete) {
    this.#box = box;
    this.#about = about;
    this.onDelete = onDelete;
    this.#addButton = document.createElement("button");
    this.#addButton.type = "button";
    this.#addButton.className = "voice add";
    this.#addButton.setAttribute("aria-label", "Add your voice, from a clip");
    this.#addButton.append(circle("+"), described("Yours", "from a clip"));
    this.#addButton.addEventListener("click", onAdd);
    box.addEventListener("change", () => this.#describe());
    box.replaceChildren(this.#addButton);
  }

  /** Show these, with the one of this id chosen, or the one that was. */
  show(voices, id = this.chosen?.id) {
    this.#voices = voices;
    const chosen = voices.find((voice) => voice.id === id) ?? voices[0];
    this.#box.replaceChildren(
      ...voices.map((voice) => this.#item(voice, voice === chosen)),
      this.#addButton,
    );
    this.#describe();
  }

  /** The voice that is chosen; undefined while there are none. */
  get chosen() {
    const id = this.#box.querySelector("input:checked")?.value;
    return this.#voices.find((voice) => voice.id === id);
  }

  #describe() {
    const { type, description } = this.chosen ?? {};
    this.#about.textContent = type === "audio_sample" ? "Made of a clip that you gave." : description;
  }

  #item(voice, isChosen) {
    const item = document.createElement("div");
    item.className = "voice";
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "voice", value: voice.id, checked: isChosen });
    const accent = ACCENTS[voice.language] ?? voice.language;
    label.append(input, circle([...voice.name][0], hueOf(voice.name)), described(voice.name, accent));
    item.append(label);
    if (voice.type === "audio_sample") {
      const remove = document.createElement("button");
      Object.assign(remove, { type: "button", className: "quiet", textContent: "✕" });
      remove.setAttribute("aria-label", `Delete the voice ${voice.name}`);
      remove.addEventListener("click", () => this.onDelete(voice));
      item.append(remove);
    }
    return item;
  }
}

/** A picture of a voice: its first letter. */
function circle(letter, hue = "") {
  const element = document.createElement("span");
  element.className = `circle ${hue}`;
  element.setAttribute("aria-hidden", "true");
  element.textContent = letter;
  return element;
}

/** The same color for the same name, always. */
function hueOf(name) {
  const sum = [...name].reduce((total, letter) => total + letter.codePointAt(0), 0);
  return `hue-${sum % HUES}`;
}

/** A name above a few words. */
function described(name, about) {
  const element = document.createElement("span");
  const strong = document.createElement("b");
  strong.textContent = name;
  const small = document.createElement("small");
  small.textContent = about;
  element.append(strong, small);
  return element;
}
