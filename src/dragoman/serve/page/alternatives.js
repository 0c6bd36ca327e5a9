// Other words for a word of the translation, and other translations of its sentence. What stands before the word is a
// forced beginning; the server says how the model goes on from there if it may not use the words that are known already.

import * as api from "./api.js";
import { find, make } from "./dom.js";
import { bare, words } from "./words.js";

const MOST = 5; // words that are shown
const AT_A_TIME = 4; // candidates asked for with each request
const UNLIKELY = 7; // nats below the likeliest translation, from where on words are no help but noise

const GAP = 4, MARGIN = 8, LEAST = 160; // pixels: from the word, from the window's edge, and of height

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
    const list = make("ul", { class: "choices", "aria-busy": "true" }), looking = make("p", { class: "soft looking" }, "Looking…");
    this.node.replaceChildren(
      make("h3", { id: "alternatives-title" }, `Instead of “${bare(place.text)}”`), list, looking, ...this.#sentence(piece),
      make("div", { class: "bar" }, make("span", { class: "soft" }, sureness(piece)), this.#back(piece), make("button", { type: "button", class: "quiet", onclick: () => this.node.hidePopover() }, "Close")));
    this.node.showPopover();
    this.#stand();
    this.node.querySelector("button").focus({ preventScroll: true });
    this.controller = new AbortController();
    const { signal } = this.controller;
    try {
      for await (const found of others({ ...request, alignments: false, text: piece.source }, piece, place, code, signal)) {
        if (signal.aborted) return;
        this.#add(list, found, piece);
      }
      if (list.hasChildNodes()) looking.remove();
      else looking.textContent = "The model has no other word here.";
    } catch (error) {
      if (!signal.aborted) looking.textContent = error.message;
    }
    list.removeAttribute("aria-busy");
    if (!signal.aborted) this.#stand();
  }

  #add(list, { word, rest, prefix }, piece) {
    list.append(make("li", {}, make("button", {
      type: "button", dir: "auto", lang: this.anchor.closest("[lang]")?.lang, onclick: () => this.#choose(piece, { prefix }),
    }, make("b", {}, word), make("span", { class: "soft" }, rest))));
    this.#stand();
    const [first] = list.querySelectorAll("button");
    if (list.children.length === 1 && document.activeElement !== first) first.focus({ preventScroll: true });
  }

  #sentence(piece) {
    const others = piece.answer.candidates.filter((candidate) => candidate !== piece.candidate).slice(0, 3);
    if (!others.length) return [];
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

  /** Stand below the word, or above it where there is more room, inside the window; the word stays in sight. */
  #stand() {
    if (!this.anchor) return;
    this.node.style.maxHeight = "";
    const word = this.anchor.getBoundingClientRect(), box = this.node.getBoundingClientRect(), view = document.documentElement;
    const below = view.clientHeight - word.bottom - GAP - MARGIN, above = word.top - GAP - MARGIN;
    const under = box.height <= below || below >= above;
    const height = Math.min(box.height, Math.max(LEAST, under ? below : above));
    const top = under ? word.bottom + GAP : word.top - GAP - height;
    this.node.style.maxHeight = `${height}px`;
    this.node.style.top = `${Math.max(MARGIN, Math.min(top, view.clientHeight - height - MARGIN))}px`;
    this.node.style.left = `${Math.max(MARGIN, Math.min(word.left, view.clientWidth - box.width - MARGIN))}px`;
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

/** Say how sure the model is of a sentence; a share of 1 that no one has promised a frequency for, so in round numbers. */
function sureness(piece) {
  const { confidence } = piece.candidate ?? {};
  return confidence === undefined ? "" : `Confidence ${Math.round(100 * confidence)}%`;
}

/** Yield what may stand in the place of a word, likelier ones first: {word, rest, prefix}. */
async function* others(request, piece, place, code, signal) {
  const prefix = piece.text.slice(0, place.start);
  const said = words(prefix, code).map((word) => bare(word.text));
  const known = [bare(place.text)];
  let best = piece.candidate?.log_prob ?? -Infinity;
  for (let fresh = true, count = 0; fresh && count < MOST; ) {
    fresh = false;
    const forbidden = known.filter((word) => !said.includes(word)); // what is said already cannot be forbidden
    const answer = await api.translate({ ...request, prefix, nbest: AT_A_TIME, forbidden }, signal);
    for (const { text, log_prob: logProb } of answer.translations[0].candidates) {
      best = Math.max(best, logProb);
      const after = text.startsWith(prefix) ? text.slice(prefix.length) : "";
      const [first] = words(after, code);
      const word = first && bare(first.text);
      if (!word || logProb < best - UNLIKELY || known.some((other) => other.toLowerCase() === word.toLowerCase())) continue;
      known.push(word);
      fresh = true;
      const rest = after.slice(first.end);
      yield { word, rest: after.slice(first.start + first.text.indexOf(word) + word.length), prefix: prefix + after.slice(0, first.end) + (/^\s/.test(rest) ? " " : "") };
      if (++count === MOST) return;
    }
  }
}
