// The page of the server: puts its parts together, and what belongs to none of them: the key, the panel, the keyboard,
// dropped pictures. It talks to the server it came from and to nothing else.

import { at, copy, fit, notice, tell, when } from "./basics.js";
import { chat, open, send, showChat, showError, startChat, stop } from "./chat.js";
import { startEncoders } from "./encoders.js";
import { startHistory } from "./history.js";
import { licenseName, licenseOf, loadModels, model, startModel, taskOf } from "./model.js";
import { watchCopies } from "./rendering.js";
import { showCurl } from "./request.js";
import { key, useKey } from "./server.js";
import { startSettings } from "./settings.js";

// The model and the key

async function load() {
  try {
    await loadModels();
    if (!at("key-form").hidden) at("input").focus();
    at("key-form").hidden = true;
  } catch (error) {
    failed(error);
  }
}

function failed(error = null) {
  if (error === null) return load();
  if (error.status === 401) return askForKey(key ? error.message : "");
  showError(error.message, load);
}

function askForKey(message) {
  at("key-form").hidden = false;
  at("key-error").textContent = message;
  at("api-key").focus();
}

/// What a model can do decides what the page is.
function showKind() {
  const writes = taskOf(model) === "generate";
  for (const id of ["scroll", "composer", "settings", "conversations", "new-chat", "keys"]) at(id).hidden = !writes;
  at("system-field").hidden = !model.chat;
  at("forms").hidden = !model.chat;
  at("max-tokens").placeholder = model.chat ? "no limit" : "256";
  at("input").placeholder = model.chat ? "Write a message" : "Write the beginning of a text";
  at("welcome-title").textContent = model.chat ? "What shall we talk about?" : "Begin a text, the model goes on";
  if (writes && at("stop").hidden) showChat();
  if (!writes) at("title").textContent = model.id;
  showWelcome();
  showCurl();
}

function showWelcome() {
  const license = licenseOf();
  const papers = license
    ? `Licensed ${licenseName(license)}. What it was made from, and under which licences, is in the panel.`
    : "";
  at("welcome-text").textContent = model.chat
    ? papers
    : "This model has no chat template: it does not answer, it continues what you write.";
}

// The panel on small screens

function openSide(isOpen) {
  at("side").classList.toggle("open", isOpen);
  at("shade").hidden = !isOpen;
  at("open-side").setAttribute("aria-expanded", String(isOpen));
  at("main").inert = isOpen;
  if (isOpen) at("close-side").focus();
  else at("open-side").checkVisibility?.() && at("open-side").focus();
}

function newChat() {
  if (at("side").classList.contains("open")) openSide(false);
  open();
}

function onKey(event) {
  if (event.key === "Escape") {
    if (at("side").classList.contains("open")) openSide(false);
    else stop();
  } else if (
    (event.ctrlKey || event.metaKey) &&
    event.shiftKey &&
    event.key.toLowerCase() === "o" &&
    !at("new-chat").hidden
  ) {
    event.preventDefault();
    newChat();
  }
}

// Files: only text can be sent

function refuse(files) {
  const isPicture = [...files].every(({ type }) => type.startsWith("image/"));
  notice(
    `${isPicture ? "Pictures" : "Files"} cannot be sent: this model reads text only. ` +
      "Nothing was added; paste or write the text itself.",
  );
}

function watchFiles() {
  document.addEventListener("paste", (event) => {
    const { files, types } = event.clipboardData ?? {};
    // What an office program copies is text with a picture of it.
    if (!files?.length || types.includes("text/plain")) return;
    event.preventDefault();
    refuse(files);
  });
  document.addEventListener(
    "dragover",
    (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault(),
  );
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page for the file
    refuse(event.dataTransfer.files);
  });
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("input").addEventListener("input", () => fit(at("input")));
at("input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
at("stop").addEventListener("click", stop);
document.addEventListener("keydown", onKey);
at("copy-curl").addEventListener("click", (event) => copy(at("curl").textContent, event.currentTarget));
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("api-key").value);
  load();
});
at("open-side").addEventListener("click", () => openSide(true));
at("close-side").addEventListener("click", () => openSide(false));
at("shade").addEventListener("click", () => openSide(false));
at("new-chat").addEventListener("click", newChat);
at("history").addEventListener(
  "click",
  (event) => event.target.closest(".chat-title") && at("side").classList.contains("open") && openSide(false),
);

when("model", showKind);
when("papers", showWelcome);
when("settings", showCurl);
watchCopies(at("messages"));
watchFiles();
startSettings();
startModel(failed);
startEncoders();
startChat(failed);
startHistory();
if (chat.messages.length > 0) tell("chats");
load();
