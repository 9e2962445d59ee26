// Light, dark, or as the system has it. Runs before the page is drawn, so that it does not flash.
"use strict";

(() => {
  const NAMES = { system: "as the system", light: "light", dark: "dark" };
  const STORED = "narthex-theme";
  let theme = "system";
  try {
    theme = localStorage.getItem(STORED) ?? theme;
  } catch {
    // Storage may be switched off.
  }

  function show() {
    if (!(theme in NAMES)) theme = "system";
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (!button) return;
    button.textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
    button.title = `Colours: ${NAMES[theme]}`;
    button.setAttribute("aria-label", `Colours: ${NAMES[theme]}. Change`);
  }

  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      const names = Object.keys(NAMES);
      theme = names[(names.indexOf(theme) + 1) % names.length];
      try {
        localStorage.setItem(STORED, theme);
      } catch {
        // It holds until the page is closed.
      }
      show();
    });
  });
})();
