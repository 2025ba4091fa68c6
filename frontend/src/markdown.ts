import markdownIt, { type Env, type MarkdownIt, type Token } from "markdown-it";
import { copyButton, el } from "./dom";
import { highlight, type Run } from "./highlight";
import { DISPLAY, formula, maths } from "./maths";

// Markdown as DOM nodes. Model output is untrusted: markdown-it parses it, and its tokens are built node by node. Links
// may use only http, https and mailto, images aren't fetched, and HTML is shown as text.

// A longer paragraph is shown as plain text.
const INLINE_LIMIT = 10_000;

function parser(...rules: string[]): MarkdownIt {
  // A link's URL is checked when it is drawn, so that a refused link is still shown as text.
  const md = markdownIt({ html: false, linkify: true });
  md.validateLink = () => true;
  md.linkify.set({ fuzzyLink: false });
  md.linkify.add("www.", {
    validate: (text, at, linkify) => {
      const length = linkify.testSchemaAt(`http://www.${text.slice(at)}`, "http:", 5);
      return length > 6 ? length - 6 : 0;
    },
    normalize: (match) => {
      match.url = `http://${match.url}`;
    },
  });
  md.use(maths);
  md.core.ruler.enableOnly(rules);
  return md;
}

// Two passes: the first finds the blocks of the complete text, which is fast; the second parses the content of the blocks
// that changed.
const outer = parser("normalize", "block");
const inner = parser("inline", "linkify", "text_join");

interface Block {
  key: string;
  tokens: Token[];
  env: Env;
}

/** The top-level blocks of a text; blocks with the same key look the same. */
function split(text: string): Block[] {
  const env: Env = {};
  const tokens = outer.parse(text, env);
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const references = JSON.stringify(env.references ?? "");
  const blocks: Block[] = [];
  let start = 0;
  tokens.forEach((token, i) => {
    if (token.level !== 0 || token.nesting === 1) return;
    const [from, to] = tokens[start].map ?? [0, 0];
    const source = lines.slice(from, to).join("\n");
    const key = `${tokens[start].type}\n${source.includes("[") ? references : ""}\n${source}`;
    blocks.push({ key, tokens: tokens.slice(start, i + 1), env });
    start = i + 1;
  });
  return blocks;
}

/** A view of a Markdown text that may grow: `update(text)` builds only what changed. */
export class MarkdownView {
  readonly el = el("div", { class: "ll-md" });
  private blocks: { key: string; node: Node; code: CodeBlock | null }[] = [];
  private text: string | null = null;

  update(text: string): void {
    if (text === this.text) return;
    this.text = text;
    const blocks = split(text);
    let same = 0;
    while (same < blocks.length && this.blocks[same]?.key === blocks[same].key) same++;
    const old = this.blocks.splice(same);
    for (const block of blocks.slice(same)) {
      const [first] = block.tokens;
      // A growing code block keeps its elements, and thereby the selection and the scroll position.
      const grown = first.type === "fence" ? old.find((one) => one.code?.language === languageOf(first)) : undefined;
      if (grown?.code && this.blocks.length === same && grown === old[0]) {
        grown.code.update(codeOf(first));
        this.blocks.push({ key: block.key, node: grown.node, code: grown.code });
        old.shift();
        continue;
      }
      const { node, code } = drawn(block);
      this.blocks.push({ key: block.key, node, code });
    }
    for (const { node } of old) node.parentNode?.removeChild(node);
    for (const { node } of this.blocks.slice(same)) if (node.parentNode !== this.el) this.el.append(node);
  }
}

function drawn(block: Block): { node: Node; code: CodeBlock | null } {
  const [first] = block.tokens;
  if (first.type === "fence" || first.type === "code_block") {
    const code = new CodeBlock(codeOf(first), languageOf(first));
    return { node: code.el, code };
  }
  return { node: build(block)[0] ?? document.createTextNode(""), code: null };
}

/** A text as nodes. */
export function render(text: string): Node[] {
  return split(text).flatMap(build);
}

function build({ tokens, env }: Block): Node[] {
  for (const token of tokens) {
    if (token.type === "inline" && token.content.length > INLINE_LIMIT) token.type = "plain";
  }
  const state = new inner.core.State("", inner, env);
  state.tokens = tokens;
  inner.core.process(state);
  const root = document.createDocumentFragment();
  new Builder(root).add(tokens);
  return [...root.childNodes];
}

const TAGS = new Set([
  "em",
  "strong",
  "blockquote",
  "ul",
  "ol",
  "li",
  "table",
  "thead",
  "tbody",
  "tr",
  "th",
  "td",
  "p",
]);
// Elements with their own text direction, right to left or left to right; their content follows it.
const DIRECTED = new Set(["p", "blockquote", "li", "th", "td", "h3", "h4", "h5", "h6"]);

/** Builds nodes from tokens, in order. */
class Builder {
  private readonly open: Node[];

  constructor(root: Node) {
    this.open = [root];
  }

  add(tokens: Token[]): void {
    for (const token of tokens) {
      if (token.nesting === 1) this.enter(token);
      else if (token.nesting === -1) this.leave(token);
      else this.leaf(token);
    }
  }

  private get at(): Node {
    return this.open[this.open.length - 1];
  }

  private put(...nodes: (Node | string)[]): void {
    for (const node of nodes) this.at.appendChild(typeof node === "string" ? document.createTextNode(node) : node);
  }

  private enter(token: Token): void {
    if (token.hidden) return; // a paragraph in an item of a tight list
    const node = this.element(token);
    if (DIRECTED.has(node.localName) && !this.open.some((one) => (one as Element).hasAttribute?.("dir")))
      node.dir = "auto";
    if (token.type === "table_open") {
      const box = el("div", { class: "ll-table", tabindex: "0" });
      this.put(box);
      box.append(node);
    } else this.put(node);
    this.open.push(node);
  }

  private leave(token: Token): void {
    if (!token.hidden) this.open.pop();
  }

  private element(token: Token): HTMLElement {
    if (token.type === "heading_open") {
      // A chat is inside a page: its headings start below the page's.
      return document.createElement(`h${Math.min(Number(token.tag[1]) + 2, 6)}`);
    }
    if (token.type === "link_open") return link(attribute(token, "href"), attribute(token, "title"));
    if (token.type === "s_open") return el("del");
    const node = document.createElement(TAGS.has(token.tag) ? token.tag : "span");
    const align = /^text-align:(left|center|right)$/.exec(attribute(token, "style"));
    if (align) node.style.textAlign = align[1];
    const start = attribute(token, "start");
    if (token.tag === "ol" && start) node.setAttribute("start", start);
    return node;
  }

  private leaf(token: Token): void {
    switch (token.type) {
      case "inline":
        this.inline(token.children ?? []);
        break;
      case "fence":
      case "code_block":
        this.put(new CodeBlock(codeOf(token), languageOf(token)).el);
        break;
      case "code_inline":
        this.put(el("code", {}, token.content));
        break;
      case "math":
        this.put(formula(token.content, token.markup === DISPLAY));
        break;
      case "math_block":
        this.put(el("p", {}, formula(token.content, true), token.info));
        break;
      case "image":
        this.put(this.image(token));
        break;
      case "softbreak":
        this.put("\n"); // shown as a line break by the styles, as usual in chats
        break;
      case "hardbreak":
        this.put(el("br"));
        break;
      case "hr":
        this.put(el("hr"));
        break;
      default:
        this.put(token.content);
    }
  }

  private inline(tokens: Token[]): void {
    const [first] = tokens;
    const at = this.at as Element;
    const item = at.localName === "li" ? !at.hasChildNodes() : at.parentNode?.nodeName === "LI" && !at.previousSibling;
    const task = item && first?.type === "text" && /^\[([ xX])\]\s+/.exec(first.content);
    if (task) {
      this.put(el("input", { type: "checkbox", disabled: true, checked: task[1] !== " " }), " ");
      first.content = first.content.slice(task[0].length);
    }
    this.add(tokens);
  }

  /** A link to an image, which isn't fetched, because that would reveal the reader to its host. */
  private image(token: Token): Node | string {
    const address = attribute(token, "src");
    const text = `image: ${(token.children ?? []).map((one) => one.content || "\n".repeat(Number(one.type === "softbreak"))).join("") || address}`;
    if (this.open.some((node) => (node as Element).localName === "a" || (node as HTMLElement).dataset?.address))
      return text;
    const node = link(address, attribute(token, "title"));
    node.append(text);
    return node;
  }
}

/** A link if its URL is allowed; else its text only. */
function link(address: string, title: string): HTMLElement {
  if (!safe(address)) return el("span", { class: "ll-refused", "data-address": address, title: title || address });
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow", title: title || address });
}

function safe(address: string): boolean {
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(address).protocol);
  } catch {
    return false;
  }
}

function attribute(token: Token, name: string): string {
  return String(token.attrGet(name) ?? "");
}

function languageOf(token: Token): string {
  return token.type === "fence" ? (outer.utils.unescapeAll(token.info).trim().split(/\s/)[0] ?? "").slice(0, 30) : "";
}

function codeOf(token: Token): string {
  return token.content.replace(/\n$/, "");
}

/** A code block with its language, highlighting and a copy button. */
class CodeBlock {
  readonly el: HTMLElement;
  private readonly code = el("code");
  private runs: Run[] = [];

  constructor(
    text: string,
    readonly language: string,
  ) {
    if (language) this.code.className = `language-${language}`;
    this.el = el(
      "div",
      { class: "ll-code", dir: "ltr" },
      el(
        "div",
        { class: "ll-code-head" },
        el("span", {}, language || "code"),
        copyButton("Copy code", () => this.code.textContent ?? ""),
      ),
      el("pre", { tabindex: "0" }, this.code),
    );
    this.update(text);
  }

  update(text: string): void {
    const runs = highlight(text, this.language);
    let same = 0;
    while (same < runs.length && this.runs[same]?.[0] === runs[same][0] && this.runs[same][1] === runs[same][1]) same++;
    while (this.code.childNodes.length > same) this.code.lastChild?.remove();
    for (const [kind, piece] of runs.slice(same)) {
      this.code.append(kind ? el("span", { class: `ll-hl-${kind}` }, piece) : document.createTextNode(piece));
    }
    this.runs = runs;
  }
}
