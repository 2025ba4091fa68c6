import { button, copyButton, tokens as countTokens, el, FINISHED, icon, num, seconds, speed } from "./dom";
import type { Frame } from "./frame";
import { arrows, focused, oneStop, refocus } from "./keys";
import { MarkdownView } from "./markdown";
import type { Attachment, ChatState, Live, TokenRow, Turn } from "./state";
import { ThoughtView } from "./thought";
import { percent, tokenSpan, visible } from "./tokens";
import { StepsView } from "./tools";

// One turn of a chat: its text, role, measurements and actions.

/** The parts of the chat that a turn uses. */
export interface Chat {
  readonly f: Frame<ChatState>;
  readonly busy: boolean;
  /** The running answer was told to stop. */
  readonly stopping: boolean;
  /** The last turn of the path shown. */
  readonly leaf: string;
  /** The turn being edited; "" for none. */
  readonly editing: string;
  /** Edit a turn; "" ends it. */
  edit(id: string): void;
  saveEdit(id: string, text: string): void;
  render(): void;
}

/** One turn on the page: built once, updated when its data changes. */
export class TurnView {
  readonly el: HTMLElement;
  private readonly id: string;
  private readonly answer = new MarkdownView();
  private readonly thought = new ThoughtView();
  private readonly steps: StepsView;
  private count: HTMLElement | null = null;
  private key = "";
  private tokensShown = false;

  constructor(
    private readonly chat: Chat,
    turn: Turn,
  ) {
    this.id = turn.id;
    this.steps = new StepsView(chat.f);
    this.el = el("article", { class: `ll-turn ll-${turn.role}` });
    this.el.addEventListener("keydown", (event) => arrows(event, this.el));
  }

  update(turn: Turn, siblings: Turn[], running: boolean, live: Live | undefined): void {
    const key = JSON.stringify([
      turn,
      siblings.map((s) => s.id),
      running,
      this.tokensShown,
      this.chat.editing === this.id,
      this.chat.leaf === this.id,
      running && this.chat.stopping,
    ]);
    if (running && live) this.grow(live);
    if (key === this.key) return;
    this.key = key;
    const focus = focused(this.el);
    if (!running && turn.role === "assistant") {
      this.answer.update(turn.text);
      this.thought.update(turn.thought ?? "", turn.facts?.thought_tokens ?? 0, false);
      this.steps.update(turn.steps ?? []);
    }
    this.answer.el.classList.toggle("ll-caret", running);
    this.answer.el.hidden = false;
    const editing = this.chat.editing === this.id;
    this.el.setAttribute("aria-label", turn.role === "user" ? "You" : `Answer of ${turn.facts.model ?? "a model"}`);
    this.el.replaceChildren(
      this.head(turn, siblings, running),
      ...(editing ? [this.editor(turn)] : [this.body(turn), this.files(turn)].filter((node) => node !== null)),
      ...(turn.error ? [this.error(turn.error)] : []),
      ...(turn.facts?.notes ?? []).map((note) => el("div", { class: "ll-note" }, icon("warn"), note)),
      ...(turn.role === "user" ? [] : [this.foot(turn, running)]),
    );
    if (running) this.grow(live ?? { text: turn.text, tokens: 0 });
    oneStop(this.el);
    if (focus !== null && !editing) refocus(this.el, focus);
  }

  private body(turn: Turn): HTMLElement {
    if (this.tokensShown && turn.tokens) return this.tokens(turn.tokens);
    // The user's messages are shown as typed.
    if (turn.role === "user") return el("div", { class: "ll-sent", dir: "auto" }, turn.text);
    return el("div", {}, this.thought.el, this.steps.el, this.answer.el);
  }

  /** New text of a running answer. */
  private grow({ text, thought, tokens, steps = [] }: Live): void {
    this.answer.update(text);
    this.thought.update(thought ?? "", text ? 0 : tokens, !text);
    if (this.steps.update(steps)) oneStop(this.el);
    const decides = steps.some((step) => step.state === "waiting");
    this.answer.el.hidden = decides && !text;
    if (this.count)
      this.count.textContent = this.chat.stopping
        ? "stopping …"
        : decides
          ? "waiting for your approval"
          : tokens
            ? `${countTokens(tokens)} …`
            : "waiting …";
  }

  private head(turn: Turn, siblings: Turn[], running: boolean) {
    const at = siblings.findIndex((s) => s.id === this.id);
    const go = (step: number) => () => this.chat.f.send("show", { turn_id: siblings[at + step].id });
    const { model, engine, quant, adapter } = turn.facts ?? {};
    const tags = [engine, quant, adapter && `adapter ${adapter}`].filter(Boolean);
    return el(
      "header",
      { class: "ll-turn-head" },
      el("b", {}, turn.role === "user" ? "You" : (model ?? "Model")),
      tags.map((tag) => el("span", { class: "ll-tag" }, tag)),
      siblings.length > 1 &&
        el(
          "span",
          { class: "ll-versions", role: "group", "aria-label": "Versions" },
          button("Previous version", { iconName: "left", onclick: go(-1), disabled: at === 0 || this.chat.busy }),
          el("span", {}, `${at + 1} / ${siblings.length}`),
          button("Next version", {
            iconName: "right",
            onclick: go(1),
            disabled: at === siblings.length - 1 || this.chat.busy,
          }),
        ),
      running && el("span", { class: "ll-running", "aria-hidden": "true" }),
      turn.role === "user" && this.actions(turn),
    );
  }

  private files(turn: Turn): HTMLElement | null {
    if (!turn.files?.length) return null;
    return el(
      "div",
      { class: "ll-files" },
      turn.files.map((f) =>
        el(
          "span",
          { class: "ll-tag", title: f.text?.slice(0, 500) },
          picture(f) ?? icon("clip"),
          f.name,
          f.pages && ` · ${pagesText(f.pages)}`,
        ),
      ),
    );
  }

  private error({ message, hint }: { message: string; hint: string }) {
    return el(
      "div",
      { class: "ll-notice ll-problem", role: "alert" },
      icon("warn"),
      el("span", {}, el("b", {}, message), " ", hint),
    );
  }

  private tokens(rows: TokenRow[]) {
    const spans = rows.map(([text, probability, top]) => {
      const title = top.map(([t, p]) => `${visible(t)}  ${percent(p)}`).join("\n");
      return tokenSpan(text, probability ?? 1, title ? { title } : {});
    });
    return el("div", { class: "ll-tokens" }, spans);
  }

  private foot(turn: Turn, running: boolean) {
    if (running) {
      this.count = el("span", {});
      return el("footer", { class: "ll-turn-foot" }, el("span", { class: "ll-facts" }, this.count));
    }
    this.count = null;
    const x = turn.facts ?? {};
    const facts = [
      x.tokens !== undefined && countTokens(x.tokens),
      x.tokens_per_s && speed(x.tokens_per_s),
      x.ttft_s !== undefined && x.ttft_s !== null && `TTFT ${seconds(x.ttft_s)}`,
      FINISHED[x.finish ?? ""],
      x.tokens === undefined && x.line,
    ].filter(Boolean);
    return el(
      "footer",
      { class: "ll-turn-foot" },
      el(
        "span",
        {
          class: "ll-facts",
          title:
            x.seed !== undefined && x.seed !== null ? `seed ${x.seed}, ${num(x.prompt_tokens ?? 0)} prompt tokens` : "",
        },
        facts.join(" · "),
      ),
      this.continues(turn) &&
        button("Continue", {
          text: "Continue",
          title: "Continue the answer where it stopped",
          disabled: this.chat.busy,
          onclick: () => this.chat.f.send("continue", { turn_id: this.id }),
        }),
      this.actions(turn),
    );
  }

  /** Whether it is a last answer that was cut off, or edited by hand (which has no finish reason). */
  private continues(turn: Turn): boolean {
    const finish = turn.facts?.finish;
    const cut = finish === undefined || finish === "length" || finish === "interrupted";
    return turn.role === "assistant" && cut && Boolean(turn.text) && this.chat.leaf === this.id;
  }

  /** The actions on a turn. */
  private actions(turn: Turn): HTMLElement {
    const { f } = this.chat;
    const rate = (value: number) => () =>
      f.send("rate", { turn_id: this.id, rating: turn.rating === value ? 0 : value });
    const locked = this.chat.busy;
    return el(
      "span",
      { class: "ll-actions" },
      copyButton("Copy", () => turn.text),
      turn.tokens &&
        button("Shade by probability", {
          iconName: "eye",
          "aria-pressed": String(this.tokensShown),
          onclick: () => {
            this.tokensShown = !this.tokensShown;
            this.chat.render();
          },
        }),
      button(turn.role === "user" ? "Edit and regenerate" : "Edit", {
        iconName: "edit",
        disabled: locked,
        cls: "ll-change",
        onclick: () => this.chat.edit(this.id),
      }),
      button(turn.role === "user" ? "Answer again" : "Regenerate", {
        iconName: "again",
        disabled: locked,
        cls: "ll-change",
        onclick: () => f.send("regenerate", { turn_id: this.id }),
      }),
      turn.role === "assistant" && [
        button("Good answer", {
          iconName: "up",
          cls: "ll-change",
          "aria-pressed": String(turn.rating === 1),
          onclick: rate(1),
        }),
        button("Bad answer", {
          iconName: "down",
          cls: "ll-change",
          "aria-pressed": String(turn.rating === -1),
          onclick: rate(-1),
        }),
      ],
      this.deleter(locked),
    );
  }

  /** Deleting takes two clicks, because it also deletes all turns below. */
  private deleter(locked: boolean) {
    const node = button("Delete this and all below", { iconName: "trash", cls: "ll-change", disabled: locked });
    let armed: ReturnType<typeof setTimeout> | undefined;
    node.addEventListener("click", () => {
      if (armed) {
        clearTimeout(armed);
        this.chat.f.send("delete", { turn_id: this.id });
        return;
      }
      node.append(el("span", {}, "Delete?"));
      armed = setTimeout(() => {
        armed = undefined;
        node.lastChild?.remove();
      }, 2500);
    });
    return node;
  }

  private editor(turn: Turn) {
    const area = el("textarea", {
      class: "ll-input",
      rows: Math.min(14, turn.text.split("\n").length + 1),
      value: turn.text,
      dir: "auto",
      "aria-label": "Edit the text",
    });
    const save = () => this.chat.saveEdit(this.id, area.value);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.chat.edit("");
      if (isEnter(event)) {
        event.preventDefault();
        save();
      }
    });
    setTimeout(() => area.focus());
    return el(
      "div",
      { class: "ll-editor" },
      area,
      el(
        "div",
        { class: "ll-row" },
        button("Save", { text: turn.role === "user" ? "Save and send" : "Save", cls: "ll-primary", onclick: save }),
        button("Cancel", { text: "Cancel", onclick: () => this.chat.edit("") }),
        el("span", { class: "ll-quiet" }, "The version before is kept."),
      ),
    );
  }
}

/** "1 page", "12 pages". */
export function pagesText(count: number): string {
  return `${num(count)} ${count === 1 ? "page" : "pages"}`;
}

/** A thumbnail of an attached image; null for a text. Raster images only: an SVG or a URL is not shown. */
export function picture({ image, name }: Attachment): HTMLElement | null {
  if (!/^data:image\/(png|jpeg|webp|gif);base64,/.test(image ?? "")) return null;
  return el("img", { class: "ll-picture", src: image, alt: name });
}

/** Whether an Enter sends: not with Shift, and not at the end of an IME composition (Japanese, Chinese, Korean). */
export function isEnter(event: KeyboardEvent): boolean {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}
