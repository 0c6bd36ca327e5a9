// The one place for errors: a sentence, and where it helps a button, or a second try by itself after the time that the
// server asks for.

import { find, make } from "./dom.js";

let timer = null;
let tries = 0;

export function clear() {
  clearInterval(timer);
  timer = null;
  tries = 0;
  find("notice").hidden = true;
  find("notice").replaceChildren();
}

/** Show an error. `again` repeats what failed, or helps otherwise; where the error will pass, it is called by itself. */
export function show(error, again = null, label = "Try now") {
  clearInterval(timer);
  const node = find("notice");
  node.hidden = false;
  node.replaceChildren(make("span", {}, said(error, again)));
  if (!again) return;
  const repeat = () => {
    clearInterval(timer);
    timer = null;
    again();
  };
  if (error.passing) countDown(node, error.retryAfter ?? Math.min(30, 2 ** ++tries), repeat);
  node.append(make("button", { type: "button", onclick: repeat }, label));
}

function said(error, again) {
  if (error.offline) return `${error.message} What you typed is kept here.`;
  if (error.status === 429 && again) return "The server is busy; this will be tried again.";
  return error.message;
}

function countDown(node, seconds, repeat) {
  let left = Math.max(1, Math.ceil(seconds));
  const shown = make("span", { class: "soft", "aria-hidden": "true" }, `in ${left} s`);
  node.append(shown);
  timer = setInterval(() => {
    left -= 1;
    shown.textContent = `in ${left} s`;
    if (left <= 0) repeat();
  }, 1000);
}

window.addEventListener("online", () => find("notice").querySelector("button")?.click());
