// The choice of languages and, where several models share them, of the model.

import { find, make } from "./dom.js";
import { read, write } from "./store.js";

const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });

/** Return the name of a model's language, of the side "source" or "target"; of one that names none, the model's. */
export function languageName(model, side) {
  const code = model[side];
  let known = "";
  try {
    known = code && names.of(code);
  } catch { /* a code of the run's own */ }
  return model[`${side}_name`] || known || code || model.name;
}

export class Languages extends EventTarget {
  /** models: those that translate; first: the name of the one to begin with. Dispatches "change". */
  constructor(models, first) {
    super();
    this.models = models;
    const last = read("model", first);
    this.model = models.find((model) => model.name === last) ?? models.find((model) => model.name === first) ?? models[0];
    this.tag = "";
    find("languages").hidden = !models.length;
    if (models.length) this.#draw();
  }

  get source() { return this.model.source; }
  get target() { return this.model.target; }
  get named() { return Boolean(this.source || this.target); }
  get sourceName() { return this.named ? languageName(this.model, "source") : "Text"; }
  get targetName() { return this.named ? languageName(this.model, "target") : "Translation"; }
  get title() { return this.named ? `${this.sourceName} → ${this.targetName}` : this.model.name; }
  get reverse() {
    return this.models.find((model) => model.source === this.target && model.target === this.source && this.source !== this.target);
  }

  choose(model) {
    this.model = model;
    this.tag = "";
    write("model", model.name);
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #draw() {
    const sources = unique(this.models, (model) => model.source);
    const targets = unique(this.models.filter((model) => model.source === this.source), (model) => model.target);
    const same = this.models.filter((model) => model.source === this.source && model.target === this.target);
    const focused = document.activeElement?.id;
    const parts = this.named || sources.length > 1 ? [
      field("from", "From", sources, this.model, (model) => languageName(model, "source"), (model) => this.#from(model)),
      this.#swap(),
      field("to", "To", targets, this.model, (model) => languageName(model, "target"), (model) => this.choose(model)),
    ] : [];
    if (same.length > 1 || !parts.length) parts.push(field("model", "Model", same, this.model, (model) => model.name, (model) => this.choose(model)));
    if (this.model.tags?.length) parts.push(this.#tags());
    find("languages").replaceChildren(...parts);
    if (focused) find(focused)?.focus();
  }

  #from(model) {
    const kept = this.models.find((other) => other.source === model.source && other.target === this.target);
    this.choose(kept ?? model);
  }

  #swap() {
    const reverse = this.reverse;
    if (!reverse) return make("span", { class: "arrow", "aria-hidden": "true" }, "→");
    const label = `Swap: from ${this.targetName} to ${this.sourceName}`;
    return make("button", { type: "button", class: "quiet", id: "swap", "aria-label": label, title: "Swap languages", onclick: () => {
      this.dispatchEvent(new Event("swap"));
      this.choose(reverse);
    } }, "⇄");
  }

  #tags() {
    const select = make("select", { id: "tag", onchange: () => {
      this.tag = select.value;
      this.dispatchEvent(new Event("change"));
    } }, make("option", { value: "" }, "none"), ...this.model.tags.map((tag) => make("option", { value: tag, selected: tag === this.tag }, tag)));
    return make("label", {}, make("span", {}, "Tag"), select);
  }
}

const unique = (models, key) => [...new Map(models.map((model) => [key(model), model])).values()];

/** Make a labelled choice; of one thing alone, its name. */
function field(id, label, options, chosen, text, change) {
  const title = text(options.find((option) => text(option) === text(chosen)) ?? chosen);
  if (options.length < 2) return make("span", { class: "language" }, make("span", { class: "unseen" }, `${label} `), title);
  const select = make("select", { id, onchange: () => change(options[select.selectedIndex]) },
    ...options.map((option) => make("option", { selected: text(option) === title }, text(option))));
  return make("label", {}, make("span", { class: id === "model" ? "" : "unseen" }, label), select);
}
