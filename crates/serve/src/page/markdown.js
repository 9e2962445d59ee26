// Markdown as chat models write it, to a tree of nodes: a string, or {tag, attributes, children}. Knows no page.
//
// The rules, where they are fewer or other than CommonMark's:
// - Blocks: headings with # (their tags begin at h3, below the page's own), fenced code with ``` or ~~~ (also one not
//   yet closed), lists, quotes, tables with |, rules (---), paragraphs. Indented lines are no code.
// - Every line end within a paragraph is kept.
// - What belongs to a list item is indented by two or more. The first paragraph of an item has no <p>.
// - [ ] and [x] at the start of an item become ☐ and ☑.
// - Inline: `code`, *emphasis*, **strong**, ***both***, ~~struck out~~, [text](address), <address>, bare addresses.
//   Runs of * _ ~ pair with runs of the same length; one of three may close two that end together.
//   Within a word, _ is a letter.
// - Links lead to http and https only; any other stays text. A picture becomes a link to it: nothing is loaded.
// - HTML is text.
// - While an answer arrives (`open`), a ** or ` without its end holds until the end, so that text does not jump.
// - Nesting ends at DEPTH; what lies deeper is text.

const DEPTH = 16;
const LABEL_MAX = 500; // characters of a link's text

const FENCE = /^ *(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s|$)/;
const RULE = /^ {0,3}(?:(?:- *){3,}|(?:\* *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const MARKER = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;

const node = (tag, attributes, children) => ({ tag, attributes, children });
const indentOf = (line) => line.length - line.trimStart().length;
const isBlank = (line) => line.trim() === "";
/// Whether nothing but the end of a line comes from here on: then what stands before may still grow.
const isEnd = (lines, at) => at >= lines.length || (at === lines.length - 1 && isBlank(lines[at]));

/// The blocks of a text; each knows in which `line` it begins.
export function parse(text, open = false) {
  const lines = text
    .split("\n")
    .map((line) => line.replace(/\r$/, "").replace(/^\t+/, (tabs) => "    ".repeat(tabs.length)));
  return blocks(lines, open, 0);
}

function blocks(lines, open, depth) {
  const out = [];
  for (let at = 0; at < lines.length;) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const { end, made } = block(lines, at, open, depth);
    out.push({ ...made, line: at });
    at = end;
  }
  return out;
}

/// The block that begins at a line, and the line behind it.
function block(lines, at, open, depth) {
  const line = lines[at];
  const inner = (text, end) => inline(text, { open: open && isEnd(lines, end) });
  if (FENCE.test(line)) return code(lines, at);
  if (RULE.test(line)) return { end: at + 1, made: node("hr", {}, []) };
  const heading = HEADING.exec(line);
  if (heading) {
    const text = line
      .slice(heading[0].length)
      .trim()
      .replace(/(?:^|\s)#+$/, "");
    return { end: at + 1, made: node(`h${Math.min(heading[1].length + 2, 6)}`, {}, inner(text, at + 1)) };
  }
  if (QUOTE.test(line) && depth < DEPTH) {
    let end = at;
    while (end < lines.length && (QUOTE.test(lines[end]) || (!isBlank(lines[end]) && !begins(lines, end)))) end += 1;
    const quoted = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
    return { end, made: node("blockquote", {}, blocks(quoted, open && isEnd(lines, end), depth + 1)) };
  }
  if (MARKER.test(line) && depth < DEPTH) return list(lines, at, open, depth);
  if (isTable(lines, at)) return table(lines, at, inner);
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !begins(lines, end)) end += 1;
  const text = lines
    .slice(at, end)
    .map((line) => line.trim())
    .join("\n");
  return { end, made: node("p", { class: "text" }, inner(text, end)) };
}

/// Whether a line begins a block that ends a paragraph.
function begins(lines, at) {
  const line = lines[at];
  const marker = MARKER.exec(line);
  const isList = marker && marker[0].length < line.length && (!/\d/.test(marker[2]) || /^1[.)]/.test(marker[2]));
  return isList || [FENCE, RULE, HEADING, QUOTE].some((kind) => kind.test(line)) || isTable(lines, at);
}

function code(lines, at) {
  const [, fence, info] = FENCE.exec(lines[at]);
  const indent = indentOf(lines[at]);
  const closes = (line) => line.trim().length >= fence.length && [...line.trim()].every((char) => char === fence[0]);
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  const text = lines
    .slice(at + 1, end)
    .map((line) => line.slice(Math.min(indent, indentOf(line))))
    .join("\n");
  const language = info.trim().split(/\s/)[0].slice(0, 40);
  const head = node("div", { class: "code-head" }, [
    node("span", {}, [language || "text"]),
    node("button", { class: "quiet copy-code", type: "button", "aria-label": "Copy the code" }, ["Copy"]),
  ]);
  const name = language ? `Code, ${language}` : "Code";
  const pre = node("pre", { tabindex: "0", role: "group", "aria-label": name }, [node("code", {}, text ? [text] : [])]);
  return { end: end + 1, made: node("div", { class: "code" }, [head, pre]) };
}

function list(lines, start, open, depth) {
  const first = MARKER.exec(lines[start]);
  const ordered = /\d/.test(first[2]);
  const kind = (marker) => marker[2].at(-1);
  const indent = first[1].length;
  /// The marker of the next item of this list, if a line begins one.
  const next = (line) => {
    const marker = RULE.test(line) ? null : MARKER.exec(line);
    return marker && marker[1].length < indent + 2 && kind(marker) === kind(first) ? marker : null;
  };
  const items = [];
  let at = start;
  for (let marker = first; marker; marker = at < lines.length ? next(lines[at]) : null) {
    const spaces = marker[0].length - marker[1].length - marker[2].length;
    const offset = spaces > 4 ? marker[1].length + marker[2].length + 1 : marker[0].length;
    const body = [lines[at].slice(offset)];
    for (at += 1; at < lines.length; at += 1) {
      const line = lines[at];
      if (isBlank(line)) {
        let behind = at + 1;
        while (behind < lines.length && isBlank(lines[behind])) behind += 1;
        if (behind === lines.length || indentOf(lines[behind]) < indent + 2) {
          if (behind < lines.length && next(lines[behind])) at = behind;
          break;
        }
        body.push("");
      } else if (indentOf(line) >= indent + 2) {
        body.push(line.slice(Math.min(indentOf(line), offset)));
      } else if (begins(lines, at) || MARKER.test(line)) {
        break;
      } else {
        body.push(line);
      }
    }
    items.push(item(body, open && isEnd(lines, at), depth));
  }
  const number = Number.parseInt(first[2], 10);
  const attributes = ordered && number !== 1 ? { start: String(number) } : {};
  return { end: at, made: node(ordered ? "ol" : "ul", attributes, items) };
}

function item(body, open, depth) {
  body[0] = body[0].replace(/^\[([ xX])\] /, (_, mark) => (mark === " " ? "☐ " : "☑ "));
  const children = blocks(body, open, depth + 1);
  const [head, ...rest] = children;
  return node("li", {}, head?.tag === "p" ? [...head.children, ...rest] : children);
}

/// The cells of a row: | within code or behind \ is part of a cell.
function cells(line) {
  const out = [""];
  for (let at = 0, inCode = false; at < line.length; at += 1) {
    if (line[at] === "\\" && line[at + 1] === "|") out.push(`${out.pop()}${line[(at += 1)]}`);
    else if (line[at] === "|" && !inCode) out.push("");
    else {
      if (line[at] === "`") inCode = !inCode && line.includes("`", at + 1);
      out.push(out.pop() + line[at]);
    }
  }
  const trimmed = out.map((cell) => cell.trim());
  if (trimmed[0] === "") trimmed.shift();
  if (trimmed.at(-1) === "") trimmed.pop();
  return trimmed;
}

function isTable(lines, at) {
  const under = lines[at + 1];
  if (!lines[at].includes("|") || under === undefined || !/^[\s|:-]*-[\s|:-]*$/.test(under)) return false;
  const marks = cells(under);
  return marks.every((mark) => /^:?-+:?$/.test(mark)) && marks.length === cells(lines[at]).length;
}

function table(lines, at, inner) {
  const sides = cells(lines[at + 1]).map((mark) =>
    mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "end") : "start",
  );
  const row = (line, tag, place) => {
    const found = cells(line);
    const attributes = (side) => ({ class: `to-${side}`, ...(tag === "th" ? { scope: "col" } : {}) });
    return node(
      "tr",
      {},
      sides.map((side, index) => node(tag, attributes(side), inner(found[index] ?? "", place + 1))),
    );
  };
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && !isBlank(lines[end])) end += 1;
  const rows = lines.slice(at + 2, end).map((line, index) => row(line, "td", at + 2 + index));
  const made = node("table", {}, [node("thead", {}, [row(lines[at], "th", at)]), node("tbody", {}, rows)]);
  const frame = { class: "table", tabindex: "0", role: "group", "aria-label": "Table" };
  return { end, made: node("div", frame, [made]) };
}

// Within a line

const isSpace = (char) => char === undefined || /\s/.test(char);
const isWord = (char) => char !== undefined && /[\p{L}\p{N}_]/u.test(char);

/// Marks within a text. `how`: whether the text may go on (`open`), how deep it lies, whether it is a link's.
function inline(text, how) {
  const { open = false, depth = 0, linked = false } = how;
  const out = [];
  const dead = new Set(); // marks of which no end lies ahead
  let plain = "";
  const deeper = (part, more = {}) => inline(part, { ...how, depth: depth + 1, ...more });
  for (let at = 0; at < text.length;) {
    const char = text[at];
    if (char === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    let found = null;
    let length = 1;
    if ("`*_~".includes(char)) {
      while (text[at + length] === char) length += 1;
      const read = char === "`" ? codeSpan : emphasis;
      if (depth < DEPTH) found = read(text, at, length, { open, dead, deeper });
    } else if (!linked && depth < DEPTH) {
      const isLink = char === "[" || (char === "!" && text[at + 1] === "[");
      if (isLink && !dead.has("](")) found = link(text, at, dead, deeper);
      else if (char === "<" || char === "h") found = address(text, at);
    }
    if (found) {
      if (plain) out.push(plain);
      plain = "";
      out.push(found.made);
      at = found.end;
    } else {
      plain += text.slice(at, at + length);
      at += length;
    }
  }
  if (plain) out.push(plain);
  return out;
}

/// Where a run of so many of a character begins that is neither longer nor shorter.
function runAt(text, from, char, length) {
  for (let at = text.indexOf(char, from); at >= 0; at = text.indexOf(char, at)) {
    let end = at;
    while (text[end] === char) end += 1;
    if (end - at === length) return at;
    at = end;
  }
  return -1;
}

function codeSpan(text, at, length, { open, dead }) {
  const mark = "`".repeat(length);
  if (dead.has(mark)) return null;
  let close = runAt(text, at + length, "`", length);
  if (close < 0) {
    dead.add(mark);
    if (!open || length > 1 || text.includes("\n", at)) return null;
    close = text.length;
  }
  const content = text.slice(at + length, close);
  const padded = content.startsWith(" ") && content.endsWith(" ") && content.trim() !== "";
  return { made: node("code", {}, [padded ? content.slice(1, -1) : content]), end: close + length };
}

function emphasis(text, at, length, { open, dead, deeper }) {
  const char = text[at];
  const mark = char.repeat(length);
  if (length > 3 || (char === "~" && length !== 2) || isSpace(text[at + length])) return null;
  if (char === "_" && isWord(text[at - 1])) return null;
  const find = (width) => {
    const searched = char.repeat(width);
    const found = dead.has(searched) ? -1 : closeOf(text, at + length, char, width);
    if (found < 0) dead.add(searched);
    return found;
  };
  let close = find(length);
  let width = length;
  if (close < 0 && length === 3) {
    // `***both** one*`: the outer mark is the one that ends last.
    const [one, two] = [find(1), find(2)];
    [close, width] = one > two ? [one, 1] : [two, 2];
  }
  if (close < 0) {
    if (!open || mark !== "**") return null;
    close = text.length;
  }
  const inner = deeper(text.slice(at + width, close));
  const tag = char === "~" ? "del" : width === 1 ? "em" : "strong";
  const made = node(tag, {}, width === 3 ? [node("em", {}, inner)] : inner);
  return { made, end: close + width };
}

/// Where the mark lies that ends an emphasis; code and escaped characters are stepped over.
function closeOf(text, from, char, length) {
  for (let at = from; at < text.length;) {
    let run = 1;
    while (text[at + run] === text[at]) run += 1;
    if (text[at] === "\\") {
      at += 2;
    } else if (text[at] === "`") {
      const close = runAt(text, at + run, "`", run);
      at = close < 0 ? at + run : close + run;
    } else if (text[at] === char) {
      const ends = at > from && !isSpace(text[at - 1]) && !(char === "_" && isWord(text[at + run]));
      if (ends && run === length) return at;
      if (ends && run === 3 && length < 3) return at + run - length;
      at += run;
    } else {
      at += 1;
    }
  }
  return -1;
}

/// An address that a link may lead to; null for all others.
function safe(text) {
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

const anchor = (href, children) => node("a", { href, target: "_blank", rel: "noopener noreferrer" }, children);

function link(text, at, dead, deeper) {
  if (text.indexOf("](", at) < 0) {
    dead.add("](");
    return null;
  }
  const isPicture = text[at] === "!";
  const start = at + (isPicture ? 2 : 1);
  let close = start;
  for (let level = 1; close < text.length && close - start < LABEL_MAX; close += 1) {
    if (text[close] === "\\") close += 1;
    else if (text[close] === "[") level += 1;
    else if (text[close] === "]" && (level -= 1) === 0) break;
  }
  const target = /\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
  target.lastIndex = close + 1;
  const found = text[close] === "]" ? target.exec(text) : null;
  const href = found && safe(found[1]);
  if (!href) return null;
  const label = deeper(text.slice(start, close), { linked: true });
  const shown = label.length > 0 ? label : [href];
  return { made: anchor(href, isPicture ? ["Picture: ", ...shown] : shown), end: target.lastIndex };
}

function address(text, at) {
  const isMarked = text[at] === "<";
  if (!isMarked && isWord(text[at - 1])) return null;
  const pattern = isMarked ? /<(https?:\/\/[^\s<>]+)>/y : /(https?:\/\/[^\s<>"'`]+)/y;
  pattern.lastIndex = at;
  const found = pattern.exec(text);
  if (!found) return null;
  let shown = found[1];
  // A full stop behind an address belongs to the sentence, and so does a bracket that was opened before it.
  const count = (char) => shown.split(char).length;
  while (!isMarked && (".,;:!?*_~|]}".includes(shown.at(-1)) || (shown.endsWith(")") && count(")") > count("(")))) {
    shown = shown.slice(0, -1);
  }
  const href = safe(shown);
  return href && { made: anchor(href, [shown]), end: isMarked ? pattern.lastIndex : at + shown.length };
}
