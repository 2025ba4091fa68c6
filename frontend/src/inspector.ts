import type { AnyModel } from "@anywidget/types";
import { button, el, icon, num } from "./dom";
import { type Context, type Frame, frame } from "./frame";
import type { InspectorState, Mask, TokenRow } from "./state";
import { percent, tokenSpan, visible } from "./tokens";

// Tokens shaded by probability. Hover or arrow keys show the alternatives; a click on one continues from it.

class InspectorView {
  readonly f: Frame<InspectorState>;
  private readonly model: AnyModel<InspectorState>;
  private readonly tabs: HTMLElement;
  private readonly hint: HTMLElement;
  private readonly text: HTMLElement;
  private readonly side: HTMLElement;
  private readonly line: HTMLElement;
  private at = 0;
  private pinned = false;
  private stamp = "";
  private spans: HTMLElement[] = [];
  private last: TokenRow[] = [];
  private sideKey = "";

  constructor(context: Context<InspectorState>) {
    this.model = context.model;
    this.f = frame(context, "inspector", "Token probabilities");
    this.tabs = el("div", { class: "ll-bar", role: "group", "aria-label": "Versions" });
    this.hint = el("div", { class: "ll-notice", hidden: true });
    this.text = el("div", { class: "ll-tokens ll-text", role: "listbox", "aria-label": "Tokens; arrow keys move" });
    this.side = el("div", { class: "ll-side", "aria-live": "polite" });
    this.line = el("div", { class: "ll-quiet ll-line" });
    this.f.root.append(this.tabs, this.hint, el("div", { class: "ll-split" }, this.text, this.side), this.line);
    this.text.addEventListener("keydown", (event) => this.key(event));
    this.text.addEventListener("mouseover", (event) => {
      const place = placeOf(event);
      if (place !== null && !this.pinned) this.select(place, false);
    });
    this.text.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (place === null) return;
      this.pinned = !(this.pinned && place === this.at);
      this.select(place, true);
    });
    this.f.watch(["versions", "shown", "running", "mask", "guided"], () => this.render());
  }

  private get version(): InspectorState["versions"][number] {
    return this.model.get("versions")[this.model.get("shown")] ?? { rows: [], label: "", at: 0, line: "" };
  }

  /** Whether the version shown is the guided one. */
  private guided(): boolean {
    return this.model.get("shown") === 0 && Boolean(this.model.get("guided")?.name);
  }

  private maskAt(place: number): Mask | null {
    return this.guided() ? this.model.get("mask")[place] : null;
  }

  /** After a change of the connection: update what can be clicked. */
  refresh(): void {
    this.sideKey = "";
    this.render();
  }

  private render() {
    const versions = this.model.get("versions");
    const shown = this.model.get("shown");
    const running = this.model.get("running");
    this.tabs.replaceChildren(
      ...[
        ...versions.map((v, i) =>
          button(v.label, {
            text: v.label,
            cls: "ll-tab",
            "aria-pressed": String(i === shown),
            onclick: () => this.f.send("show", { version: i }),
          }),
        ),
        el("span", { class: "ll-space" }),
        running && button("Stop", { iconName: "stop", text: "Stop", onclick: () => this.f.send("stop") }),
        this.guided() &&
          el(
            "span",
            { class: "ll-legend" },
            el("span", { class: "ll-token ll-changed" }, "abc"),
            "changed by the constraint",
          ),
        el("span", { class: "ll-legend", "aria-hidden": "true" }, "likely", el("i", {}), "unlikely"),
      ].filter((one) => typeof one === "object"),
    );
    const { rows, at, line } = this.version;
    const known = rows.some((row) => row[1] !== null);
    this.hint.hidden = known || running || !rows.length;
    if (!this.hint.hidden) {
      this.hint.replaceChildren(
        icon("eye"),
        el("span", {}, "This completion has no token probabilities."),
        button("Generate again with probabilities", {
          text: "Generate again with probabilities",
          cls: "ll-change",
          onclick: () => this.f.send("again"),
        }),
      );
    }
    // While the text grows, build only the new tokens.
    const stamp = `${shown}/${versions.length}`;
    let same = this.stamp === stamp && rows.length >= this.spans.length ? this.spans.length : 0;
    if (same && JSON.stringify(this.last.slice(0, same)) !== JSON.stringify(rows.slice(0, same))) same = 0;
    if (!same) {
      this.text.replaceChildren();
      this.spans = [];
      if (this.stamp !== stamp) {
        this.at = Math.min(at, Math.max(rows.length - 1, 0));
        this.pinned = false;
      }
    }
    this.stamp = stamp;
    this.last = rows;
    for (let i = same; i < rows.length; i++) {
      const row = rows[i];
      const span = tokenSpan(row[0], row[1] ?? 1, {
        role: "option",
        tabindex: i === this.at ? "0" : "-1",
        "data-at": i,
      });
      if (row[1] === null) span.removeAttribute("title");
      if (shown > 0 && i === at && versions[shown].label !== "Generated again") span.classList.add("ll-forced");
      if (this.maskAt(i)?.changed) span.classList.add("ll-changed");
      this.spans.push(span);
      this.text.append(span);
    }
    this.line.textContent = [line || (running && "generating …"), this.guided() && this.model.get("guided").summary]
      .filter(Boolean)
      .join(" · ");
    this.line.hidden = !this.line.textContent;
    this.select(Math.min(this.at, Math.max(rows.length - 1, 0)), false);
  }

  private key(event: KeyboardEvent) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key as "End"] as number | undefined;
    if (step !== undefined) {
      event.preventDefault();
      this.pinned = true;
      this.select(Math.max(0, Math.min(this.spans.length - 1, this.at + step)), true);
    } else if (event.key === "ArrowDown" || event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.pinned = true;
      this.side.querySelector("button")?.focus();
    } else if (event.key === "Escape") this.pinned = false;
  }

  private select(at: number, focus: boolean) {
    if (!this.spans.length) {
      this.side.replaceChildren(
        el("span", { class: "ll-quiet" }, this.model.get("running") ? "waiting for the first token …" : "(no tokens)"),
      );
      return;
    }
    this.spans[this.at]?.setAttribute("tabindex", "-1");
    for (const span of this.text.querySelectorAll('[aria-selected="true"]')) span.removeAttribute("aria-selected");
    this.at = at;
    const span = this.spans[at];
    span.setAttribute("tabindex", "0");
    span.setAttribute("aria-selected", "true");
    if (focus) span.focus();
    const [text, probability, top] = this.version.rows[at];
    const key = JSON.stringify([at, this.model.get("shown"), this.model.get("running"), probability, top.length]);
    if (this.sideKey === key) return;
    this.sideKey = key;
    const chosen = top.findIndex(([t]) => t === text);
    const rest = top.length ? 1 - top.reduce((sum, [, p]) => sum + p, 0) : 0;
    const mask = this.maskAt(at);
    const likelier = (t: string, i: number) =>
      mask && t !== text && ((mask.changed && t === mask.wanted) || (mask.greedy && (chosen < 0 || i < chosen)));
    this.side.replaceChildren(
      el(
        "div",
        { class: "ll-side-head" },
        el("code", {}, visible(text)),
        el("span", { class: "ll-quiet" }, `token ${num(at + 1)} of ${num(this.spans.length)}`),
      ),
      ...(mask ? [this.removed(mask)] : []),
      ...(top.length
        ? [
            el(
              "div",
              { class: "ll-quiet" },
              `Click another token to continue from it${this.guided() ? ", without the constraint" : ""}:`,
            ),
            ...top.map(([t, p], i) => this.alternative(t, p, i, at, i === chosen, Boolean(likelier(t, i)))),
            el("div", { class: "ll-quiet" }, `all others: ${percent(Math.max(0, rest))}`),
          ]
        : [
            el(
              "div",
              { class: "ll-quiet" },
              probability === null
                ? "no probabilities were kept"
                : `probability ${percent(probability)}; no alternatives were kept`,
            ),
          ]),
    );
  }

  /** The constraint's effect at a token. */
  private removed({ removed, wanted, wanted_probability: p, changed, forced }: Mask) {
    return el(
      "div",
      { class: "ll-mask" },
      el(
        "div",
        {},
        "Constraint: ",
        el("b", {}, removed < 0.0005 ? "nothing removed" : `removed ${percent(removed)}`),
        forced ? ", only one token was left" : "",
      ),
      el(
        "span",
        { class: "ll-mask-bar", role: "img", "aria-label": `${percent(removed)} of the probability removed` },
        el("span", { style: `width:${100 * Math.max(0, 1 - removed)}%` }),
      ),
      changed && el("div", {}, "The model preferred ", el("code", {}, visible(wanted)), ` (${percent(p)})`),
    );
  }

  private alternative(text: string, probability: number, index: number, at: number, chosen: boolean, masked: boolean) {
    const node = el(
      "button",
      {
        type: "button",
        class: `ll-alt ${chosen ? "ll-chosen" : ""}`,
        disabled: chosen || this.model.get("running") || !this.f.connected(),
        title: chosen ? "the generated token" : `Continue with ${visible(text)}`,
        onclick: () => this.f.send("continue", { token: at, alternative: index }),
      },
      el("span", { class: "ll-alt-bar", style: `width:${Math.max(probability * 100, 0.5)}%` }),
      el("code", {}, visible(text)),
      masked && el("span", { class: "ll-tag", title: "Masked by the constraint" }, "masked"),
      el("span", { class: "ll-space" }),
      el("span", {}, percent(probability)),
    );
    node.addEventListener("keydown", (event) => {
      const step = { ArrowDown: node.nextElementSibling, ArrowUp: node.previousElementSibling };
      const to = step[event.key as keyof typeof step];
      if (to instanceof HTMLButtonElement) {
        event.preventDefault();
        to.focus();
      } else if (event.key === "Escape" || event.key === "ArrowLeft") this.spans[this.at].focus();
    });
    return node;
  }
}

/** The token of an event. */
function placeOf(event: Event): number | null {
  const token = (event.target as Element).closest<HTMLElement>(".ll-token");
  return token?.dataset.at === undefined ? null : Number(token.dataset.at);
}

export default {
  render(context: Context<InspectorState>) {
    const view = new InspectorView(context);
    view.f.onConnect(() => view.refresh());
    return () => view.f.dispose();
  },
};
