import type { AnyModel } from "@anywidget/types";
import { button, el, options } from "./dom";
import type { Frame } from "./frame";
import type { ChatState, Message } from "./state";

// The chat's sampling settings. The kernel checks each value; a refused one stays in its field, with the reason.

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

const THINK: [string, string][] = ["", "on", "off", "low", "medium", "high"].map((one) => [one, one || "default"]);
const THINK_HELP = "Whether and how hard a reasoning model thinks before it answers, as its chat template allows";
const LIMIT_HELP = "The most tokens of a thought, which is closed there; 0: no thought";
const OVERFLOW: [string, string][] = [
  ["error", "refuse the message"],
  ["drop", "leave out the oldest turns"],
  ["shift", "also drop the oldest tokens of a long answer's context"],
];
const OVERFLOW_HELP = "What happens when the conversation fills the context; the answer says what was left out";

export class SamplingPanel {
  readonly el: HTMLElement;
  private readonly inputs = new Map<string, HTMLInputElement | HTMLSelectElement>();
  private readonly reasons = new Map<string, HTMLElement>();

  constructor(
    private readonly model: AnyModel<ChatState>,
    private readonly f: Frame<ChatState>,
    rebuild: () => void,
  ) {
    const now = model.get("sampling");
    const open = [...MORE.map(([key]) => key), "bad_words"].some((key) => now[key] !== undefined);
    const sure = el("input", { type: "checkbox", checked: now.logprobs !== undefined });
    sure.addEventListener("change", () => this.set("logprobs", sure.checked ? 5 : ""));
    this.el = el(
      "div",
      {},
      el(
        "div",
        { class: "ll-fields" },
        NUMBERS.map((one) => this.number(one)),
        this.texts("stop", "Stop", "Strings that end the answer, separated by commas", "END, ###"),
        this.thought(),
      ),
      el(
        "details",
        { open },
        el("summary", {}, "More: penalties and other filters"),
        el(
          "div",
          { class: "ll-fields" },
          MORE.map((one) => this.number(one)),
          this.texts("bad_words", "Bad words", "Words that are never generated, separated by commas", "however, very"),
        ),
      ),
      el(
        "div",
        { class: "ll-row" },
        el("label", { class: "ll-check" }, sure, " Keep token probabilities"),
        el("span", { class: "ll-space" }),
        this.overflow(),
        button("Reset", {
          text: "Reset",
          onclick: () => {
            model.set("sampling", {});
            model.set("think", "");
            model.set("overflow", "error");
            model.save_changes();
            rebuild();
          },
        }),
      ),
      this.reason("overflow"),
    );
  }

  /** The kernel's verdict on a field. */
  verdict({ field, problem }: Message): void {
    const said = problem.message ? `${problem.message} ${problem.hint ?? ""}`.trim() : "";
    this.say(field, said);
    if (field === "overflow" && said)
      (this.inputs.get("overflow") as HTMLSelectElement).value = this.model.get("overflow");
  }

  private say(field: string, reason: string): void {
    const input = this.inputs.get(field);
    const node = this.reasons.get(field);
    if (!input || !node) return;
    node.textContent = reason;
    node.hidden = !reason;
    if (reason) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }

  private set(field: string, value: unknown): void {
    this.f.send("set", { field, value });
  }

  private reason(field: string): HTMLElement {
    const node = el("span", { class: "ll-why ll-bad", role: "alert", hidden: true });
    this.reasons.set(field, node);
    return node;
  }

  private field(key: string, label: string, help: string, input: HTMLInputElement | HTMLSelectElement): HTMLElement {
    this.inputs.set(key, input);
    input.dataset.field = key;
    return el(
      "div",
      { class: "ll-field" },
      el("label", { title: help }, el("span", {}, label), input),
      this.reason(key),
    );
  }

  private number([key, label, help, limits]: Field): HTMLElement {
    const input = el("input", {
      class: "ll-input",
      type: "number",
      value: this.model.get("sampling")[key] ?? "",
      placeholder: key === "seed" ? "random" : "default",
      ...limits,
    });
    input.addEventListener("change", () => this.take(key, input));
    return this.field(key, label, help, input);
  }

  /** Send a number, or say in the field that it is none. */
  private take(key: string, input: HTMLInputElement): void {
    const value = input.value === "" ? "" : Number(input.value);
    if (input.validity?.badInput || (value !== "" && !Number.isFinite(value))) {
      this.say(key, "This is not a number.");
      return;
    }
    this.set(key, value);
  }

  private texts(key: "stop" | "bad_words", label: string, help: string, placeholder: string): HTMLElement {
    const value = (this.model.get("sampling")[key] ?? []).join(", ");
    const input = el("input", { class: "ll-input", type: "text", value, placeholder });
    input.addEventListener("change", () => {
      const found = input.value
        .split(",")
        .map((one) => one.trim())
        .filter(Boolean);
      this.set(key, found.length ? found : "");
    });
    return this.field(key, label, help, input);
  }

  /** Think and its limit: one value, so one empties the other. */
  private thought(): HTMLElement[] {
    const now = this.model.get("think");
    const isLimit = /^\d+$/.test(now);
    const think = el("select", { class: "ll-select" });
    const limit = el("input", {
      class: "ll-input",
      type: "number",
      min: 0,
      step: "any",
      placeholder: "no limit",
      value: isLimit ? now : "",
    });
    options(think, THINK, isLimit ? "" : now);
    think.addEventListener("change", () => {
      limit.value = "";
      this.set("think", think.value);
    });
    limit.addEventListener("change", () => {
      if (limit.validity?.badInput) this.say("think", "This is not a number.");
      else {
        think.value = "";
        this.set("think", limit.value);
      }
    });
    const second = this.field("max-thought", "Max thought", LIMIT_HELP, limit);
    const first = this.field("think", "Think", THINK_HELP, think);
    return [first, second];
  }

  private overflow(): HTMLElement {
    const pick = el("select", { class: "ll-select ll-wide", "data-field": "overflow" });
    options(pick, OVERFLOW, this.model.get("overflow"));
    pick.addEventListener("change", () => this.set("overflow", pick.value));
    this.inputs.set("overflow", pick);
    return el("label", { class: "ll-check", title: OVERFLOW_HELP }, "If the context is full: ", pick);
  }
}
