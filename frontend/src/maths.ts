import katex from "katex";
import type { MarkdownIt } from "markdown-it";
import { el } from "./dom";

// Detects and draws maths. llmlab/render/maths.py has the same rule for cells; tests/maths_cases.json tests both.

export interface Formula {
  tex: string;
  display: boolean;
  /** The position after the closing delimiter. */
  end: number;
}

const DEEPEST = 20;
const LONGEST_BLOCK = 200; // lines
const STEP = /\\.|[{}]|\n[ \t]*(?=\n)|\$\$?/gs;
// "$5 (or 5$)": an amount followed by words is a price.
const PRICE = /^\d(?:.*\s)?\(?[A-Za-z]{2,}\s/s;

/**
 * The formula that starts at a position: \(…\), \[…\], $$…$$, or $…$ if it is maths.
 *
 * Its braces balance and it has no blank line. A single dollar opens a formula if it doesn't follow a letter or digit
 * and isn't followed by a space; it closes one if it doesn't follow a space and isn't followed by a digit, capital, _
 * or {.
 */
export function formulaAt(text: string, at: number): Formula | null {
  const opener = /^(?:\\[([]|\$\$?)/.exec(text.slice(at, at + 2))?.[0];
  if (!opener) return null;
  const single = opener === "$";
  const from = at + opener.length;
  if (single && (/[\p{L}\p{N}$]/u.test(text[at - 1] ?? "") || /^(?:\s|$)/.test(text.slice(from, from + 1))))
    return null;
  if (opener === "$$" && (text[from] === "$" || text[at - 1] === "$")) return null;
  const end = closing(text, from, opener);
  if (end < 0) return null;
  const tex = text.slice(from, end);
  const behind = end + opener.length;
  if (!/[^\s\\]/.test(tex)) return null;
  if (single && (/\s$/.test(tex) || /[0-9A-Z_{$]/.test(text[behind] ?? "") || PRICE.test(tex))) return null;
  return { tex: tex.trim(), display: opener === "$$" || opener === "\\[", end: behind };
}

function closing(text: string, from: number, opener: string): number {
  const close = { "\\(": "\\)", "\\[": "\\]" }[opener] ?? opener;
  let depth = 0;
  STEP.lastIndex = from;
  for (let found = STEP.exec(text); found; found = STEP.exec(text)) {
    const [mark] = found;
    if (mark === "{") depth += 1;
    else if (mark === "}") depth -= 1;
    else if (mark.startsWith("\n")) return -1;
    else if (depth === 0) {
      if (mark === close) return found.index;
      if (mark === opener || mark.startsWith("$")) return -1;
    }
    if (depth < 0 || depth > DEEPEST) return -1;
  }
  return -1;
}

/** The markup of a formula on a line of its own. */
export const DISPLAY = "$$";

/** Add maths to a parser: tokens `math` (inline) and `math_block`, with the TeX as content. */
export function maths(md: MarkdownIt): void {
  md.inline.ruler.before("escape", "math", (state, silent) => {
    const found = formulaAt(state.src, state.pos);
    if (!found || found.end > state.posMax) return false;
    if (!silent) {
      const token = state.push("math", "", 0);
      token.content = found.tex;
      token.markup = found.display ? DISPLAY : "$";
    }
    state.pos = found.end;
    return true;
  });
  const alt = ["paragraph", "reference", "blockquote", "list"];
  md.block.ruler.before("fence", "math_block", mathBlock, { alt });
}

type BlockRule = Parameters<MarkdownIt["block"]["ruler"]["before"]>[2];

/** $$…$$ and \[…\] that start and end at line boundaries. Inside, a line with "+ b" isn't a list. */
const mathBlock: BlockRule = (state, startLine, endLine, silent) => {
  if (state.sCount[startLine] - state.blkIndent >= 4) return false;
  const start = state.bMarks[startLine] + state.tShift[startLine];
  const opener = state.src.slice(start, start + 2);
  if (opener !== "$$" && opener !== "\\[") return false;
  const close = opener === "$$" ? "$$" : "\\]";
  let line = startLine;
  for (let from = start + 2; !state.src.slice(from, state.eMarks[line]).includes(close); from = state.bMarks[line]) {
    line += 1;
    if (line >= endLine || line - startLine > LONGEST_BLOCK) return false;
    if (state.isEmpty(line) || state.sCount[line] < state.blkIndent) return false;
  }
  const text = state.getLines(startLine, line + 1, state.blkIndent, false).trim();
  const found = formulaAt(text, 0);
  const behind = found && text.slice(found.end).trim();
  if (!found || !/^[.,;:]?$/.test(behind ?? "")) return false;
  if (silent) return true;
  const token = state.push("math_block", "", 0);
  token.content = found.tex;
  token.markup = DISPLAY;
  token.info = behind ?? "";
  token.map = [startLine, line + 1];
  state.line = line + 1;
  return true;
};

// Cached, because a formula is drawn repeatedly while its paragraph grows.
const drawn = new Map<string, HTMLElement>();
const KEPT = 400;

/** A formula as MathML, which needs no bundled fonts; as its source if KaTeX can't parse it. */
export function formula(tex: string, display: boolean): HTMLElement {
  const key = `${display}${tex}`;
  let node = drawn.get(key);
  if (!node) {
    node = draw(tex, display);
    if (drawn.size >= KEPT) drawn.clear();
    drawn.set(key, node);
  }
  return node.cloneNode(true) as HTMLElement;
}

function draw(tex: string, displayMode: boolean): HTMLElement {
  const node = el("span", { class: displayMode ? "ll-math ll-display" : "ll-math", dir: "ltr" });
  try {
    // TeX can't load or run anything: \href, \includegraphics and \html… are not trusted.
    katex.render(tex, node, {
      displayMode,
      output: "mathml",
      trust: false,
      strict: "ignore",
      maxExpand: 200,
      maxSize: 20,
    });
  } catch (error) {
    node.replaceChildren(el("code", { title: String(error) }, tex));
  }
  return node;
}
