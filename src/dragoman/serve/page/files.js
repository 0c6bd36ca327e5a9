// The page "Files": documents are sent, translated on the server, and fetched again.

import * as api from "./api.js";
import { announce, find, make, number } from "./dom.js";

const FIRST_LOOK = 300, LAST_LOOK = 3000; // milliseconds between two questions how far a file is

export class FilesView {
  constructor(languages, glossary, { files, limits }) {
    Object.assign(this, { languages, glossary, kinds: [...new Set(files)], most: limits?.file_bytes });
    find("kinds-count").textContent = `${number(this.kinds.length)} kinds of files${this.most ? `, up to ${size(this.most)}` : ""}`;
    find("kinds").textContent = this.kinds.join(", ");
    find("file-input").accept = this.kinds.join(",");
    find("choose-files").addEventListener("click", () => find("file-input").click());
    find("file-input").addEventListener("change", (event) => {
      this.#take(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
    this.#takeDrops();
  }

  #takeDrops() {
    let inside = 0; // enter and leave come for every element that is crossed
    const mark = (change) => {
      inside = Math.max(0, inside + change);
      find("drop").classList.toggle("over", inside > 0);
    };
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragenter", (event) => holdsFiles(event) && mark(1));
    document.addEventListener("dragleave", (event) => holdsFiles(event) && mark(-1));
    document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault(); // a file dropped beside would be opened instead of the page
      mark(-Infinity);
      location.hash = "#files";
      this.#take(event.dataTransfer.files);
    });
  }

  #take(files) {
    for (const file of files) this.#translate(file, new Job(file.name, this.languages));
  }

  async #translate(file, job) {
    const wrong = this.#fault(file);
    if (wrong) return job.fail(wrong);
    try {
      const glossary = this.glossary.terms;
      const { id } = await api.sendFile(file, { model: this.languages.model.name, ...(glossary.length && { glossary: JSON.stringify(glossary) }) });
      await this.#follow(id, job);
    } catch (error) {
      job.fail(error.message, error.passing ? () => this.#translate(file, job) : null);
      if (error.needsKey) document.dispatchEvent(new Event("key-needed"));
    }
  }

  #fault(file) {
    if (this.most && file.size > this.most) return `Too large: ${size(file.size)}, and ${size(this.most)} can be sent.`;
    if (!file.size) return "The file is empty.";
    if (!this.kinds.some((kind) => file.name.toLowerCase().endsWith(kind))) return "Not a kind of file that can be translated; the list above has those that can.";
    return "";
  }

  async #follow(id, job) {
    for (let pause = FIRST_LOOK; ; pause = Math.min(LAST_LOOK, pause * 1.3)) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      const state = await api.fileState(id).catch((error) => {
        if (error.passing) return null; // look again
        throw error;
      });
      if (state?.state === "failed") return job.fail(state.error?.message ?? state.error ?? "The file could not be translated.");
      if (state?.state === "done") return job.finish(id, state);
      if (state) job.advance(state);
    }
  }
}

/** One file in the list: its name, how far it is, and what can be done with it. */
class Job {
  constructor(name, { title }) {
    this.name = name;
    this.state = make("span", { class: "soft" }, "Sending…");
    this.bar = make("progress", { "aria-label": `Progress of ${name}` });
    this.actions = make("span", { class: "actions" });
    this.node = make("li", { class: "job" },
      make("span", { class: "name", dir: "auto" }, name), make("span", { class: "soft" }, title), this.bar, this.state, this.actions);
    find("jobs").prepend(this.node);
  }

  advance({ state, done, total }) {
    this.node.classList.remove("failed");
    this.bar.hidden = false;
    this.state.textContent = state === "queued" ? "Waiting…" : total ? `${number(done)} of ${number(total)}` : "Translating…";
    if (total) Object.assign(this.bar, { max: total, value: done });
  }

  finish(id, state) {
    this.bar.hidden = true;
    this.state.textContent = summary(state);
    const download = make("button", { type: "button", class: "main" }, "Download");
    download.setAttribute("aria-label", `Download the translation of ${this.name}`);
    download.addEventListener("click", () => this.#download(id, state));
    this.actions.replaceChildren(download);
    announce(`${this.name}: done.`);
  }

  fail(message, again = null) {
    this.bar.hidden = true;
    this.node.classList.add("failed");
    this.state.textContent = message;
    this.actions.replaceChildren(...(again ? [make("button", { type: "button", onclick: () => {
      this.actions.replaceChildren();
      this.advance({ state: "queued" });
      again();
    } }, "Try again")] : []));
    announce(`${this.name}: ${message}`);
  }

  /** Fetch with the key and hand over as a download: a plain link could not send a header. */
  async #download(id, state) {
    try {
      const url = URL.createObjectURL(await api.fileResult(id));
      make("a", { href: url, download: state.name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      this.fail(error.message, error.passing ? () => this.finish(id, state) : null);
    }
  }
}

/** Say what has become of a file: its texts that were translated, that a person should check, that were left, and that were withheld. */
function summary({ filled, flagged, left, withheld }) {
  const parts = [
    filled && `${number(filled)} translated`,
    flagged && `${number(flagged)} to check`,
    left && `${number(left)} left as they were`,
    withheld && `${number(withheld)} withheld`,
  ].filter(Boolean);
  return parts.length ? `Done: ${parts.join(", ")}` : "Done";
}

const size = (bytes) => (bytes < 2 ** 20 ? `${Math.max(1, Math.round(bytes / 2 ** 10))} KB` : `${Math.round(bytes / 2 ** 20)} MB`);
