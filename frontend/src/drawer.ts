import type { AnyModel } from "@anywidget/types";
import { button, copyButton, el, options } from "./dom";
import type { Frame } from "./frame";
import type { ChatState, Message, Sampling } from "./state";

// The chat's settings and exports: tabs in the bar, and a drawer below it that shows one of them.

type Field = [key: string, label: string, help: string, limits: { min: number; max?: number; step: number }];

const NUMBERS: Field[] = [
  ["temperature", "Temperature", "0 is greedy: always the most likely token", { min: 0, step: 0.1 }],
  ["top_p", "top p", "Sample from the most likely tokens up to this total probability", { min: 0, max: 1, step: 0.05 }],
  ["top_k", "top k", "Sample from the K most likely tokens; 0: all", { min: 0, step: 1 }],
  [
    "min_p",
    "min p",
    "Sample from tokens at least this fraction as likely as the most likely one",
    { min: 0, max: 1, step: 0.01 },
  ],
  ["max_tokens", "Max tokens", "Maximum tokens to generate", { min: 1, step: 1 }],
  ["seed", "Seed", "The same seed gives the same text", { min: 0, step: 1 }],
];

// Behind "More".
const MORE: Field[] = [
  [
    "repetition_penalty",
    "Repetition",
    "Above 1 discourages the tokens of the prompt and the answer",
    { min: 0, step: 0.05 },
  ],
  ["presence_penalty", "Presence", "Above 0 discourages tokens that are in the answer", { min: -2, max: 2, step: 0.1 }],
  [
    "frequency_penalty",
    "Frequency",
    "Above 0 discourages tokens by how often they are in the answer",
    { min: -2, max: 2, step: 0.1 },
  ],
  ["min_tokens", "Min tokens", "The answer doesn't end before this many tokens", { min: 0, step: 1 }],
  [
    "typical_p",
    "typical p",
    "Sample from the tokens of typical surprise up to this total probability",
    { min: 0, max: 1, step: 0.05 },
  ],
  [
    "top_n_sigma",
    "top n sigma",
    "Sample from tokens within this many standard deviations of the highest logit; 0: off",
    { min: 0, step: 0.1 },
  ],
  ["dry_multiplier", "DRY multiplier", "Penalty for extending a repetition; 0: off", { min: 0, step: 0.1 }],
  ["dry_allowed_length", "DRY length", "The longest repetition without a penalty, in tokens", { min: 1, step: 1 }],
  [
    "xtc_probability",
    "XTC probability",
    "How often to remove all likely tokens but the least likely of them; 0: off",
    { min: 0, max: 1, step: 0.05 },
  ],
  ["xtc_threshold", "XTC threshold", "From which probability a token is likely", { min: 0, max: 1, step: 0.05 }],
];

const THINK: [string, string][] = [
  ["", "default"],
  ["on", "on"],
  ["off", "off"],
  ["low", "low"],
  ["medium", "medium"],
  ["high", "high"],
];
const THINK_HELP = "Whether and how hard a reasoning model thinks before it answers, as its chat template allows";
const LIMIT_HELP = "The most tokens of a thought, which is closed there; 0: no thought";

type Panel = [text: string, icon: "note" | "tune" | "braces" | "export", label: string, build: () => HTMLElement];

export class Drawer {
  readonly el = el("div", { class: "ll-drawer", hidden: true });
  readonly tabs: HTMLButtonElement[];
  private readonly panels: Record<string, Panel>;
  private open = "";
  private exported: HTMLElement | null = null;

  constructor(
    private readonly model: AnyModel<ChatState>,
    private readonly f: Frame<ChatState>,
  ) {
    this.panels = {
      system: ["System", "note", "System prompt", () => this.systemPanel()],
      sampling: ["Sampling", "tune", "Sampling params", () => this.samplingPanel()],
      schema: ["Schema", "braces", "Schema of the answer", () => this.schemaPanel()],
      export: ["Export", "export", "Export the conversation", () => this.exportPanel()],
    };
    this.tabs = Object.entries(this.panels).map(([name, [text, iconName, label]]) =>
      button(label, {
        iconName,
        text,
        cls: "ll-tab",
        "aria-expanded": "false",
        "data-panel": name,
        onclick: () => this.toggle(name),
      }),
    );
  }

  private toggle(name: string): void {
    this.open = this.open === name ? "" : name;
    this.el.hidden = !this.open;
    for (const tab of this.tabs) tab.setAttribute("aria-expanded", String(tab.dataset.panel === this.open));
    if (this.open) {
      this.el.replaceChildren(this.panels[this.open][3]());
      this.el.querySelector<HTMLElement>("textarea, input, button")?.focus();
    }
  }

  /** Mark the tabs that have settings. */
  marks(): void {
    const set: Record<string, unknown> = {
      system: this.model.get("system").trim(),
      sampling: Object.keys(this.model.get("sampling")).length || this.model.get("think"),
      schema: this.model.get("schema").trim(),
    };
    for (const tab of this.tabs) tab.classList.toggle("ll-set", Boolean(set[tab.dataset.panel ?? ""]));
  }

  private save<K extends "system" | "sampling" | "schema" | "think">(name: K, value: ChatState[K]): void {
    this.model.set(name, value);
    this.model.save_changes();
  }

  private systemPanel() {
    const area = el("textarea", {
      class: "ll-input",
      rows: 3,
      dir: "auto",
      value: this.model.get("system"),
      placeholder: "For example: Answer in French, in one sentence.",
      "aria-label": "System prompt",
    });
    area.addEventListener("change", () => this.save("system", area.value));
    return el("label", { class: "ll-field" }, el("span", {}, "System prompt: how the model should answer"), area);
  }

  private samplingPanel() {
    const now = this.model.get("sampling");
    const set = (key: string, value: number | string[] | "") => {
      const next: Sampling = { ...this.model.get("sampling") };
      if (value === "" || Number.isNaN(value)) delete next[key];
      else next[key] = value;
      this.save("sampling", next);
    };
    const field = ([key, label, help, limits]: Field) => {
      const input = el("input", {
        class: "ll-input",
        type: "number",
        value: now[key] ?? "",
        placeholder: key === "seed" ? "random" : "default",
        ...limits,
      });
      input.addEventListener("change", () => set(key, input.value === "" ? "" : Number(input.value)));
      return el("label", { class: "ll-field", title: help }, el("span", {}, label), input);
    };
    const texts = (key: "stop" | "bad_words", label: string, help: string, placeholder: string) => {
      const input = el("input", { class: "ll-input", type: "text", value: (now[key] ?? []).join(", "), placeholder });
      input.addEventListener("change", () => {
        const found = input.value
          .split(",")
          .map((s) => s.trim())
          .filter(Boolean);
        set(key, found.length ? found : "");
      });
      return el("label", { class: "ll-field", title: help }, el("span", {}, label), input);
    };
    const isLimit = /^\d+$/.test(this.model.get("think"));
    const think = el("select", { class: "ll-select", "data-field": "think" });
    const limit = el("input", {
      class: "ll-input",
      type: "number",
      min: 0,
      step: 10,
      placeholder: "no limit",
      value: isLimit ? this.model.get("think") : "",
      "data-field": "max-thought",
    });
    options(think, THINK, isLimit ? "" : this.model.get("think"));
    // A limit takes the place of the switch: think is one value.
    think.addEventListener("change", () => {
      limit.value = "";
      this.save("think", think.value);
    });
    limit.addEventListener("change", () => {
      think.value = "";
      this.save("think", limit.value);
    });
    const thought = [
      el("label", { class: "ll-field", title: THINK_HELP }, el("span", {}, "Think"), think),
      el("label", { class: "ll-field", title: LIMIT_HELP }, el("span", {}, "Max thought"), limit),
    ];
    const more = [...MORE.map(([key]) => key), "bad_words"];
    const sure = el("input", { type: "checkbox", checked: now.logprobs !== undefined });
    sure.addEventListener("change", () => set("logprobs", sure.checked ? 5 : ""));
    return el(
      "div",
      {},
      el(
        "div",
        { class: "ll-fields" },
        NUMBERS.map(field),
        texts("stop", "Stop", "Strings that end the answer, separated by commas", "END, ###"),
        thought,
      ),
      el(
        "details",
        { open: more.some((key) => now[key] !== undefined) },
        el("summary", {}, "More: penalties and other filters"),
        el(
          "div",
          { class: "ll-fields" },
          MORE.map(field),
          texts("bad_words", "Bad words", "Words that are never generated, separated by commas", "however, very"),
        ),
      ),
      el(
        "div",
        { class: "ll-row" },
        el("label", { class: "ll-check" }, sure, " Keep token probabilities"),
        el("span", { class: "ll-space" }),
        button("Reset", {
          text: "Reset",
          onclick: () => {
            this.save("sampling", {});
            this.save("think", "");
            this.el.replaceChildren(this.samplingPanel());
          },
        }),
      ),
    );
  }

  private schemaPanel() {
    const area = el("textarea", {
      class: "ll-input ll-mono",
      rows: 6,
      value: this.model.get("schema"),
      spellcheck: "false",
      "aria-label": "JSON schema",
      placeholder: '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}',
    });
    const status = el("span", { class: "ll-quiet" });
    const check = () => {
      status.textContent = "Answers will be JSON that follows this schema. Empty: no constraint.";
      if (!area.value.trim()) return;
      try {
        JSON.parse(area.value);
      } catch (error) {
        status.textContent = `Not JSON yet: ${(error as Error).message}`;
      }
    };
    area.addEventListener("input", check);
    area.addEventListener("change", () => this.save("schema", area.value));
    check();
    return el("label", { class: "ll-field" }, el("span", {}, "JSON schema that the answer must follow"), area, status);
  }

  private exportPanel() {
    const { f } = this;
    const name = el("input", {
      class: "ll-input ll-short",
      type: "text",
      value: "messages",
      "aria-label": "Variable name",
    });
    this.exported = el("div", { class: "ll-exported", role: "status" });
    const go = (kind: string, text: string) =>
      button(text, { text, onclick: () => f.send("export", { kind, name: name.value.trim() }) });
    return el(
      "div",
      {},
      el(
        "div",
        { class: "ll-row" },
        go("markdown", "Markdown"),
        go("row", "datasets row"),
        go("cell", "%%llm cells"),
        el("span", { class: "ll-space" }),
        go("variable", "Store in variable"),
        name,
      ),
      this.exported,
    );
  }

  showExport({ kind, pieces, note }: Message): void {
    if (!this.exported) return;
    const area = (text: string) => {
      const box = el("textarea", {
        class: "ll-input ll-mono",
        rows: Math.min(8, text.split("\n").length + 1),
        readOnly: true,
        value: text,
        "aria-label": "Exported text",
      });
      return el(
        "div",
        { class: "ll-piece" },
        box,
        copyButton("Copy", () => text),
      );
    };
    const download = () => {
      const suffix = { markdown: "md", row: "jsonl", cell: "txt" }[kind as string];
      const link = el("a", { download: `chat.${suffix}`, href: URL.createObjectURL(new Blob([pieces.join("\n\n")])) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };
    this.exported.replaceChildren(
      el(
        "div",
        { class: "ll-row" },
        el("span", { class: "ll-quiet" }, pieces.length || kind === "variable" ? note : "There are no messages yet."),
        el("span", { class: "ll-space" }),
        pieces.length ? button("Download", { text: "Download", onclick: download }) : "",
      ),
      ...pieces.map(area),
    );
  }
}
