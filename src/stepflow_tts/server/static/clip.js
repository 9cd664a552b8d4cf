// The dialog that makes a voice of a recording or a file.

import { addVoice } from "./api.js";
import { clipFromFile, Recorder } from "./recorder.js";

const MAX_RECORDING_SECONDS = 15;
const $ = (selector) => document.querySelector(selector);

export class ClipDialog {
  #dialog = $("#clip");
  #recorder = new Recorder();
  #clip = null;

  /** `onAdded` is told the new voice. */
  constructor(onAdded) {
    $("#cancel").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#reset());
    $("#record").addEventListener("click", () => this.#try(() => this.#toggleRecording()));
    $("#file").addEventListener("change", ({ target }) => this.#try(() => this.take(target.files[0])));
    $("#clip-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => this.#send(onAdded));
    });
    // Anywhere on the page a dropped file is a clip; else the browser would leave the page for it.
    window.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("#drop").classList.add("over");
      this.open();
    });
    window.addEventListener("dragleave", () => $("#drop").classList.remove("over"));
    window.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      $("#drop").classList.remove("over");
      this.#try(() => this.take(event.dataTransfer.files[0]));
    });
  }

  /** Show it. */
  open() {
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** Use a file. */
  async take(file) {
    if (!file) return;
    this.#recorder.cancel();
    this.#showRecording();
    this.#use(await clipFromFile(file));
    $("#clip-name").value = file.name.replace(/\.\w+$/, "").slice(0, 64);
  }

  async #toggleRecording() {
    if (this.#recorder.isOn) {
      this.#use(this.#recorder.stop());
    } else {
      this.#use(null);
      await this.#recorder.start((loudness) => {
        $("#level").value = loudness;
        this.#showRecording();
        if (this.#recorder.seconds >= MAX_RECORDING_SECONDS) this.#use(this.#recorder.stop());
      });
    }
    this.#showRecording();
  }

  /** The button tells what it will do, and how long it has been at it. */
  #showRecording() {
    const { isOn, seconds } = this.#recorder;
    $("#record").classList.toggle("on", isOn);
    $("#record-label").textContent = isOn ? `Stop (${seconds.toFixed(1)} s)` : "Record";
    if (!isOn) $("#level").value = 0;
  }

  /** Keep a clip, and let it be heard. */
  #use(clip) {
    this.#clip = clip;
    URL.revokeObjectURL($("#audio").src);
    $("#audio").removeAttribute("src");
    $("#preview").hidden = clip === null;
    if (clip === null) return;
    $("#audio").src = URL.createObjectURL(clip.wav);
    $("#clip-length").textContent = `${clip.seconds.toFixed(1)} s`;
    this.#showRecording();
  }

  async #send(onAdded) {
    if (!this.#clip) throw new Error("Record yourself or choose a file first.");
    if (!$("#clip-name").value.trim()) throw new Error("Give the voice a name.");
    if (!$("#consent").checked) {
      throw new Error("Tick the box: a voice is cloned only with the permission of its owner.");
    }
    const voice = await addVoice(this.#clip.wav, $("#clip-name").value, $("#clip-language").value);
    this.#dialog.close();
    onAdded(voice);
  }

  /** Do something, and say in the dialog why it failed. */
  async #try(action) {
    $("#problem").textContent = "";
    $("#add").disabled = true;
    try {
      await action();
    } catch (error) {
      $("#problem").textContent = error.message;
    } finally {
      $("#add").disabled = false;
    }
  }

  #reset() {
    this.#recorder.cancel();
    this.#use(null);
    this.#showRecording();
    $("#clip-form").reset();
    $("#problem").textContent = "";
  }
}
