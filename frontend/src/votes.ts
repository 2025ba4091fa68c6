import { button, el } from "./dom";

// The row of a vote: a question, and a button per answer. The arena and an experiment's blind pairs share it.

export type Vote = [choice: number | string, text: string];

/** Fill `row` with a vote. `verdict` is the choice that was made, or "". */
export function showVote(
  row: HTMLElement,
  question: string,
  choices: Vote[],
  verdict: string,
  vote: (choice: number | string) => void,
): void {
  row.replaceChildren(
    el("span", {}, question),
    ...choices.map(([choice, text]) =>
      button(`Vote: ${text}`, {
        text,
        cls: "ll-change",
        disabled: Boolean(verdict),
        "aria-pressed": String(verdict === String(choice)),
        onclick: () => vote(choice),
      }),
    ),
  );
}
