import { el } from "./dom";

// What the arena and an experiment's grid show alike: an answer in a column, and ratings from votes.

/** An answer under its letter. */
export function answerColumn(
  letter: string,
  header: (Node | string)[],
  answer: (Node | string | false | null | undefined)[],
  footer?: HTMLElement,
  cls = "",
): HTMLElement {
  return el(
    "section",
    { class: `ll-column ${cls}`, "aria-label": `Answer ${letter}` },
    el("header", { class: "ll-row" }, el("b", { class: "ll-letter" }, letter), header),
    el("div", { class: "ll-answer" }, answer),
    footer ?? "",
  );
}

export interface Standing {
  name: string;
  rating: number;
  /** The 95 % interval; null from too few votes. */
  low: number | null;
  high: number | null;
  votes: number;
}

/** Elo ratings, folded. */
export function showStandings(box: HTMLElement, rows: Standing[]): void {
  box.hidden = !rows.length;
  box.replaceChildren();
  if (!rows.length) return;
  box.append(
    el("summary", {}, "Elo ratings from the votes"),
    el(
      "table",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ["", "rating", "95 % interval", "votes"].map((one) => el("th", { scope: "col" }, one)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((one) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, one.name),
            el("td", {}, String(one.rating)),
            el("td", {}, one.low === null ? "from 10 votes on" : `${one.low} to ${one.high}`),
            el("td", {}, String(one.votes)),
          ),
        ),
      ),
    ),
  );
}
