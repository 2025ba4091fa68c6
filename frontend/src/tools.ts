import type { AnyModel } from "@anywidget/types";
import { button, el, icon, seconds } from "./dom";
import type { Frame } from "./frame";
import { focused } from "./keys";
import type { ChatState, Message, Step, ToolRow } from "./state";

// Tools: the drawer's list of what the model may call, and the calls of an answer, which wait for approval.

const STATES: Record<Step["state"], string> = {
  waiting: "waits for your approval",
  queued: "waits",
  running: "running …",
  done: "",
  failed: "failed",
  denied: "not allowed",
};

/** A call as it is read: add(a=1, b="x"). */
export function callText({ name, arguments: given }: Step): string {
  return `${name}(${Object.entries(given)
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join(", ")})`;
}

/** The calls of an answer. */
export class StepsView {
  readonly el = el("div", { class: "ll-steps", hidden: true });
  private key = "";

  constructor(private readonly f: Frame<ChatState>) {}

  /** Draw the calls; returns whether they have changed. */
  update(steps: Step[]): boolean {
    const key = JSON.stringify(steps);
    if (key === this.key) return false;
    this.key = key;
    this.el.hidden = !steps.length;
    const focus = document.activeElement;
    const held = focus && this.el.contains(focus);
    this.el.replaceChildren(...steps.map((step) => this.step(step)));
    if (held) (this.el.querySelector<HTMLElement>("button") ?? this.el.closest<HTMLElement>(".ll-turn"))?.focus();
    return true;
  }

  private step(step: Step): HTMLElement {
    const outcome = step.state === "done" ? step.result || "(nothing)" : step.state === "failed" ? step.error : "";
    return el(
      "div",
      { class: `ll-step ll-${step.state}`, role: "group", "aria-label": `Call of ${step.name}` },
      el(
        "div",
        { class: "ll-step-head" },
        icon("tool"),
        el("code", {}, callText(step)),
        el(
          "span",
          { class: "ll-quiet" },
          step.state === "done" && step.seconds ? seconds(step.seconds) : STATES[step.state],
        ),
      ),
      step.state === "waiting" && this.approval(step),
      outcome && el("pre", { class: "ll-outcome", tabindex: 0, "aria-label": "Result" }, outcome),
    );
  }

  private approval({ id, name }: Step): HTMLElement {
    const decide = (allow: boolean, always = false) => this.f.send("decide", { call: id, allow, always });
    return el(
      "div",
      { class: "ll-row ll-approval ll-change" },
      button("Approve", { text: "Approve", cls: "ll-primary", onclick: () => decide(true) }),
      button(`Always allow ${name}`, {
        text: `Always allow ${name}`,
        title: `Run this and all later calls of ${name} in this chat without asking`,
        onclick: () => decide(true, true),
      }),
      button("Deny", { text: "Deny", title: "Don't run it; the model is told so", onclick: () => decide(false) }),
    );
  }
}

/** The drawer's panel: the tools, and what can be added. */
export class ToolsPanel {
  readonly el: HTMLElement;
  private readonly list = el("div", { class: "ll-tool-list", role: "list" });
  private readonly input = el("input", {
    class: "ll-input",
    type: "text",
    placeholder: "a function of this notebook, or mcp:NAME",
    "aria-label": "Tool to add",
    autocomplete: "off",
    spellcheck: "false",
  });
  private readonly known = el("datalist", { id: `ll-tools-${Math.random().toString(36).slice(2)}` });
  private readonly note = el("div", { class: "ll-quiet", role: "status" });

  constructor(
    private readonly model: AnyModel<ChatState>,
    private readonly f: Frame<ChatState>,
  ) {
    const { input } = this;
    input.setAttribute("list", this.known.id);
    const form = el(
      "form",
      { class: "ll-loader" },
      input,
      this.known,
      button("Add", { text: "Add", cls: "ll-primary", type: "submit" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      f.send("add_tool", { name: input.value });
      input.value = "";
    });
    this.el = el("div", {}, this.list, form, this.note);
    this.update();
    f.send("tools");
  }

  update(): void {
    const rows = this.model.get("tool_list") ?? [];
    const focus = focused(this.list);
    this.list.replaceChildren(
      ...(rows.length
        ? rows.map((row) => this.row(row))
        : [
            el(
              "span",
              { class: "ll-quiet" },
              "The model can call functions with type hints. Each call is shown, and waits for your approval.",
            ),
          ]),
    );
    if (focus === null) return;
    const controls = [...this.list.querySelectorAll<HTMLElement>("input, button")];
    (controls.find((one) => one.getAttribute("aria-label") === focus) ?? this.input).focus();
  }

  /** What the kernel knows: functions and servers. */
  offer({ functions, servers, problem }: Message): void {
    const names: string[] = [...functions, ...servers];
    this.known.replaceChildren(...names.map((name) => el("option", { value: name })));
    this.note.textContent = problem
      ? String(problem)
      : names.length
        ? `Here: ${names.slice(0, 12).join(", ")}${names.length > 12 ? ", …" : ""}`
        : "No function is defined in this notebook, and no mcp.json names a server.";
  }

  private row({ name, description, origin, on, always }: ToolRow): HTMLElement {
    const box = (label: string, checked: boolean, change: (value: boolean) => void) => {
      const input = el("input", { type: "checkbox", checked, "aria-label": `${label} ${name}` });
      input.addEventListener("change", () => change(input.checked));
      return input;
    };
    return el(
      "div",
      { class: "ll-tool", role: "listitem" },
      el(
        "label",
        { class: "ll-check" },
        box("Use", on, (value) => this.f.send("set_tool", { name, on: value })),
        el("code", {}, name),
      ),
      origin !== "function" && el("span", { class: "ll-tag" }, origin),
      el("span", { class: "ll-quiet ll-tool-text", title: description }, description.split("\n")[0]),
      el(
        "label",
        { class: "ll-check", title: "Its calls run without approval" },
        box("Always allow", always, (value) => this.f.send("set_tool", { name, always: value })),
        "always allow",
      ),
      button(`Remove ${name}`, { iconName: "close", onclick: () => this.f.send("remove_tool", { name }) }),
    );
  }
}
