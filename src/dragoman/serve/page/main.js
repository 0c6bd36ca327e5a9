// Start: ask the server what it serves, make the pages that fit, and show the one that the address names.

import * as api from "./api.js";
import { ChatView } from "./chat.js";
import { find } from "./dom.js";
import { FilesView } from "./files.js";
import { Glossary } from "./glossary.js";
import { History } from "./history.js";
import { Languages } from "./languages.js";
import * as notice from "./notice.js";
import { Settings } from "./settings.js";
import { TranslateView } from "./translate.js";

const settings = new Settings();
const offered = []; // names of the pages that fit what is served

document.addEventListener("key-given", () => (offered.length ? notice.clear() : start()));
addEventListener("hashchange", show);
start();

async function start() {
  try {
    const about = await api.settings();
    settings.about = about;
    if (about.key_required && !api.key()) throw new api.ApiError("This server asks for a key.", { status: 401 });
    build(about, await api.models());
    notice.clear();
  } catch (error) {
    if (error.needsKey) {
      notice.show(error, () => settings.askForKey(), "Enter a key");
      settings.askForKey();
    } else notice.show(error, error.passing ? start : null);
  }
}

function build(about, { models, default: first }) {
  const translators = models.filter((model) => model.task === "translate");
  const writers = models.filter((model) => model.task === "generate");
  if (translators.length) {
    const languages = new Languages(translators, first);
    const glossary = new Glossary(languages);
    new TranslateView(languages, glossary, new History(), about.limits);
    offered.push("translate");
    if (about.files?.length) {
      new FilesView(languages, glossary, about);
      offered.push("files");
    }
  }
  if (writers.length) {
    new ChatView(writers);
    offered.push("chat");
  }
  find("nothing").hidden = offered.length > 0;
  show();
}

/** Show the page that the address names, or the first; the languages are for those that translate. */
function show() {
  const wanted = location.hash.slice(1);
  const shown = offered.includes(wanted) ? wanted : offered[0];
  for (const link of find("pages").children) {
    const { view } = link.dataset;
    link.hidden = !offered.includes(view) || offered.length < 2;
    if (view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    find(view).hidden = view !== shown;
  }
  find("languages").hidden = !["translate", "files"].includes(shown);
  const field = { translate: "source", chat: "question" }[shown];
  if (field && matchMedia("(pointer: fine)").matches) find(field).focus({ preventScroll: true }); // else a keyboard on glass would rise
}
