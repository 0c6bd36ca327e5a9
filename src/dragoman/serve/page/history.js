// Earlier translations, in this browser only. May be cleared and switched off; then nothing is kept.

import { dialog, find, make } from "./dom.js";
import { forget, read, write } from "./store.js";

const MOST = 100;

export class History extends EventTarget {
  /** Dispatches "restore" with an entry: {text, translation, model, title, source, target, time}. */
  constructor() {
    super();
    const open = dialog("history-dialog", () => this.#draw());
    find("open-history").hidden = false;
    find("open-history").addEventListener("click", open);
    find("history-on").addEventListener("change", (event) => {
      write("history-on", event.target.checked);
      if (!event.target.checked) this.#clear();
    });
    find("history-clear").addEventListener("click", () => this.#clear());
  }

  get on() { return read("history-on", true); }
  get entries() { return read("history", []); }

  /** Keep a translation. One that carries an entry on takes its place. */
  add(entry) {
    if (!this.on || !entry.text.trim()) return;
    const [last, ...others] = this.entries;
    const carriedOn = last?.model === entry.model && entry.text.startsWith(last.text);
    const kept = carriedOn ? others : this.entries;
    write("history", [{ ...entry, time: Date.now() }, ...kept.filter((old) => old.text !== entry.text || old.model !== entry.model)].slice(0, MOST));
  }

  #clear() {
    forget("history");
    this.#draw();
    find("history-on").focus();
  }

  #remove(time) {
    write("history", this.entries.filter((entry) => entry.time !== time));
    this.#draw();
    find("history-on").focus();
  }

  #draw() {
    const { entries } = this;
    find("history-on").checked = this.on;
    find("history-clear").hidden = !entries.length;
    find("past").replaceChildren(...(entries.length ? entries.map((entry) => this.#item(entry)) : [make("li", { class: "soft" }, this.on ? "Nothing yet." : "Switched off.")]));
  }

  #item(entry) {
    const when = new Date(entry.time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const restore = () => {
      find("history-dialog").close();
      this.dispatchEvent(new CustomEvent("restore", { detail: entry }));
    };
    return make("li", {},
      make("button", { type: "button", class: "entry", onclick: restore },
        make("span", { dir: "auto", lang: entry.source || null }, entry.text), make("span", { class: "soft", dir: "auto", lang: entry.target || null }, entry.translation)),
      make("span", { class: "soft when" }, `${entry.title}, ${when}`),
      make("button", { type: "button", class: "quiet", "aria-label": `Remove ${entry.text.slice(0, 40)}`, onclick: () => this.#remove(entry.time) }, "Remove"));
  }
}
