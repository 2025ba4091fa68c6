import assert from "node:assert/strict";
import { test } from "node:test";
import { EarlierPanel } from "../src/earlier";
import type { Frame } from "../src/frame";
import { SamplingPanel } from "../src/sampling";
import { filled, SavedRow } from "../src/saved";
import type { ChatState, Step } from "../src/state";
import { callText, StepsView, ToolsPanel } from "../src/tools";
import { document } from "./dom";

const { Event: Made } = document.defaultView as unknown as { Event: typeof Event };
const EVIL = "<img src=x onerror=hacked()>";

// A select's value can't be set in linkedom.
Object.defineProperty(Object.getPrototypeOf(document.createElement("select")), "value", {
  configurable: true,
  get() {
    return this.chosen ?? "";
  },
  set(value) {
    this.chosen = value;
  },
});

/** A frame that keeps what is sent, and a model with a state. */
function page(state: Partial<ChatState>) {
  const sent: Record<string, unknown>[] = [];
  const f = { send: (action: string, fields: object = {}) => sent.push({ do: action, ...fields }) };
  const saved: Record<string, unknown> = {};
  const model = {
    get: (name: keyof ChatState) => state[name],
    set: (name: string, value: unknown) => {
      saved[name] = value;
    },
    save_changes: () => {},
  };
  const last = (action: string) => sent.filter((one) => one.do === action).at(-1);
  return { f: f as unknown as Frame<ChatState>, model: model as never, last, saved };
}

const step = (state: Step["state"], more: Partial<Step> = {}): Step => ({
  id: "c1",
  name: "add",
  arguments: { a: 1, text: EVIL },
  state,
  result: "",
  error: "",
  seconds: 0,
  ...more,
});

function click(root: HTMLElement, label: string) {
  const found = [...root.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === label);
  assert.ok(found, label);
  found.dispatchEvent(new Made("click", { bubbles: true }));
}

test("a waiting call shows its arguments as text, and sends the decision", () => {
  const { f, last } = page({});
  const view = new StepsView(f);
  assert.equal(view.update([step("waiting")]), true);
  assert.equal(view.update([step("waiting")]), false);
  assert.equal(callText(step("waiting")), `add(a=1, text=${JSON.stringify(EVIL)})`);
  assert.equal(view.el.querySelectorAll("img").length, 0);
  for (const [label, want] of [
    ["Approve", { allow: true, always: false }],
    ["Always allow add", { allow: true, always: true }],
    ["Deny", { allow: false, always: false }],
  ] as const) {
    click(view.el, label);
    assert.deepEqual(last("decide"), { do: "decide", call: "c1", ...want });
  }
  view.update([step("done", { result: EVIL })]);
  assert.equal(view.el.querySelectorAll("button").length, 0);
  assert.equal(view.el.querySelector("pre")?.textContent, EVIL);
  view.update([step("queued"), step("denied"), step("failed", { error: "no luck" })]);
  assert.deepEqual(
    [...view.el.querySelectorAll(".ll-step-head > .ll-quiet")].map((one) => one.textContent),
    ["waits", "not allowed", "failed"],
  );
  view.update([]);
  assert.equal(view.el.hidden, true);
});

test("a value that the kernel refuses keeps its field, with the reason", () => {
  const { f, model, last, saved } = page({ sampling: {}, think: "", overflow: "error" });
  const panel = new SamplingPanel(model, f, () => {});
  const input = panel.el.querySelector<HTMLInputElement>("[data-field=temperature]");
  assert.ok(input);
  const reason = input.closest(".ll-field")?.querySelector<HTMLElement>(".ll-why");
  const change = (value: string, badInput = false) => {
    Object.defineProperty(input, "validity", { configurable: true, value: { badInput } });
    input.value = value;
    input.dispatchEvent(new Made("change"));
  };
  change("-1");
  assert.deepEqual(last("set"), { do: "set", field: "temperature", value: -1 });
  panel.verdict({ do: "refused", field: "temperature", problem: { message: "It must be 0 or more.", hint: "" } });
  assert.equal(reason?.textContent, "It must be 0 or more.");
  assert.equal(input.getAttribute("aria-invalid"), "true");
  assert.equal(input.value, "-1");
  for (const [value, bad] of [
    ["", true],
    ["1e999", false],
  ] as const) {
    change(value, bad);
    assert.equal(reason?.textContent, "This is not a number.");
    assert.deepEqual(last("set"), { do: "set", field: "temperature", value: -1 }); // nothing was sent
  }
  change("");
  assert.deepEqual(last("set"), { do: "set", field: "temperature", value: "" });
  panel.verdict({ do: "refused", field: "temperature", problem: {} });
  assert.equal(reason?.hidden, true);
  assert.equal(input.hasAttribute("aria-invalid"), false);
  click(panel.el, "Reset");
  assert.deepEqual(saved, { sampling: {}, think: "", overflow: "error" });
});

test("a template's variables are replaced, those without a value stay", () => {
  const text = "{{ a }} and {{b}}, {{a}} {{not a name}} {{}}";
  assert.equal(filled(text, { a: "x$&", b: "" }), "x$& and {{b}}, x$& {{not a name}} {{}}");
});

test("saved prompts are saved, deleted and undone by name", () => {
  const state = {
    prompts: [{ name: EVIL, kind: "system", text: "t", variables: [] }],
    prompt_change: "deleted old",
  } as unknown as ChatState;
  const { f, model, last } = page(state);
  const row = new SavedRow(
    model,
    f,
    "system",
    () => {},
    () => "the text",
  );
  assert.ok(last("prompts"));
  assert.equal(row.el.querySelectorAll("img").length, 0);
  const [name] = row.el.querySelectorAll("input");
  name.value = "brief";
  click(row.el, "Save");
  assert.deepEqual(last("save_prompt"), { do: "save_prompt", name: "brief", text: "the text", kind: "system" });
  click(row.el, "Undo: deleted old");
  assert.ok(last("undo_prompt"));
  row.choose(EVIL);
  click(row.el, "Delete");
  assert.deepEqual(last("delete_prompt"), { do: "delete_prompt", name: EVIL, kind: "system" });
});

test("only the answer to the newest query is shown", () => {
  const { f, last } = page({});
  let closed = 0;
  const panel = new EarlierPanel(f, () => {
    closed += 1;
  });
  assert.deepEqual(last("find"), { do: "find", query: "" });
  const rows = [{ id: "ab12", title: EVIL, at: "2026-11-27T00:00:00Z", model: "nano", turns: 2, snippet: "x" }];
  panel.show({ do: "found", query: "older", rows });
  assert.equal(panel.el.querySelectorAll("button").length, 0);
  panel.show({ do: "found", query: "", rows });
  assert.equal(panel.el.querySelectorAll("img").length, 0);
  click(panel.el, `Continue: ${EVIL}`);
  assert.deepEqual(last("resume"), { do: "resume", conversation: "ab12" });
  assert.equal(closed, 1);
  panel.show({ do: "found", query: "", rows: [] });
  assert.ok(panel.el.textContent?.includes("There is no earlier chat."));
  panel.show({ do: "found", query: "", rows: [], off: true });
  assert.ok(panel.el.textContent?.includes("LLMLAB_RUN_LOG"));
});

test("tools are switched, always allowed, removed and added", () => {
  const tool_list = [{ name: "add", description: EVIL, origin: "mcp:sums", on: true, always: false }];
  const { f, model, last } = page({ tool_list });
  const panel = new ToolsPanel(model, f);
  assert.equal(panel.el.querySelectorAll("img").length, 0);
  const [use, always] = panel.el.querySelectorAll<HTMLInputElement>("input[type=checkbox]");
  always.checked = true;
  always.dispatchEvent(new Made("change"));
  assert.deepEqual(last("set_tool"), { do: "set_tool", name: "add", always: true });
  use.checked = false;
  use.dispatchEvent(new Made("change"));
  assert.deepEqual(last("set_tool"), { do: "set_tool", name: "add", on: false });
  click(panel.el, "Remove add");
  assert.deepEqual(last("remove_tool"), { do: "remove_tool", name: "add" });
  panel.offer({ do: "tools", functions: ["f"], servers: ["mcp:sums"], problem: "" });
  assert.ok(panel.el.textContent?.includes("Here: f, mcp:sums"));
});
