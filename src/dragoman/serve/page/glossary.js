// Terms and their translations, for each pair of languages: kept in this browser, sent with every request.

import { announce, dialog, find, make } from "./dom.js";
import { read, write } from "./store.js";

const terms = (text) => text.split("|").map((term) => term.trim()).filter(Boolean);

export class Glossary extends EventTarget {
  /** Dispatches "change" when the terms of the chosen languages change. */
  constructor(languages) {
    super();
    this.languages = languages;
    const open = dialog("glossary-dialog", () => this.#draw());
    find("open-glossary").hidden = false;
    find("open-glossary").addEventListener("click", open);
    find("term-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
    languages.addEventListener("change", () => this.#count());
    this.#count();
  }

  get #name() { return `glossary.${this.languages.source}>${this.languages.target}`; }

  /** The terms as they were typed: {source, target, forbidden}, alternatives separated by bars. */
  get entries() { return read(this.#name, []); }

  /** The terms as requests have them: lists of alternatives. */
  get terms() {
    return this.entries.map(({ source, target, forbidden }) => ({ source, target: terms(target), forbidden: terms(forbidden) }));
  }

  #save(entries) {
    write(this.#name, entries);
    this.#draw();
    this.#count();
    this.dispatchEvent(new Event("change"));
  }

  #add() {
    const [source, target, forbidden] = ["term-source", "term-target", "term-forbidden"].map((id) => terms(find(id).value).join(" | "));
    const missing = find(source ? "term-target" : "term-source");
    missing.setCustomValidity(source && (target || forbidden) ? "" : "Give a term, and its translation or words never to use.");
    if (!missing.reportValidity()) {
      missing.addEventListener("input", () => missing.setCustomValidity(""), { once: true });
      return;
    }
    const others = this.entries.filter((entry) => entry.source.toLowerCase() !== source.toLowerCase());
    this.#save([...others, { source, target, forbidden }]);
    find("term-form").reset();
    find("term-source").focus();
    announce(`${source}: added.`);
  }

  #count() {
    const { length } = this.entries;
    find("open-glossary").textContent = length ? `Glossary (${length})` : "Glossary";
  }

  #draw() {
    find("glossary-about").textContent = `${this.languages.title}. Kept in this browser, and sent along with your texts.`;
    find("terms").hidden = !this.entries.length;
    find("terms-body").replaceChildren(...this.entries.map((entry) => make("tr", {},
      make("th", { scope: "row", dir: "auto" }, entry.source), make("td", { dir: "auto" }, entry.target), make("td", { dir: "auto" }, entry.forbidden),
      make("td", {}, make("button", { type: "button", class: "quiet", "aria-label": `Remove ${entry.source}`, onclick: () => {
        this.#save(this.entries.filter((other) => other.source !== entry.source));
        find("term-source").focus();
      } }, "Remove")))));
  }
}
