import { answerColumn } from "./compare";
import { button, el, options, type Props } from "./dom";
import { MarkdownView } from "./markdown";
import type { ArenaAnswer, Column, LoadedModel } from "./state";

// The arena's columns: their settings, and their earlier answers.

export const LETTERS = "ABCDEFGH";

/** The pickers and fields of one column; a change replaces all columns. */
export function columnSettings(
  columns: Column[],
  column: number,
  models: LoadedModel[],
  locked: boolean,
  set: (columns: Column[]) => void,
): (Node | string)[] {
  const one = columns[column];
  const change = (fields: Partial<Column>) => set(columns.map((c, i) => (i === column ? { ...c, ...fields } : c)));
  const model = el("select", { class: "ll-select", "aria-label": "Model", disabled: locked });
  const items = models.map((m): [string, string] => [m.name, `${m.name} (${m.quant})`]);
  if (!models.some((m) => m.name === one.model))
    items.unshift([one.model, one.model ? `${one.model} (not loaded)` : "current model"]);
  options(model, items, one.model);
  model.addEventListener("change", () => change({ model: model.value, adapter: "" }));
  const adapters = models.find((m) => m.name === one.model)?.adapters ?? [];
  const adapter = el("select", {
    class: "ll-select",
    "aria-label": "Adapter",
    hidden: !adapters.length,
    disabled: locked,
  });
  options(adapter, [["", "no adapter"], ...adapters.map((a): [string, string] => [a, a])], one.adapter);
  adapter.addEventListener("change", () => change({ adapter: adapter.value }));
  const field = (key: string, label: string, limits: Props) => {
    const input = el("input", {
      class: "ll-input",
      type: "number",
      value: one.sampling[key] ?? "",
      placeholder: "auto",
      title: "auto: the model's own",
      disabled: locked,
      ...limits,
    });
    input.addEventListener("change", () => {
      const sampling = { ...one.sampling };
      if (input.value === "") delete sampling[key];
      else sampling[key] = Number(input.value);
      change({ sampling });
    });
    return el("label", { class: "ll-mini" }, el("span", {}, label), input);
  };
  return [
    model,
    adapter,
    field("temperature", "temp.", { min: 0, step: 0.1 }),
    field("top_p", "top p", { min: 0, max: 1, step: 0.05 }),
    field("max_tokens", "max", { min: 1 }),
    systemOf(one, locked, (system) => change({ system })),
    columns.length > 2
      ? button("Remove this column", {
          iconName: "close",
          cls: "ll-change ll-remove",
          disabled: locked,
          onclick: () => set(columns.filter((_, i) => i !== column)),
        })
      : "",
  ];
}

/** A column's system prompt, folded while it has none. */
function systemOf(one: Column, locked: boolean, change: (system: string) => void) {
  const area = el("textarea", {
    class: "ll-input",
    rows: 2,
    dir: "auto",
    "aria-label": "System prompt",
    placeholder: "the arena's system prompt, if it has one",
    value: one.system,
    disabled: locked,
  });
  area.addEventListener("change", () => change(area.value));
  return el("details", { class: "ll-system", open: Boolean(one.system) }, el("summary", {}, "system"), area);
}

/** A round before this one, folded: the prompt, and each column's answer. */
export function earlierRound(prompt: string, order: number[], answers: ArenaAnswer[]) {
  return el(
    "details",
    { class: "ll-earlier" },
    el("summary", { dir: "auto" }, prompt),
    el(
      "div",
      { class: "ll-grid" },
      order.map((column, place) => {
        const view = new MarkdownView();
        view.update(answers[column]?.text ?? "");
        return answerColumn(LETTERS[place], [], [view.el]);
      }),
    ),
  );
}
