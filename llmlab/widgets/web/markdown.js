import { copyButton, el } from "./dom.js";

// Markdown as DOM nodes. Model text is untrusted: it only ever becomes text nodes, links go to http, https and mailto
// alone, images aren't fetched, HTML shows as the text it is. Work is linear in the text's length, near enough:
// a paragraph longer than INLINE_LIMIT is shown plain, and only blocks that changed are built again.

const INLINE_LIMIT = 8000;
const DEPTH = 6;
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** A view of a Markdown text that may grow: `update(text)` builds only what changed. */
export class MarkdownView {
  constructor() {
    this.el = el("div", { class: "ll-md" });
    this.blocks = [];
    this.text = null;
  }

  update(text) {
    if (text === this.text) return;
    this.text = text;
    const blocks = split(text);
    let same = 0;
    while (same < blocks.length && same < this.blocks.length && this.blocks[same].key === blocks[same].key) same++;
    for (const old of this.blocks.slice(same)) {
      // A code block that grows keeps its elements, and with them a selection and the scroll position.
      const next = blocks[same];
      if (old === this.blocks[same] && next?.kind === "code" && old.kind === "code" && old.language === next.language) {
        next.node = old.node;
        next.node.querySelector("code").textContent = next.lines.join("\n");
      } else old.node.remove();
    }
    for (let i = 0; i < blocks.length; i++) {
      if (i < same) blocks[i].node = this.blocks[i].node;
      else if (!blocks[i].node) {
        blocks[i].node = build(blocks[i], 0);
        this.el.append(blocks[i].node);
      }
    }
    this.blocks = blocks;
  }
}

/** The blocks of a text: kind, lines, and a key that says whether two are the same. */
export function split(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  const push = (kind, from, to, more = {}) => {
    const source = lines.slice(from, to);
    blocks.push({ kind, lines: source, key: `${kind}\n${more.language ?? ""}\n${source.join("\n")}`, ...more });
  };
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (!line.trim()) {
      i++;
      continue;
    }
    const start = i;
    const fence = line.length < 400 && FENCE.exec(line);
    if (fence) {
      const close = new RegExp(`^ {0,3}${fence[2][0] === "`" ? "`" : "~"}{${fence[2].length},}\\s*$`);
      i++;
      while (i < lines.length && !(lines[i].length < 400 && close.test(lines[i]))) i++;
      const body = lines.slice(start + 1, i);
      i++;
      const language = fence[3].trim().split(/\s/)[0].slice(0, 30);
      blocks.push({ kind: "code", lines: body, language, key: `code\n${language}\n${body.join("\n")}` });
    } else if (HEADING.test(line.slice(0, 1000))) {
      push("heading", i, ++i);
    } else if (line.length < 400 && RULE.test(line)) {
      push("rule", i, ++i);
    } else if (QUOTE.test(line)) {
      while (i < lines.length && QUOTE.test(lines[i])) i++;
      push("quote", start, i);
    } else if (ITEM.test(line)) {
      const [, lead, mark] = ITEM.exec(line);
      i++;
      while (i < lines.length) {
        if (lines[i].trim()) {
          const next = ITEM.exec(lines[i]);
          if (next && next[1].length <= lead.length + 1 && /\d/.test(next[2]) !== /\d/.test(mark)) break;
          if (!ITEM.test(lines[i]) && !/^\s{2,}/.test(lines[i]) && !lines[i - 1].trim()) break;
          if (starts(lines, i) && !ITEM.test(lines[i]) && !/^\s{2,}/.test(lines[i])) break;
        } else if (!(i + 1 < lines.length && (ITEM.test(lines[i + 1]) || /^\s{2,}\S/.test(lines[i + 1])))) break;
        i++;
      }
      push("list", start, i);
    } else if (isTable(lines, i)) {
      i += 2;
      while (i < lines.length && lines[i].includes("|") && lines[i].trim()) i++;
      push("table", start, i);
    } else {
      i++;
      while (i < lines.length && lines[i].trim() && !starts(lines, i)) i++;
      push("paragraph", start, i);
    }
  }
  return blocks;
}

function isTable(lines, i) {
  const next = lines[i + 1];
  return lines[i].includes("|") && next?.includes("-") && next.includes("|") && next.length < 2000 && TABLE_LINE.test(next);
}

function starts(lines, i) {
  const line = lines[i].slice(0, 1000);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line) || isTable(lines, i);
}

function build(block, depth) {
  const { kind, lines } = block;
  if (kind === "code") return codeBlock(lines.join("\n"), block.language);
  if (kind === "rule") return el("hr");
  if (kind === "heading") {
    const found = HEADING.exec(lines[0]);
    // A chat sits inside a page: its headings start below the page's own.
    return found
      ? el(`h${Math.min(found[1].length + 2, 6)}`, {}, inline(found[2]))
      : el("p", {}, inline(lines[0]));
  }
  if (kind === "quote") {
    const inner = lines.map((line) => QUOTE.exec(line)?.[1] ?? line).join("\n");
    return el("blockquote", {}, nested(inner, depth));
  }
  if (kind === "list") return list(lines, depth);
  if (kind === "table") return table(lines);
  return el("p", {}, inline(lines.join("\n")));
}

function nested(text, depth) {
  if (depth >= DEPTH) return [el("p", {}, text)];
  return split(text).map((block) => build(block, depth + 1));
}

/** A code block with its language and a copy button. */
export function codeBlock(text, language) {
  const code = el("code", {}, text);
  return el(
    "div",
    { class: "ll-code" },
    el(
      "div",
      { class: "ll-code-head" },
      el("span", {}, language || "code"),
      copyButton("Copy code", () => code.textContent),
    ),
    el("pre", { tabindex: "0" }, code),
  );
}

function list(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const indent = first[1].length;
  const ordered = /\d/.test(first[2]);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent + 1) items.push({ width: found[0].length - found[3].length, lines: [found[3]] });
    else items[items.length - 1].lines.push(line);
  }
  const node = el(ordered ? "ol" : "ul", ordered ? { start: Number.parseInt(first[2], 10) } : {});
  for (const item of items) {
    const [head, ...rest] = item.lines;
    const strip = new RegExp(`^\\s{0,${item.width}}`);
    const below = rest.map((line) => line.replace(strip, ""));
    const task = /^\[([ xX])\]\s+(.*)$/.exec(head);
    const lead = task ? [el("input", { type: "checkbox", disabled: true, checked: task[1] !== " " }), " "] : [];
    // Text right below belongs to the item's own paragraph.
    let own = task ? task[2] : head;
    while (below.length && below[0].trim() && !starts(below, 0)) own += `\n${below.shift()}`;
    node.append(el("li", {}, lead, inline(own), below.some((line) => line.trim()) ? nested(below.join("\n"), depth) : null));
  }
  return node;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
  const align = cells(lines[1]).map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : "left"));
  const row = (line, tag) =>
    el("tr", {}, cells(line).slice(0, 60).map((c, i) => el(tag, { style: `text-align:${align[i] ?? "left"}` }, inline(c))));
  return el(
    "div",
    { class: "ll-table", tabindex: "0" },
    el("table", {}, el("thead", {}, row(lines[0], "th")), el("tbody", {}, lines.slice(2).map((line) => row(line, "td")))),
  );
}

/** The address if it may be followed, else null. */
export function safeUrl(address) {
  try {
    const url = new URL(address.trim());
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

const SPECIAL = /[\\`*_~[!h\n]/g;
const WORD = /[\p{L}\p{N}_]/u;

/** A line or paragraph as nodes: code, strong, emphasis, strike, links, line breaks. */
export function inline(text, depth = 0) {
  if (text.length > INLINE_LIMIT || depth > DEPTH) return [text];
  const out = [];
  const absent = new Set();
  let from = 0;
  let at = 0;
  // Where a closer isn't found once, it isn't looked for again: else "**********" would take forever.
  const find = (what, start) => {
    if (absent.has(what)) return -1;
    const place = text.indexOf(what, start);
    if (place < 0) absent.add(what);
    return place;
  };
  const flush = (to) => {
    if (to > from) out.push(text.slice(from, to));
  };
  const emit = (start, node, end) => {
    flush(start);
    out.push(node);
    from = at = end;
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    at = found.index;
    const c = text[at];
    if (c === "\\" && /[\\`*_~[\]()#+\-.!|<>{}]/.test(text[at + 1] ?? "")) {
      flush(at);
      from = at + 1;
      at += 2;
    } else if (c === "\n") {
      emit(at, el("br"), at + 1);
    } else if (c === "`") {
      const run = /^`+/.exec(text.slice(at, at + 20))[0];
      const end = find(run, at + run.length);
      if (end > 0 && text[end + run.length] !== "`") {
        emit(at, el("code", {}, text.slice(at + run.length, end).replace(/^ (.+) $/, "$1")), end + run.length);
      } else at += run.length;
    } else if (c === "*" || c === "_" || c === "~") {
      const double = text[at + 1] === c;
      const mark = double ? c + c : c;
      const inner = at + mark.length;
      const end = c === "~" && !double ? -1 : find(mark, inner + 1);
      const opens = text[inner] !== undefined && !/\s/.test(text[inner]) && !(c === "_" && WORD.test(text[at - 1] ?? ""));
      const closes = end > 0 && !/\s/.test(text[end - 1]) && !(c === "_" && WORD.test(text[end + mark.length] ?? ""));
      if (opens && closes && !(mark === "*" && text[end + 1] === "*")) {
        const tag = c === "~" ? "del" : double ? "strong" : "em";
        emit(at, el(tag, {}, inline(text.slice(inner, end), depth + 1)), end + mark.length);
      } else at += mark.length;
    } else if (c === "[" || (c === "!" && text[at + 1] === "[")) {
      const open = c === "!" ? at + 1 : at;
      const middle = find("](", open + 1);
      const end = middle > 0 ? text.indexOf(")", middle) : -1;
      const label = middle > 0 ? text.slice(open + 1, middle) : "";
      if (end > 0 && end - middle < 2000 && !label.includes("[")) {
        const url = safeUrl(text.slice(middle + 2, end).replace(/\s+"[^"]*"$/, ""));
        if (url) {
          // An image isn't fetched: it would tell its host who reads this, and when.
          const shown = c === "!" ? [`image: ${label || url}`] : inline(label, depth + 1);
          emit(at, link(url, shown), end + 1);
        } else at = open + 1;
      } else at = open + 1;
    } else if (c === "h") {
      const address = !WORD.test(text[at - 1] ?? "") && /^https?:\/\/[^\s<>"'`]+/.exec(text.slice(at, at + 2000))?.[0];
      const trimmed = address && address.replace(/[.,;:!?)\]*_~]+$/, "");
      const url = trimmed && safeUrl(trimmed);
      if (url) emit(at, link(url, [trimmed]), at + trimmed.length);
      else at += 1;
    } else at += 1;
  }
  flush(text.length);
  return out;
}

function link(url, children) {
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: url }, children);
}
