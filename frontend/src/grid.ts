import type { AnyModel } from "@anywidget/types";
import { answerColumn, showStandings } from "./compare";
import { button, el, num, options } from "./dom";
import { type Context, type Frame, frame } from "./frame";
import { MarkdownView } from "./markdown";
import type { GridCell, GridState } from "./state";
import { visible } from "./tokens";
import { showVote } from "./votes";

// An experiment's answers: prompts by variants. Arrow keys move, Enter opens, + and - rate, Escape closes; in blind
// pairs, A and B choose, T is a tie, S skips.

type Order = "given" | "differ" | `score:${string}`;

class GridView {
  readonly f: Frame<GridState>;
  private readonly model: AnyModel<GridState>;
  private readonly filter: HTMLInputElement;
  private readonly sort: HTMLSelectElement;
  private readonly only: HTMLSelectElement;
  private readonly sheet = el("div", { class: "ll-sheet" });
  private readonly opened = el("section", { class: "ll-opened", hidden: true, "aria-label": "The whole answer" });
  private readonly pair = el("section", { class: "ll-pair", hidden: true, "aria-label": "Which answer is better?" });
  private readonly count = el("span", { class: "ll-quiet", "aria-live": "polite" });
  private readonly tally = el("div", { class: "ll-quiet ll-below" });
  private readonly standings = el("details", { class: "ll-standings ll-below", hidden: true });
  private readonly tools: HTMLElement;
  private at: [line: number, column: number] = [0, 0];
  private lines: number[] = [];
  private body: HTMLElement = el("tbody");
  private asTokens = false;

  constructor(context: Context<GridState>) {
    this.model = context.model;
    this.f = frame(context, "experiment", "Experiment: prompts by variants");
    this.filter = el("input", {
      class: "ll-input",
      type: "search",
      placeholder: "Filter prompts and answers",
      "aria-label": "Filter prompts and answers",
    });
    this.sort = el("select", { class: "ll-select", "aria-label": "Order of the prompts" });
    this.only = el("select", { class: "ll-select", "aria-label": "Which prompts" });
    options(
      this.only,
      [
        ["all", "all prompts"],
        ["differ", "answers differ"],
        ["failed", "failed"],
        ["rated", "rated"],
        ["unrated", "not rated"],
      ],
      "all",
    );
    for (const [node, event] of [
      [this.filter, "input"],
      [this.sort, "change"],
      [this.only, "change"],
    ] as const)
      node.addEventListener(event, () => this.render());
    const pairs = button("Compare answers in blind pairs", {
      text: "Compare pairs",
      cls: "ll-change",
      onclick: () => this.f.send("pairs"),
    });
    this.tools = el(
      "div",
      { class: "ll-bar" },
      el("b", {}, "Experiment"),
      this.filter,
      this.sort,
      this.only,
      el("span", { class: "ll-space" }),
      this.count,
      pairs,
    );
    this.f.root.append(this.tools, this.sheet, this.opened, this.pair, this.tally, this.standings);
    this.f.root.addEventListener("keydown", (event) => this.key(event));
    this.f.watch(["cells", "questions", "variants", "scores"], () => this.render());
    this.f.watch(["opened"], () => this.showOpened());
    this.f.watch(["pair"], () => this.showPair());
    this.f.watch(["standings"], () => showStandings(this.standings, this.model.get("standings")));
    this.f.watch(["tally", "title"], () => {
      const parts = [this.model.get("title"), this.model.get("tally")];
      this.tally.textContent = parts.filter(Boolean).join(" · ");
    });
  }

  // -- the sheet ---------------------------------------------------------------------------------------------------

  private byPlace(): Map<string, GridCell> {
    return new Map(this.model.get("cells").map((one) => [`${one.question} ${one.variant}`, one]));
  }

  private render() {
    const { model } = this;
    const variants = model.get("variants");
    const questions = model.get("questions");
    const items: [string, string][] = [
      ["given", "in order"],
      ["differ", "most different answers first"],
      ...model.get("scores").map((one): [string, string] => [`score:${one}`, `lowest ${one} first`]),
    ];
    options(this.sort, items, this.sort.value || "given");
    const places = this.byPlace();
    const rowOf = (question: number) => variants.map((_, variant) => places.get(`${question} ${variant}`));
    this.lines = order(
      questions.map((_, i) => i).filter((i) => this.shows(questions[i].text, rowOf(i))),
      this.sort.value as Order,
      rowOf,
    );
    const shown = `${num(this.lines.length)} of ${num(questions.length)} prompts`;
    this.count.textContent = shown;
    const head = el(
      "tr",
      {},
      el("th", { scope: "col" }, "prompt"),
      variants.map((one) => el("th", { scope: "col" }, one)),
    );
    this.body = el(
      "tbody",
      {},
      this.lines.map((question, line) =>
        el(
          "tr",
          {},
          el(
            "th",
            { scope: "row", dir: "auto" },
            el("div", { class: "ll-preview" }, questions[question].text),
            questions[question].reference &&
              el("div", { class: "ll-quiet" }, `expected: ${questions[question].reference}`),
          ),
          rowOf(question).map((cell, column) => this.cell(cell, line, column)),
        ),
      ),
    );
    this.at = [
      Math.min(this.at[0], Math.max(this.lines.length - 1, 0)),
      Math.min(this.at[1], Math.max(variants.length - 1, 0)),
    ];
    const focused = this.sheet.contains(document.activeElement);
    this.sheet.replaceChildren(el("table", { role: "grid", "aria-label": shown }, el("thead", {}, head), this.body));
    this.mark(focused);
  }

  private shows(prompt: string, cells: (GridCell | undefined)[]): boolean {
    const wanted = this.filter.value.trim().toLowerCase();
    const texts = [prompt, ...cells.map((one) => one?.text ?? "")];
    if (wanted && !texts.some((text) => text.toLowerCase().includes(wanted))) return false;
    switch (this.only.value) {
      case "differ":
        return distinct(cells) > 1;
      case "failed":
        return cells.some((one) => one?.error);
      case "rated":
        return cells.some((one) => one?.thumb);
      case "unrated":
        return cells.some((one) => one && !one.thumb && !one.error);
      default:
        return true;
    }
  }

  private cell(cell: GridCell | undefined, line: number, column: number) {
    const go = () => {
      this.at = [line, column];
      this.mark(true);
      this.open();
    };
    const scores = Object.entries(cell?.scores ?? {})
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} ${score(value)}`)
      .join(" · ");
    const thumb = cell?.thumb ? (cell.thumb > 0 ? " 👍" : " 👎") : "";
    return el(
      "td",
      { role: "gridcell", tabindex: "-1", onclick: go },
      cell?.error
        ? el("div", { class: "ll-failed" }, `failed: ${cell.error}`)
        : el("div", { class: "ll-preview", dir: "auto" }, cell ? cell.text || "(no text)" : "–"),
      (scores || thumb) && el("div", { class: "ll-quiet" }, `${scores}${thumb}`),
    );
  }

  private node([line, column]: [number, number]): HTMLElement | undefined {
    return this.body.children[line]?.querySelectorAll<HTMLElement>("td")[column];
  }

  /** Mark the current cell, and focus it if the grid has the keys. */
  private mark(focus: boolean) {
    for (const one of this.body.querySelectorAll("td")) {
      one.setAttribute("tabindex", "-1");
      one.setAttribute("aria-selected", "false");
    }
    const now = this.node(this.at);
    now?.setAttribute("tabindex", "0");
    now?.setAttribute("aria-selected", "true");
    if (focus) now?.focus();
  }

  private current(): GridCell | undefined {
    return this.byPlace().get(`${this.lines[this.at[0]]} ${this.at[1]}`);
  }

  private open() {
    const cell = this.current();
    if (cell) this.f.send("open", { row: cell.row });
  }

  // -- keys --------------------------------------------------------------------------------------------------------

  private key(event: KeyboardEvent) {
    const target = event.target as HTMLElement;
    const { key } = event;
    if (key === "Escape") {
      this.f.send("shut");
      this.mark(true);
      return;
    }
    if (["INPUT", "SELECT"].includes(target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const vote = { a: "a", b: "b", t: "tie", s: "skip" }[key.toLowerCase()];
    if (this.model.get("pair").prompt !== undefined && vote) {
      this.f.send("verdict", { winner: vote });
      event.preventDefault();
      return;
    }
    const steps: Record<string, [number, number]> = {
      ArrowDown: [1, 0],
      ArrowUp: [-1, 0],
      ArrowRight: [0, 1],
      ArrowLeft: [0, -1],
    };
    if (key in steps && target.tagName === "TD") {
      const [line, column] = [this.at[0] + steps[key][0], this.at[1] + steps[key][1]];
      if (this.node([line, column])) {
        this.at = [line, column];
        this.mark(true);
        if (this.model.get("opened").row !== undefined) this.open();
      }
    } else if (key === "Enter" && target.tagName === "TD") this.open();
    else if (key === "+" || key === "-") this.rate(key === "+" ? 1 : -1);
    else if (key === "/") this.filter.focus();
    else return;
    event.preventDefault();
  }

  private rate(thumb: number) {
    const row = this.model.get("opened").row ?? this.current()?.row;
    if (row !== undefined) this.f.send("rate", { row, thumb });
  }

  // -- a whole answer ----------------------------------------------------------------------------------------------

  private showOpened() {
    const one = this.model.get("opened");
    this.opened.hidden = one.row === undefined;
    if (one.row === undefined) return;
    const text = new MarkdownView();
    text.update(one.text ?? "");
    const pieces = (one.pieces ?? []).map((piece) => el("span", { title: visible(piece) }, piece || "∅"));
    const tokens = el("div", { class: "ll-tokens" }, pieces);
    const thumb = (value: number, label: string, iconName: "up" | "down") =>
      button(label, {
        iconName,
        cls: "ll-change",
        "aria-pressed": String(one.thumb === value),
        onclick: () => this.rate(value),
      });
    const toggle = button("Show the answer's tokens", {
      text: this.asTokens ? "Text" : `${num(pieces.length)} tokens`,
      hidden: !pieces.length,
      onclick: () => {
        this.asTokens = !this.asTokens;
        this.showOpened();
      },
    });
    this.opened.replaceChildren(
      el(
        "div",
        { class: "ll-row" },
        el("b", {}, one.variant ?? ""),
        el("span", { class: "ll-quiet" }, one.line ?? ""),
        el("span", { class: "ll-space" }),
        toggle,
        thumb(1, "Good answer (+)", "up"),
        thumb(-1, "Bad answer (-)", "down"),
        button("Close", { iconName: "close", onclick: () => this.f.send("shut") }),
      ),
      el("div", { class: "ll-quiet", dir: "auto" }, one.prompt ?? ""),
      one.error ? el("div", { class: "ll-failed" }, one.error) : this.asTokens && pieces.length ? tokens : text.el,
      one.reference ? el("div", { class: "ll-quiet" }, `expected: ${one.reference}`) : "",
      one.differs
        ? el(
            "details",
            {},
            el("summary", {}, "It reads another prompt than the first model"),
            el("pre", {}, one.differs),
          )
        : "",
    );
  }

  // -- blind pairs -------------------------------------------------------------------------------------------------

  private showPair() {
    const pair = this.model.get("pair");
    const on = pair.prompt !== undefined;
    const began = on && this.pair.hidden;
    this.pair.hidden = !on;
    this.sheet.hidden = this.tools.hidden = on;
    if (!on) return;
    const side = (letter: string, text: string) => {
      const view = new MarkdownView();
      view.update(text);
      return answerColumn(letter, [], [text ? view.el : el("span", { class: "ll-quiet" }, "(no text)")]);
    };
    const votes = el("div", { class: "ll-votes", role: "group", "aria-label": "Vote" });
    showVote(
      votes,
      `Which is better? ${num(pair.left ?? 0)} pairs after this one.`,
      [
        ["a", "A"],
        ["b", "B"],
        ["tie", "Tie"],
        ["skip", "Skip"],
      ],
      "",
      (choice) => this.f.send("verdict", { winner: choice }),
    );
    votes.append(button("End the comparison", { text: "End", onclick: () => this.f.send("shut") }));
    this.pair.replaceChildren(
      el("div", { class: "ll-asked", dir: "auto" }, pair.prompt ?? ""),
      el("div", { class: "ll-grid" }, side("A", pair.a ?? ""), side("B", pair.b ?? "")),
      votes,
    );
    // The keys work at once, and stay after each verdict.
    this.pair.tabIndex = -1;
    if (began || !this.pair.contains(document.activeElement)) this.pair.focus();
  }
}

function distinct(cells: (GridCell | undefined)[]): number {
  return new Set(cells.filter((one) => one && !one.error).map((one) => one?.text)).size;
}

function order(lines: number[], by: Order, rowOf: (question: number) => (GridCell | undefined)[]): number[] {
  if (by === "differ") return lines.toSorted((x, y) => distinct(rowOf(y)) - distinct(rowOf(x)));
  if (!by.startsWith("score:")) return lines;
  const name = by.slice("score:".length);
  const mean = (question: number) => {
    const values = rowOf(question)
      .map((one) => one?.scores[name])
      .filter((value) => typeof value === "number" || typeof value === "boolean")
      .map(Number);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : Number.POSITIVE_INFINITY;
  };
  return lines.toSorted((x, y) => mean(x) - mean(y));
}

function score(value: number | boolean | string | null): string {
  if (typeof value === "boolean") return value ? "✓" : "✗";
  return typeof value === "number" ? num(value, Number.isInteger(value) ? 0 : 3) : String(value);
}

export default {
  render(context: Context<GridState>) {
    const grid = new GridView(context);
    return () => grid.f.dispose();
  },
};
