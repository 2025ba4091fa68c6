import type { AnyModel } from "@anywidget/types";
import { button, el, options } from "./dom";
import type { Frame } from "./frame";
import type { ChatState, SavedPrompt } from "./state";

// Saved prompts: system prompts in the drawer, templates above the message. Saving replaces a prompt of the same name,
// and the last change can be undone.

/** A row to choose, save and delete prompts of one kind. */
export class SavedRow {
  readonly el: HTMLElement;
  private readonly pick = el("select", { class: "ll-select" });
  private readonly name = el("input", { class: "ll-input ll-short", type: "text", autocomplete: "off", maxlength: 60 });
  private readonly remove: HTMLButtonElement;
  private readonly undo: HTMLButtonElement;

  constructor(
    private readonly model: AnyModel<ChatState>,
    f: Frame<ChatState>,
    private readonly kind: SavedPrompt["kind"],
    use: (prompt: SavedPrompt) => void,
    text: () => string,
  ) {
    const what = kind === "system" ? "preset" : "template";
    this.pick.setAttribute("aria-label", kind === "system" ? "Saved system prompts" : "Prompt templates");
    this.name.setAttribute("aria-label", `Name of the ${what}`);
    this.name.placeholder = `name of the ${what}`;
    this.pick.addEventListener("change", () => {
      const chosen = this.chosen();
      this.remove.disabled = !chosen;
      if (!chosen) return;
      this.name.value = chosen.name;
      use(chosen);
    });
    this.remove = button("Delete", {
      text: "Delete",
      title: `Delete the chosen ${what}`,
      disabled: true,
      onclick: () => f.send("delete_prompt", { name: this.pick.value, kind }),
    });
    this.undo = button("Undo", { iconName: "undo", text: "Undo", onclick: () => f.send("undo_prompt") });
    const save = button("Save", {
      text: "Save",
      title: `Save the text as a ${what}; one with this name is replaced`,
      onclick: () => f.send("save_prompt", { name: this.name.value, text: text(), kind }),
    });
    this.name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") save.click();
    });
    this.el = el("div", { class: "ll-row ll-saved" }, this.pick, this.name, save, this.remove, this.undo);
    this.update();
    f.send("prompts");
  }

  /** The saved prompts have changed. */
  update(): void {
    const saved = this.saved();
    const what = this.kind === "system" ? "preset" : "template";
    const value = saved.some((one) => one.name === this.pick.value) ? this.pick.value : "";
    options(
      this.pick,
      [
        ["", saved.length ? `choose a ${what} (${saved.length})` : `no saved ${what}s`],
        ...saved.map((one): [string, string] => [one.name, one.name]),
      ],
      value,
    );
    this.remove.disabled = !value;
    const change = this.model.get("prompt_change");
    this.undo.hidden = !change;
    this.undo.title = `Undo: ${change}`;
    this.undo.setAttribute("aria-label", `Undo: ${change}`);
  }

  /** A prompt was saved under this name: choose it. */
  choose(name: string): void {
    this.pick.value = name;
    this.remove.disabled = !this.chosen();
  }

  private saved(): SavedPrompt[] {
    return (this.model.get("prompts") ?? []).filter((one) => one.kind === this.kind);
  }

  private chosen(): SavedPrompt | undefined {
    return this.saved().find((one) => one.name === this.pick.value);
  }
}

const VARIABLE = /\{\{\s*([A-Za-z_]\w*)\s*\}\}/g;

/** A template with its variables replaced; those without a value stay. */
export function filled(text: string, values: Record<string, string>): string {
  return text.replace(VARIABLE, (whole, name) => values[name] || whole);
}

/** The templates above the message: a chosen one is inserted, after its variables were filled in. */
export class Templates {
  readonly el: HTMLElement;
  readonly row: SavedRow;
  private readonly form = el("form", { class: "ll-row ll-variables", hidden: true });

  constructor(
    model: AnyModel<ChatState>,
    f: Frame<ChatState>,
    private readonly insert: (text: string) => void,
    text: () => string,
  ) {
    this.row = new SavedRow(model, f, "template", (prompt) => this.ask(prompt), text);
    this.el = el("div", { class: "ll-templates" }, this.row.el, this.form);
  }

  private ask({ text, variables }: SavedPrompt): void {
    this.form.hidden = !variables.length;
    if (!variables.length) {
      this.insert(text);
      return;
    }
    const inputs = variables.map((name) =>
      el("input", { class: "ll-input ll-short", type: "text", placeholder: name, "aria-label": name }),
    );
    this.form.replaceChildren(...inputs, button("Insert", { text: "Insert", cls: "ll-primary", type: "submit" }));
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.form.hidden = true;
      this.insert(filled(text, Object.fromEntries(inputs.map((one, i) => [variables[i], one.value]))));
    };
    inputs[0].focus();
  }
}
