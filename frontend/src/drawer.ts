import type { AnyModel } from "@anywidget/types";
import { button, copyButton, el } from "./dom";
import { EarlierPanel } from "./earlier";
import type { Frame } from "./frame";
import { SamplingPanel } from "./sampling";
import { SavedRow } from "./saved";
import type { ChatState, Message } from "./state";
import { ToolsPanel } from "./tools";

// The chat's settings and exports: tabs in the bar, and a drawer below it that shows one of them.

type Icon = "note" | "tune" | "braces" | "tool" | "search" | "export";
type Panel = [text: string, icon: Icon, label: string, build: () => HTMLElement];

export class Drawer {
  readonly el = el("div", { class: "ll-drawer", hidden: true });
  readonly tabs: HTMLButtonElement[];
  private readonly panels: Record<string, Panel>;
  private open = "";
  private exported: HTMLElement | null = null;
  // The open panel, if it is one of these.
  private sampling: SamplingPanel | null = null;
  private presets: SavedRow | null = null;
  private tools: ToolsPanel | null = null;
  private earlier: EarlierPanel | null = null;

  constructor(
    private readonly model: AnyModel<ChatState>,
    private readonly f: Frame<ChatState>,
  ) {
    this.panels = {
      system: ["System", "note", "System prompt", () => this.systemPanel()],
      sampling: ["Sampling", "tune", "Sampling params", () => this.samplingPanel()],
      schema: ["Schema", "braces", "Schema of the answer", () => this.schemaPanel()],
      tools: ["Tools", "tool", "Tools and their approval", () => this.toolsPanel()],
      earlier: ["Earlier", "search", "Search in earlier chats", () => this.earlierPanel()],
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
    f.on("refused", (m) => this.sampling?.verdict(m));
    f.on("tools", (m) => this.tools?.offer(m));
    f.on("found", (m) => this.earlier?.show(m));
    f.watch(["tool_list"], () => {
      this.tools?.update();
      this.marks();
    });
    f.watch(["prompts", "prompt_change"], () => this.presets?.update());
    this.el.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.open) return;
      const tab = this.tabs.find((one) => one.dataset.panel === this.open);
      this.toggle(this.open);
      tab?.focus();
    });
  }

  /** A prompt was saved. */
  saved({ name, kind }: Message): void {
    if (kind === "system") this.presets?.choose(name);
  }

  private toggle(name: string): void {
    this.open = this.open === name ? "" : name;
    this.el.hidden = !this.open;
    for (const tab of this.tabs) tab.setAttribute("aria-expanded", String(tab.dataset.panel === this.open));
    this.sampling = this.presets = this.tools = this.earlier = null;
    if (this.open) {
      this.el.replaceChildren(this.panels[this.open][3]());
      this.el.querySelector<HTMLElement>("textarea, input:not([type=checkbox]), button")?.focus();
    }
  }

  /** Mark the tabs that have settings. */
  marks(): void {
    const set: Record<string, unknown> = {
      system: this.model.get("system").trim(),
      sampling:
        Object.keys(this.model.get("sampling")).length ||
        this.model.get("think") ||
        this.model.get("overflow") !== "error",
      schema: this.model.get("schema").trim(),
      tools: this.model.get("tool_list").some((tool) => tool.on),
    };
    for (const tab of this.tabs) tab.classList.toggle("ll-set", Boolean(set[tab.dataset.panel ?? ""]));
  }

  private save<K extends "system" | "schema">(name: K, value: ChatState[K]): void {
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
    const use = (text: string) => {
      area.value = text;
      this.save("system", text);
    };
    this.presets = new SavedRow(
      this.model,
      this.f,
      "system",
      (prompt) => use(prompt.text),
      () => area.value,
    );
    return el(
      "div",
      {},
      el("label", { class: "ll-field" }, el("span", {}, "System prompt: how the model should answer"), area),
      this.presets.el,
    );
  }

  private samplingPanel(): HTMLElement {
    this.sampling = new SamplingPanel(this.model, this.f, () => this.el.replaceChildren(this.samplingPanel()));
    return this.sampling.el;
  }

  private toolsPanel() {
    this.tools = new ToolsPanel(this.model, this.f);
    return this.tools.el;
  }

  private earlierPanel() {
    this.earlier = new EarlierPanel(this.f, () => this.toggle("earlier"));
    return this.earlier.el;
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
