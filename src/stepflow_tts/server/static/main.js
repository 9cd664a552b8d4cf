// The page: what was typed becomes speech, words and figures.

import { deleteVoice, hasToken, listVoices, setToken, speak, speechFile } from "./api.js";
import { ClipDialog } from "./clip.js";
import { Player } from "./player.js";
import { Take } from "./take.js";
import { Takes } from "./takes.js";
import { Voices } from "./voices.js";
import { Wave } from "./wave.js";
import { Words } from "./words.js";

const $ = (selector) => document.querySelector(selector);

let take = null; // the one that is shown
let request = null; // the AbortController of the one that is being made
let isDrawing = false;

const player = new Player();
const seek = (seconds) => player.seek(seconds);
const wave = new Wave($("#wave"), seek);
const words = new Words($("#words"), seek);
const takes = new Takes($("#takes"), (chosen) => {
  stop();
  show(chosen);
  player.load(chosen);
});
const voices = new Voices(
  $("#voices"),
  $("#about"),
  () => clip.open(),
  (voice) =>
    guarded(async () => {
      await deleteVoice(voice.id);
      await refreshVoices();
      say(`The voice ${voice.name} is deleted.`);
    }),
);
const clip = new ClipDialog((voice) =>
  guarded(async () => {
    await refreshVoices(voice.id);
    say(`The voice ${voice.name} is ready.`);
  }),
);

/** Do something, and say in words why it failed. */
async function guarded(action) {
  complain("");
  try {
    await action();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForToken();
    else complain(error.message);
  }
}

/** Show a message about what went wrong; "" takes it away. */
function complain(message) {
  $("#notice p").textContent = message;
  $("#notice").hidden = !message;
}

/** Tell users of screen readers. */
function say(message) {
  $("#status").textContent = message;
}

/** Show the field for the token. */
function askForToken() {
  complain(hasToken() ? "The server does not know this token." : "");
  $("#token").hidden = false;
  $("#token-field").focus();
}

/** Ask which voices there are, and choose the one of this id. */
async function refreshVoices(id) {
  voices.show(await listVoices(), id);
}

/** Speak what is typed. */
async function begin() {
  const input = $("#text").value;
  if (!input.trim()) {
    $("#text").focus();
    throw new Error("Type what to say first.");
  }
  if (!voices.chosen) throw new Error("There is no voice to speak with. Add one.");
  stop();
  player.open();
  const steps = Number($("#steps input:checked").value);
  const fields = { input, voice: voices.chosen.id, num_steps: steps, speed: Number($("#speed").value) };
  const made = new Take(fields, voices.chosen.name);
  const own = (request = new AbortController());
  show(made);
  player.load(made);
  showRequest();
  bringIntoSight();
  say("Speaking.");
  try {
    for await (const event of speak(fields, own.signal)) {
      const isFirst = made.firstSeconds === null;
      made.add(event);
      if (isFirst) takes.add(made);
      if (made !== take) continue;
      words.add(event.words ?? []);
      showFigures();
      player.feed();
      draw();
    }
    say(`${made.duration.toFixed(1)} seconds of speech are there.`);
  } finally {
    made.isOver = true;
    if (made === take) {
      showFigures();
      if (made.numSamples) player.feed();
      else {
        player.unload();
        show(null);
      }
    }
    if (request === own) request = null;
    showRequest();
  }
}

/** On a phone, the words are below the form. */
function bringIntoSight() {
  const { top } = $("#result").getBoundingClientRect();
  if (top > window.innerHeight / 2) $("#result").scrollIntoView();
}

/** Ask for no more of what is being made. */
function stop() {
  request?.abort();
  request = null;
  showRequest();
}

/** And be silent. */
function halt() {
  stop();
  player.pause();
}

/** The button tells what it will do. */
function showRequest() {
  $("#speak").textContent = request ? "Stop" : "Speak";
  $("#speak").classList.toggle("busy", request !== null);
}

/** Another take, or none. */
function show(other) {
  take = other;
  $("#result").dataset.state = take ? player.state : "empty";
  words.show(take?.request.input ?? "", take?.words ?? []);
  showFigures();
  draw();
}

/** What the take took. */
function showFigures() {
  const isKnown = Boolean(take?.numSamples);
  $("#first").textContent = isKnown ? `${take.firstSeconds.toFixed(2)} s` : "–";
  $("#rtf").textContent = isKnown ? take.rtf.toFixed(3) : "–";
  $("#faster").textContent = isKnown ? `${inShort(1 / take.rtf)}× faster` : "–";
  for (const button of document.querySelectorAll(".downloads button")) {
    button.disabled = !take?.isComplete;
  }
  if (isKnown) {
    const label = $(`#steps input[value="${take.request.num_steps}"]`).parentElement;
    label.querySelector("span").textContent = `RTF ${take.rtf.toFixed(3)}`;
  }
  takes.show(take);
}

/** A number with two digits that count. */
function inShort(x) {
  return x < 10 ? x.toFixed(1) : Math.round(x).toString();
}

/** Show where the listener is; goes on by itself while something moves. */
function draw() {
  const position = take ? player.position : 0;
  const duration = take?.duration ?? 0;
  const total = !take || take.isOver ? duration : Math.max(duration, duration / (words.share || 1));
  wave.show(take, position, total);
  words.mark(duration && player.state !== "ended" ? position : -1);
  $("#time").textContent = clock(position);
  $("#length").textContent = clock(duration);
  if (player.state === "playing" && !isDrawing) {
    isDrawing = true;
    requestAnimationFrame(() => {
      isDrawing = false;
      draw();
    });
  }
}

/** Such as 1:02.3. */
function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}

/** Save the take as a file. */
async function download(format) {
  const files = {
    wav: () => take.toWav(),
    srt: () => new Blob([take.srt], { type: "application/x-subrip" }),
    mp3: () => speechFile(take.request, "mp3"), // the same request is the same speech
  };
  const name = take.request.input.toLowerCase().match(/[a-z0-9]+/g)?.slice(0, 5).join("-") ?? "speech";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await files[format]());
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function showCount() {
  $("#count").textContent = `${$("#text").value.length} of ${$("#text").maxLength}`;
}

player.addEventListener("change", () => {
  $("#result").dataset.state = take ? player.state : "empty";
  $("#play").setAttribute("aria-label", player.state === "playing" ? "Pause" : "Play");
  draw();
});
$("#play").addEventListener("click", () => player.toggle());
$("#compose").addEventListener("submit", (event) => {
  event.preventDefault();
  if (request) halt();
  else guarded(begin);
});
$("#text").addEventListener("input", showCount);
$("#speed").addEventListener("input", ({ target }) => {
  $("#speed-value").textContent = `${Number(target.value).toFixed(2)}×`;
});
$("#notice button").addEventListener("click", () => complain(""));
for (const button of document.querySelectorAll(".downloads button")) {
  button.addEventListener("click", () => guarded(() => download(button.dataset.format)));
}
$("#token").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("#token-field").value.trim());
  guarded(async () => {
    await refreshVoices();
    $("#token").hidden = true;
    $("#text").focus();
  });
});
document.addEventListener("keydown", (event) => {
  if ($("#clip").open) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) guarded(begin);
  else if (event.key === "Escape") halt();
  else if (event.key === " " && !event.target.closest("button, input, textarea, a, select")) {
    event.preventDefault();
    player.toggle();
  }
});

showCount();
show(null);
guarded(() => refreshVoices());
