// The page "Translate": typing, what stands, and what is asked of the server in between.

import * as api from "./api.js";
import { Alternatives } from "./alternatives.js";
import { announce, copied, find, make, number } from "./dom.js";
import { Draft } from "./draft.js";
import { languageName } from "./languages.js";
import { Live } from "./live.js";
import * as notice from "./notice.js";
import { Output } from "./output.js";
import { SourceBox } from "./source.js";

// Times in milliseconds. Half a word is not worth translating: its end is waited for. Who types without a pause gets a
// translation at the end of a word, now and then.
const AFTER_WORD = 120, WITHIN_WORD = 450, NOW_AND_THEN = 700, AT_LATEST = 3000, SETTLED = 900, PAST = 2500;
const FIRST = 8, LATER = 64; // sentences asked for at a time: few at first, so that something stands soon
const NBEST = 4;
const MOST_SAID = 300; // characters that are read aloud unasked
const UNSURE = 0.5; // confidence below which a sentence is marked

export class TranslateView {
  constructor(languages, glossary, history, limits) {
    Object.assign(this, { languages, glossary, history });
    this.source = new SourceBox(limits?.characters);
    this.output = new Output();
    this.alternatives = new Alternatives();
    this.draft = new Draft();
    this.live = new Live();
    this.controller = new AbortController();
    this.timers = {};
    this.firstChange = 0;
    this.said = "";
    this.#wire();
    this.#begin();
  }

  #wire() {
    this.source.addEventListener("input", () => this.#typed());
    this.source.addEventListener("point", (event) => this.#pointAtSource(event.detail));
    this.output.addEventListener("point", (event) => this.#pointAtOutput(event.detail));
    this.output.addEventListener("open", (event) => this.#open(event.detail));
    this.alternatives.addEventListener("choose", (event) => this.#choose(event.detail));
    this.alternatives.addEventListener("close", () => {
      if (document.activeElement === document.body) find("output").focus({ preventScroll: true }); // else the reader has gone on
    });
    this.languages.addEventListener("swap", () => { this.swapped = this.draft.translation; });
    this.languages.addEventListener("change", () => this.#begin());
    this.glossary.addEventListener("change", () => this.#begin());
    this.history.addEventListener("restore", (event) => this.#restore(event.detail));
    document.addEventListener("key-given", () => this.source.text && this.#typed());
    find("copy").addEventListener("click", () => this.#copy());
  }

  /** Begin anew with the languages, model and glossary that are chosen now. */
  #begin() {
    const { model, sourceName, targetName } = this.languages;
    find("source-label").textContent = sourceName;
    find("output-label").textContent = targetName;
    this.source.language = model.source;
    this.output.language = model.target;
    this.draft.reset({ splits: model.splits !== false, language: model.source || "en" });
    this.#hideDetected();
    if (this.swapped !== undefined) {
      this.source.text = this.swapped;
      this.swapped = undefined;
    } else if (this.source.text) this.#typed();
    else this.#draw();
  }

  #restore({ text, model }) {
    this.source.text = text;
    const known = this.languages.models.find((each) => each.name === model);
    if (known && known !== this.languages.model) this.languages.choose(known);
    find("source").focus();
  }

  #typed() {
    this.draft.update(this.source.text);
    this.#draw();
    this.#stop();
    if (this.source.excess > 0) return this.#tooLong();
    notice.clear();
    this.#later("ask", this.#pause(), () => this.#ask());
  }

  /** Return how long to wait for more to be typed. */
  #pause() {
    const now = performance.now();
    this.firstChange ||= now;
    const waited = now - this.firstChange;
    if (/[\p{L}\p{N}]$/u.test(this.source.beforeCaret)) return Math.max(0, Math.min(WITHIN_WORD, AT_LATEST - waited));
    return waited > NOW_AND_THEN ? 0 : AFTER_WORD;
  }

  #tooLong() {
    const { excess, limit } = this.source;
    notice.show(new Error(`The text is ${number(excess)} character${excess === 1 ? "" : "s"} too long: ${number(limit)} can be translated at once. A file may be longer.`));
  }

  #later(name, milliseconds, action) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(action, milliseconds);
  }

  /** Give up what is under way or planned: something newer comes. */
  #stop() {
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.controller.abort();
    this.controller = new AbortController();
  }

  /** Return the fields that go with every request. */
  #request() {
    const glossary = this.glossary.terms;
    const { model, tag } = this.languages;
    return { model: model.name, alignments: true, ...(glossary.length && { glossary }), ...(tag && { tags: [tag] }) };
  }

  /** Ask for what has no translation yet, some sentences at a time, so that the first ones stand soon. */
  async #ask() {
    this.firstChange = 0;
    const { signal } = this.controller;
    let wanted;
    try {
      for (let most = FIRST; (wanted = this.draft.next(most)); most = Math.min(LATER, 2 * most)) {
        const { texts, prefix } = wanted;
        const answer = await this.live.translate({ ...this.#request(), text: texts, nbest: NBEST, ...(prefix && { prefix }) }, signal);
        if (signal.aborted) return;
        this.draft.learn(wanted, answer.translations);
        this.#draw();
      }
      notice.clear();
    } catch (error) {
      if (wanted?.prefix && error.status === 422) return this.#takeBack(wanted.texts[0], error);
      return this.#failed(error, signal);
    }
    this.#detect(signal);
    this.#later("settle", SETTLED, () => this.#settle());
  }

  /** Typing rests: compare lines of several sentences with the server's answer to the whole, then say and remember. */
  async #settle() {
    const { signal } = this.controller;
    try {
      for (let lines; (lines = this.draft.unchecked()).length; ) {
        const answer = await this.live.translate({ ...this.#request(), text: lines }, signal);
        if (signal.aborted) return;
        this.draft.check(lines, answer.translations);
        this.#draw();
      }
    } catch (error) {
      if (!error.passing) return this.#failed(error, signal); // else what stands is good enough
    }
    if (!this.source.text.trim()) return;
    this.#say(this.draft.translation);
    this.#later("past", PAST, () => this.#remember());
  }

  /** Say a translation to screen readers, once. */
  #say(translation) {
    if (translation !== this.said) announce(translation.length > MOST_SAID ? "The translation is ready." : `Translation: ${translation}`);
    this.said = translation;
  }

  #remember() {
    const { model, title } = this.languages;
    this.history.add({ text: this.draft.text, translation: this.draft.translation, model: model.name, title, source: model.source, target: model.target });
  }

  /** Take a choice back that the server cannot translate with, such as one that a glossary forbids. */
  async #takeBack(source, error) {
    this.draft.choose(source, null);
    this.#draw();
    await this.#ask();
    notice.show(error);
  }

  #failed(error, signal) {
    if (signal.aborted || error.name === "AbortError") return;
    notice.show(error, error.passing ? () => this.#ask() : null);
    if (error.needsKey) document.dispatchEvent(new Event("key-needed"));
  }

  #draw() {
    const { pieces } = this.draft;
    this.source.draw(pieces);
    this.output.draw(pieces);
    find("copy").hidden = !this.draft.translation.trim();
    this.#drawDoubt(pieces);
    this.#drawWarnings(pieces.filter((piece) => piece.answer));
    this.#drawOthers(pieces.filter((piece) => piece.source));
  }

  /** Mark the sentences that the model is less sure of, and say how many there are. */
  #drawDoubt(pieces) {
    const doubtful = pieces.map((piece) => Boolean(piece.answer) && !withheld(piece) && (piece.answer.review || piece.candidate.confidence < UNSURE));
    const count = doubtful.filter(Boolean).length, all = pieces.filter((piece) => piece.source).length;
    find("confidence").textContent = !count ? "" : all === 1 ? "Less sure: please check" : `Less sure of ${count} of ${all} sentences: please check`;
    this.output.mark("doubtful", doubtful);
    this.output.mark("withheld", pieces.map(withheld));
  }

  #drawWarnings(pieces) {
    const said = new Set(pieces.flatMap((piece) => [...piece.answer.warnings, decided(piece)]).filter(Boolean));
    find("warnings").hidden = !said.size;
    find("warnings").replaceChildren(...[...said].map((text) => make("li", {}, text)));
  }

  /** List the other candidates where the text is one sentence; those of several are behind their words. */
  #drawOthers(pieces) {
    const [only] = pieces;
    const others = pieces.length === 1 && only.answer ? only.answer.candidates.filter((candidate) => candidate !== only.candidate) : [];
    find("others").hidden = !others.length;
    find("others-list").replaceChildren(...others.map((candidate) => make("li", {}, make("button", {
      type: "button", dir: "auto", lang: this.languages.target || null, onclick: () => this.#choose({ source: only.source, choice: { candidate } }),
    }, candidate.text))));
  }

  #pointAtOutput(place) {
    const links = place ? this.#links(place.piece) : [];
    this.output.highlight(place?.piece, place ? [place.word] : []);
    this.source.highlight(place?.piece, links.filter(([, to]) => to === place.word).map(([from]) => from));
  }

  #pointAtSource(place) {
    const links = place ? this.#links(place.piece) : [];
    this.source.highlight(place?.piece, place && links.length ? [place.word] : []);
    this.output.highlight(place?.piece, links.filter(([from]) => from === place.word).map(([, to]) => to));
  }

  #links(number) {
    return this.draft.pieces[number]?.candidate?.alignment ?? [];
  }

  #open({ piece, ...place }) {
    const sentence = this.draft.pieces[piece];
    if (sentence && !sentence.stale && !withheld(sentence)) this.alternatives.open(sentence, place, this.#request(), this.languages.target);
  }

  #choose({ source, choice }) {
    this.#stop();
    this.draft.choose(source, choice);
    this.#draw();
    this.#ask();
  }

  async #copy() {
    this.#remember();
    if (!(await copied(this.draft.translation, find("output")))) return announce("It is selected: copy it with the keyboard.");
    announce("Copied.");
    find("copy").textContent = "Copied";
    setTimeout(() => { find("copy").textContent = "Copy"; }, 1500);
  }

  /** Offer another model where the text looks like another language's. */
  async #detect(signal) {
    const { models, model, source } = this.languages;
    if (new Set(models.map((each) => each.source)).size < 2 || this.source.text.trim().length < 20) return this.#hideDetected();
    const found = await api.detect(this.source.text, signal).then(([best]) => best?.[0], () => null); // a server may not know languages
    const other = found && found.language !== source && models.find((each) => each.source === found.language && (each.target === model.target || each.target === source));
    if (signal.aborted) return;
    if (!other || found.confidence < 0.7) return this.#hideDetected();
    const name = languageName(other, "source");
    find("detected").replaceChildren(`This looks like ${name}. `, make("button", { type: "button", onclick: () => this.languages.choose(other) }, `Translate from ${name}`));
    find("detected").hidden = false;
  }

  #hideDetected() {
    find("detected").hidden = true;
  }
}

/** Return whether rules of the server stand in the place of a translation. */
const withheld = ({ answer, text }) => Boolean(answer?.decision) && answer.decision.text === text;

/** Say what rules of the server have decided, where their words are not what is shown. */
function decided({ answer, text }) {
  const { decision } = answer;
  if (!decision) return "";
  return decision.text !== text ? decision.text : decision.ticket ? `A person will look at it: ${decision.ticket}` : "";
}
