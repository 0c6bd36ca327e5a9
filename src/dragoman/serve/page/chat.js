// The page "Chat": a conversation with a language model, or, for one that was not trained to converse, texts that it
// carries on. Answers are shown as they are written.

import * as api from "./api.js";
import { announce, copied, find, make } from "./dom.js";
import * as notice from "./notice.js";

export class ChatView {
  constructor(models) {
    this.models = models;
    this.model = models[0];
    this.messages = []; // {role, content}, as the server takes them
    this.controller = null;
    find("chat-model").replaceChildren(...models.map((model) => make("option", {}, model.name)));
    const name = models.some((model) => model.chat) ? "Chat" : "Write";
    for (const title of [find("chat-title"), find("chat-link")]) title.textContent = name;
    find("chat-model-label").hidden = models.length < 2;
    find("chat-model").addEventListener("change", (event) => this.#choose(models[event.target.selectedIndex]));
    find("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    find("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    find("stop").addEventListener("click", () => this.controller?.abort());
    find("chat-clear").addEventListener("click", () => this.#clear());
    this.#choose(this.model);
  }

  #choose(model) {
    this.model = model;
    find("send").textContent = model.chat ? "Send" : "Continue";
    find("question-label").textContent = model.chat ? "Message" : "Beginning of a text";
    find("question").placeholder = model.chat ? "Ask something" : "Begin a text; the model carries it on";
    find("talk").setAttribute("aria-label", model.chat ? "Conversation" : "Texts");
    this.#clear();
  }

  #clear() {
    this.controller?.abort();
    this.messages = [];
    find("talk").replaceChildren();
    find("chat-clear").hidden = true;
    notice.clear();
  }

  #send() {
    const text = find("question").value;
    if (this.controller || !text.trim()) return;
    find("question").value = "";
    notice.clear();
    this.messages.push({ role: "user", content: text });
    const said = make("div", { class: "turn yours", dir: "auto" }, text);
    if (this.model.chat) find("talk").append(make("div", { class: "who" }, "You"), said);
    this.#answer(text);
  }

  async #answer(text) {
    const answer = make("span", { class: "written" });
    const turn = make("div", { class: "turn", dir: "auto" }, ...(this.model.chat ? [] : [make("span", { class: "given" }, text)]), answer);
    const { messages } = this;
    find("talk").append(make("div", { class: "who" }, this.model.name), turn);
    this.#busy(true);
    this.controller = new AbortController();
    const { signal } = this.controller;
    let note = "";
    try {
      for await (const { piece, cut } of this.#pieces(text, signal)) {
        this.#append(answer, piece);
        if (cut) note = "Cut off at the longest answer.";
      }
    } catch (error) {
      note = signal.aborted ? "Stopped." : error.message;
      if (!answer.textContent && turn.isConnected) this.#takeBack(turn, text);
      if (!signal.aborted) this.#failed(error, answer);
    }
    messages.push({ role: "assistant", content: answer.textContent });
    if (turn.isConnected) this.#end(turn, note);
    this.controller = null;
    this.#busy(false);
  }

  async *#pieces(text, signal) {
    const sampling = { model: this.model.name, temperature: Number(find("temperature").value), max_tokens: Number(find("max-tokens").value) };
    const [path, asked] = this.model.chat ? ["v1/chat/completions", { messages: this.messages }] : ["v1/completions", { prompt: text }];
    for await (const { choices } of api.stream(path, { ...sampling, ...asked }, signal)) {
      const choice = choices?.[0];
      yield { piece: (this.model.chat ? choice?.delta?.content : choice?.text) ?? "", cut: choice?.finish_reason === "length" };
    }
  }

  #append(answer, piece) {
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
    answer.append(piece);
    if (atEnd) find("ask").scrollIntoView({ block: "end" }); // stay where the reader has scrolled to, otherwise
  }

  #end(turn, note) {
    turn.after(make("div", { class: "after" }, ...(note ? [make("span", { class: "soft" }, note)] : []), copyButton(turn)));
    find("chat-clear").hidden = false;
  }

  /** Take a turn back to which no answer came, so that it can be sent again. */
  #takeBack(turn, text) {
    const last = this.model.chat ? 4 : 2; // who and what of the answer, and of the question where it stands by itself
    for (const node of [...find("talk").children].slice(-last)) node.remove();
    this.messages = this.messages.slice(0, -1);
    find("question").value ||= text;
  }

  #failed(error, answer) {
    notice.show(error, error.passing && !answer.textContent ? () => this.#send() : null);
    if (error.needsKey) document.dispatchEvent(new Event("key-needed"));
  }

  #busy(busy) {
    find("talk").setAttribute("aria-busy", String(busy)); // the log is read when the answer is complete
    find("send").hidden = busy;
    find("stop").hidden = !busy;
    if (busy && document.activeElement === find("send")) find("stop").focus();
    else if (!busy) find("question").focus({ preventScroll: true });
  }
}

function copyButton(turn) {
  const copy = async () => announce((await copied(turn.textContent, turn)) ? "Copied." : "It is selected: copy it with the keyboard.");
  return make("button", { type: "button", class: "quiet", onclick: copy }, "Copy");
}
