// Sets the colours that were chosen before the page is drawn. Loaded on its own, ahead of the modules, so that a dark
// page does not flash white.
"use strict";
try {
  const theme = JSON.parse(localStorage.getItem("dragoman.theme"));
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is closed, or holds another's value: the device decides */ }
