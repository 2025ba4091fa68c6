import { button, el, when } from "./dom";
import type { Frame } from "./frame";
import type { ChatState, Message } from "./state";

// The drawer's search in earlier chats, which the run log keeps.

interface Found {
  id: string;
  title: string;
  at: string;
  model: string;
  turns: number;
  snippet: string;
}

const TYPING_MS = 250;

export class EarlierPanel {
  readonly el: HTMLElement;
  private readonly input = el("input", {
    class: "ll-input",
    type: "search",
    placeholder: "words in a question or an answer",
    "aria-label": "Search in earlier chats",
  });
  private readonly list = el("div", { class: "ll-found", role: "list" });
  private readonly note = el("div", { class: "ll-quiet", role: "status" });
  private typing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly f: Frame<ChatState>,
    private readonly opened: () => void,
  ) {
    this.input.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.find(), TYPING_MS);
    });
    this.el = el("div", {}, this.input, this.note, this.list);
    this.find();
  }

  private find(): void {
    this.f.send("find", { query: this.input.value });
  }

  show({ query, rows, problem, off }: Message): void {
    if (query !== this.input.value) return; // the answer to an earlier query
    const found = rows as Found[];
    const count = `${found.length}${found.length < 20 ? "" : " or more"} chat${found.length === 1 ? "" : "s"}`;
    this.note.textContent = problem
      ? `${problem.message} ${problem.hint}`
      : off
        ? "The run log is off (LLMLAB_RUN_LOG), so no chat is kept."
        : found.length
          ? `${count}; choose one to continue it`
          : query
            ? "No chat contains all of these words."
            : "There is no earlier chat.";
    this.list.replaceChildren(...found.map((one) => this.row(one)));
  }

  private row({ id, title, at, model, turns, snippet }: Found): HTMLElement {
    const open = button(`Continue: ${title}`, {
      cls: "ll-found-one",
      title: `%llm chat --resume ${id}`,
      onclick: () => {
        this.f.send("resume", { conversation: id });
        this.opened();
      },
    });
    open.append(
      el("b", {}, title || "(no text)"),
      el("span", { class: "ll-quiet" }, [when(at), model, `${turns} turns`].filter(Boolean).join(" · ")),
    );
    if (snippet && !snippet.startsWith(title)) open.append(el("span", { class: "ll-quiet" }, snippet));
    return el("div", { role: "listitem" }, open);
  }
}
