import { FINISHED, button, copyButton, el, icon, num, seconds } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { percent, tokenSpan, visible } from "./tokens.js";

// One turn of a chat: what was said, by whom, how fast, and what can be done with it.

/** One turn on the page: built once, updated when its data changed. */
export class TurnView {
  constructor(chat, turn) {
    this.chat = chat;
    this.id = turn.id;
    this.body = new MarkdownView();
    this.el = el("article", { class: `ll-turn ll-${turn.role}` });
    this.key = "";
    this.tokensShown = false;
  }

  update(turn, siblings, running, live) {
    const key = JSON.stringify([turn, siblings.map((s) => s.id), running, this.tokensShown, this.chat.editing === this.id]);
    if (running && live) this.grow(live);
    if (key === this.key) return;
    this.key = key;
    if (!running) this.body.update(turn.text);
    this.body.el.classList.toggle("ll-caret", running);
    const editing = this.chat.editing === this.id;
    this.el.setAttribute("aria-label", turn.role === "user" ? "You" : `Answer of ${turn.facts.model ?? "a model"}`);
    this.el.replaceChildren(
      this.head(turn, siblings, running),
      ...(editing
        ? [this.editor(turn)]
        : [this.tokensShown && turn.tokens ? this.tokens(turn.tokens) : this.body.el, this.files(turn)].filter(Boolean)),
      ...(turn.error ? [this.error(turn.error)] : []),
      ...(turn.role === "user" ? [] : [this.foot(turn, running)]),
    );
    if (running) this.grow(live ?? { text: "", tokens: 0 });
  }

  /** New text of an answer under way. */
  grow({ text, tokens }) {
    this.body.update(text);
    if (this.count) this.count.textContent = tokens ? `${num(tokens)} tokens …` : "thinking …";
  }

  head(turn, siblings, running) {
    const at = siblings.findIndex((s) => s.id === this.id);
    const go = (step) => () => this.chat.f.send("show", { turn_id: siblings[at + step].id });
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
          button("Version before", { iconName: "left", onclick: go(-1), disabled: at === 0 || this.chat.busy }),
          el("span", {}, `${at + 1} / ${siblings.length}`),
          button("Version after", { iconName: "right", onclick: go(1), disabled: at === siblings.length - 1 || this.chat.busy }),
        ),
      running && el("span", { class: "ll-running", "aria-hidden": "true" }),
      turn.role === "user" && this.actions(turn),
    );
  }

  files(turn) {
    if (!turn.files?.length) return null;
    return el("div", { class: "ll-files" }, turn.files.map((f) => el("span", { class: "ll-tag", title: f.text?.slice(0, 500) }, picture(f) ?? icon("clip"), f.name)));
  }

  error({ message, hint }) {
    return el("div", { class: "ll-notice ll-problem", role: "alert" }, icon("warn"), el("span", {}, el("b", {}, message), " ", hint));
  }

  tokens(rows) {
    return el("div", { class: "ll-tokens" }, rows.map((row) =>
      tokenSpan(row, { title: row[2].map(([t, p]) => `${visible(t)}  ${percent(p)}`).join("\n") || percent(row[1]) })));
  }

  foot(turn, running) {
    if (running) {
      this.count = el("span", {});
      return el("footer", { class: "ll-turn-foot" }, el("span", { class: "ll-facts" }, this.count));
    }
    this.count = null;
    const x = turn.facts ?? {};
    const facts = [
      x.tokens !== undefined && `${num(x.tokens)} tokens`,
      x.tokens_per_s && `${num(x.tokens_per_s)} tokens/s`,
      x.ttft_s !== undefined && x.ttft_s !== null && `TTFT ${seconds(x.ttft_s)}`,
      FINISHED[x.finish],
      x.tokens === undefined && x.line,
    ].filter(Boolean);
    return el(
      "footer",
      { class: "ll-turn-foot" },
      el("span", { class: "ll-facts", title: x.seed !== undefined && x.seed !== null ? `seed ${x.seed}, ${num(x.prompt_tokens)} prompt tokens` : "" }, facts.join(" · ")),
      this.actions(turn),
    );
  }

  /** What can be done with a turn. */
  actions(turn) {
    const { f } = this.chat;
    const rate = (value) => () => f.send("rate", { turn_id: this.id, rating: turn.rating === value ? 0 : value });
    const locked = this.chat.busy;
    return el(
      "span",
      { class: "ll-actions" },
      copyButton("Copy", () => turn.text),
      turn.tokens && button("How sure: shade by probability", {
        iconName: "eye",
        "aria-pressed": String(this.tokensShown),
        onclick: () => {
          this.tokensShown = !this.tokensShown;
          this.chat.render();
        },
      }),
      button(turn.role === "user" ? "Edit and ask again" : "Edit", { iconName: "edit", disabled: locked, cls: "ll-change", onclick: () => this.chat.edit(this.id) }),
      button(turn.role === "user" ? "Answer again" : "Regenerate", {
        iconName: "again", disabled: locked, cls: "ll-change", onclick: () => f.send("regenerate", { turn_id: this.id }),
      }),
      turn.role === "assistant" && [
        button("Good answer", { iconName: "up", cls: "ll-change", "aria-pressed": String(turn.rating === 1), onclick: rate(1) }),
        button("Bad answer", { iconName: "down", cls: "ll-change", "aria-pressed": String(turn.rating === -1), onclick: rate(-1) }),
      ],
      this.deleter(locked),
    );
  }

  /** Deleting takes two clicks: what hangs below goes too. */
  deleter(locked) {
    const node = button("Delete this and all below", { iconName: "trash", cls: "ll-change", disabled: locked });
    let armed = 0;
    node.addEventListener("click", () => {
      if (armed) {
        clearTimeout(armed);
        this.chat.f.send("delete", { turn_id: this.id });
        return;
      }
      node.append(el("span", {}, "Delete?"));
      armed = setTimeout(() => {
        armed = 0;
        node.lastChild.remove();
      }, 2500);
    });
    return node;
  }

  editor(turn) {
    const area = el("textarea", { class: "ll-input", rows: Math.min(14, turn.text.split("\n").length + 1), value: turn.text, "aria-label": "Edit the text" });
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
        button("Save", { text: turn.role === "user" ? "Save and ask" : "Save", cls: "ll-primary", onclick: save }),
        button("Cancel", { text: "Cancel", onclick: () => this.chat.edit("") }),
        el("span", { class: "ll-quiet" }, "The version before is kept."),
      ),
    );
  }
}

/** An attached image, small; null for a text. Only pictures: an SVG, or an address elsewhere, is not shown. */
export function picture({ image, name }) {
  if (!/^data:image\/(png|jpeg|webp|gif);base64,/.test(image ?? "")) return null;
  return el("img", { class: "ll-picture", src: image, alt: name });
}

/** Enter that sends: not with Shift, and not the Enter that ends a composition (Japanese, Chinese, Korean input). */
export function isEnter(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}
