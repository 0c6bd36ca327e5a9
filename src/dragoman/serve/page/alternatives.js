// Other words for a word of the translation, and other translations of its sentence. What stands before the word is a
// forced beginning; the server says how the model would go on from there.

import * as api from "./api.js";
import { find, make } from "./dom.js";
import { bare, words } from "./words.js";

// Groups of a diverse beam begin with different words; a plain beam's candidates mostly differ further on.
const SEARCH = { kind: "diverse_beam", size: 8, groups: 8, nbest: 8, strength: 1 };
const MOST = 6;

export class Alternatives extends EventTarget {
  /** Dispatches "choose" with {source, choice}, and "close". */
  constructor() {
    super();
    this.node = find("alternatives");
    this.anchor = null;
    this.controller = null;
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.node.addEventListener("toggle", (event) => {
      if (event.newState === "closed") this.#closed();
    });
  }

  /** Open beside a word. request: what goes with every request; piece: its sentence; place: {start, text, node}. */
  async open(piece, place, request, code) {
    this.#closed();
    this.anchor = place.node;
    this.anchor.classList.add("open");
    const list = make("ul", { class: "choices", "aria-busy": "true" }, make("li", { class: "soft" }, "Looking…"));
    this.node.replaceChildren(
      make("h3", { id: "alternatives-title" }, `Instead of “${bare(place.text)}”`), list, ...this.#sentence(piece), this.#back(piece),
      make("button", { type: "button", class: "quiet", onclick: () => this.node.hidePopover() }, "Close"));
    this.node.showPopover();
    this.#stand();
    this.node.querySelector("button").focus({ preventScroll: true });
    this.controller = new AbortController();
    try {
      const prefix = piece.text.slice(0, place.start);
      const answer = await api.translate({ ...request, text: piece.source, prefix, nbest: SEARCH.nbest, search: SEARCH }, this.controller.signal);
      this.#list(list, distinct(answer.translations[0].candidates, prefix, place, code), piece);
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(make("li", {}, error.message));
    }
    list.removeAttribute("aria-busy");
    this.#stand();
  }

  #list(list, found, piece) {
    if (!found.length) return list.replaceChildren(make("li", { class: "soft" }, "The model has no other word here."));
    list.replaceChildren(...found.map(({ word, rest, prefix }) => make("li", {}, make("button", {
      type: "button", dir: "auto", lang: this.anchor.closest("[lang]")?.lang, onclick: () => this.#choose(piece, { prefix }),
    }, make("b", {}, word), make("span", { class: "soft" }, rest)))));
    const stillHere = this.node.matches(":popover-open") && (this.node.contains(document.activeElement) || document.activeElement === document.body);
    if (stillHere) list.querySelector("button").focus({ preventScroll: true });
  }

  #sentence(piece) {
    const others = (piece.answer?.candidates ?? []).filter((candidate) => candidate.text !== piece.text).slice(0, 3);
    if (!others.length || piece.stale) return [];
    return [make("h3", {}, "The whole sentence"), make("ul", { class: "choices" }, ...others.map((candidate) => make("li", {}, make("button", {
      type: "button", dir: "auto", onclick: () => this.#choose(piece, { candidate }),
    }, candidate.text))))];
  }

  #back(piece) {
    if (!piece.choice) return "";
    return make("button", { type: "button", class: "quiet", onclick: () => this.#choose(piece, null) }, "Back to the first translation");
  }

  #choose(piece, choice) {
    this.node.hidePopover();
    this.dispatchEvent(new CustomEvent("choose", { detail: { source: piece.source, choice } }));
  }

  #closed() {
    this.controller?.abort();
    if (!this.anchor) return;
    this.anchor.classList.remove("open");
    this.anchor = null;
    this.dispatchEvent(new Event("close"));
  }

  /** Stand below the word, or above it where there is more room, inside the window. */
  #stand() {
    if (!this.anchor) return;
    const word = this.anchor.getBoundingClientRect(), box = this.node.getBoundingClientRect(), margin = 8;
    const below = word.bottom + 4, above = word.top - box.height - 4;
    const top = below + box.height > innerHeight - margin && above > margin ? above : below;
    this.node.style.top = `${Math.max(margin, Math.min(top, innerHeight - box.height - margin))}px`;
    this.node.style.left = `${Math.max(margin, Math.min(word.left, innerWidth - box.width - margin))}px`;
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.node.querySelectorAll("button")];
    const here = buttons.indexOf(document.activeElement);
    buttons[(here + step + buttons.length) % buttons.length].focus();
  }
}

/** Return what may stand in the place of a word, each word once: {word, rest, prefix}. */
function distinct(candidates, prefix, place, code) {
  const found = new Map();
  for (const { text } of candidates) {
    if (!text.startsWith(prefix)) continue;
    const after = text.slice(prefix.length);
    const [first] = words(after, code);
    if (!first) continue;
    const word = bare(first.text);
    if (word === bare(place.text) || found.has(word)) continue;
    const rest = after.slice(first.end);
    found.set(word, { word, rest, prefix: prefix + after.slice(0, first.end) + (/^\s/.test(rest) ? " " : "") });
  }
  return [...found.values()].slice(0, MOST);
}
