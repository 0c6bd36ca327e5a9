// Colours, and the key of a server that asks for one.

import { announce, dialog, find } from "./dom.js";
import { forget, read, write } from "./store.js";

export class Settings {
  /** Opens on the document's event "key-needed"; dispatches "key-given" there when another key is given. */
  constructor() {
    this.open = dialog("settings-dialog", () => this.#draw());
    find("open-settings").addEventListener("click", this.open);
    find("theme").addEventListener("change", (event) => this.#colour(event.target.value));
    find("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use(find("key").value.trim());
    });
    document.addEventListener("key-needed", () => this.askForKey());
  }

  set about({ version, key_required: keyRequired }) {
    find("about").textContent = `Dragoman ${version}`;
    find("key-form").hidden = !keyRequired;
  }

  askForKey() {
    find("key-form").hidden = false;
    this.open();
    find("key").focus();
  }

  #draw() {
    find("theme").querySelector(`[value="${read("theme", "system")}"]`).checked = true;
    find("key").value = read("key", "");
  }

  #colour(theme) {
    if (theme === "system") {
      forget("theme");
      delete document.documentElement.dataset.theme;
    } else {
      write("theme", theme);
      document.documentElement.dataset.theme = theme;
    }
  }

  #use(key) {
    if (key) write("key", key);
    else forget("key");
    find("settings-dialog").close();
    announce(key ? "The key is kept." : "The key is forgotten.");
    document.dispatchEvent(new Event("key-given"));
  }
}
