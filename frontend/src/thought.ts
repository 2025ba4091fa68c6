import { tokens as countTokens, el } from "./dom";

/** The thought before an answer: folded, with its number of tokens. */
export class ThoughtView {
  private readonly text = el("div", { class: "ll-thought-text", dir: "auto" });
  private readonly title = el("summary", {});
  readonly el = el("details", { class: "ll-thought", hidden: true }, this.title, this.text);

  update(text: string, tokens: number, running: boolean): void {
    this.el.hidden = !text;
    this.text.textContent = text;
    const count = tokens ? ` ${countTokens(tokens)}` : "";
    this.title.textContent = running ? `thinking…${count}` : `thought${count && `,${count}`}`;
  }
}
