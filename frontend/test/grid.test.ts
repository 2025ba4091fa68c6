import assert from "node:assert/strict";
import { test } from "node:test";
import { document } from "./dom";

// What a browser has beyond linkedom's document, as far as a widget's frame uses it.
const nothing = () => {};
Object.assign(globalThis, {
  window: { addEventListener: nothing, removeEventListener: nothing },
  getComputedStyle: () => ({ backgroundColor: "rgb(255, 255, 255)" }),
  requestAnimationFrame: nothing,
  MutationObserver: class {
    observe = nothing;
    disconnect = nothing;
  },
});

// A select's value can't be set in linkedom.
Object.defineProperty(Object.getPrototypeOf(document.createElement("select")), "value", {
  get() {
    return this.chosen ?? "";
  },
  set(value) {
    this.chosen = value;
  },
});
const { Event: Made } = document.defaultView as unknown as { Event: typeof Event };

const EVIL = "<img src=x onerror=hacked()>";
const STATE = {
  lab_state: {},
  problem: {},
  static_class: "",
  title: "exp",
  questions: [
    { text: "first?", reference: "yes" },
    { text: EVIL, reference: "" },
  ],
  variants: ["F16", "Q4_K_M"],
  scores: ["exact"],
  cells: [
    { row: 0, question: 0, variant: 0, text: "same", error: "", scores: { exact: true }, thumb: 1 },
    { row: 1, question: 0, variant: 1, text: "same", error: "", scores: { exact: true }, thumb: 0 },
    { row: 2, question: 1, variant: 0, text: EVIL, error: "", scores: { exact: false }, thumb: 0 },
    { row: 3, question: 1, variant: 1, text: "", error: "out of memory", scores: { exact: null }, thumb: 0 },
  ],
  opened: {} as Record<string, unknown>,
  pair: {} as Record<string, unknown>,
  standings: [] as unknown[],
  tally: "",
};

async function opened() {
  const { default: widget } = await import("../src/grid");
  const sent: Record<string, unknown>[] = [];
  const handlers = new Map<string, (() => void)[]>();
  const state = structuredClone(STATE) as Record<string, unknown>;
  const model = {
    get: (name: string) => state[name],
    on: (name: string, f: () => void) => handlers.set(name, [...(handlers.get(name) ?? []), f]),
    send: (message: Record<string, unknown>) => sent.push(message),
  };
  const host = document.createElement("div");
  document.body.append(host);
  const dispose = widget.render({ model, el: host } as never);
  const set = (name: string, value: unknown) => {
    state[name] = value;
    for (const f of handlers.get(`change:${name}`) ?? []) f();
  };
  const press = (target: Element, key: string) => {
    const event = new Made("keydown", { bubbles: true, cancelable: true });
    target.dispatchEvent(Object.assign(event, { key }));
  };
  const last = (action: string) => sent.filter((one) => one.do === action).at(-1);
  return { host: host as unknown as HTMLElement, last, set, press, dispose };
}

test("an experiment is a table of prompts by variants, as text", async () => {
  const { host, dispose } = await opened();
  assert.deepEqual(
    [...host.querySelectorAll("thead th")].map((one) => one.textContent),
    ["prompt", "F16", "Q4_K_M"],
  );
  assert.equal(host.querySelectorAll("tbody td").length, 4);
  assert.equal(host.querySelectorAll("img").length, 0);
  assert.ok(host.textContent?.includes(EVIL));
  assert.ok(host.textContent?.includes("failed: out of memory"));
  assert.ok(host.textContent?.includes("exact ✓ 👍"));
  dispose();
});

test("it is filtered and sorted", async () => {
  const { host, dispose } = await opened();
  const [filter] = host.querySelectorAll<HTMLInputElement>("input[type=search]");
  const change = (node: Element, type: string) => node.dispatchEvent(new Made(type));
  filter.value = "FIRST";
  change(filter, "input");
  assert.equal(host.querySelectorAll("tbody tr").length, 1);
  filter.value = "";
  change(filter, "input");
  const only = host.querySelector<HTMLSelectElement>("select[aria-label='Which prompts']");
  assert.ok(only);
  for (const [value, lines] of [
    ["failed", 1],
    ["rated", 1],
    ["all", 2],
  ] as const) {
    only.value = value;
    change(only, "change");
    assert.equal(host.querySelectorAll("tbody tr").length, lines, value);
  }
  const sort = host.querySelector<HTMLSelectElement>("select[aria-label='Order of the prompts']");
  assert.ok(sort);
  sort.value = "score:exact";
  change(sort, "change");
  assert.ok(host.querySelector("tbody tr th")?.textContent?.includes(EVIL));
  dispose();
});

test("the keyboard opens, rates and closes", async () => {
  const { host, last, set, press, dispose } = await opened();
  const [first] = host.querySelectorAll("tbody td");
  press(first, "Enter");
  assert.equal(last("open")?.row, 0);
  press(first, "ArrowRight");
  const [, second] = host.querySelectorAll("tbody td");
  assert.equal(second.getAttribute("tabindex"), "0");
  press(second, "-");
  assert.deepEqual(last("rate"), { do: "rate", row: 1, thumb: -1 });
  set("opened", { row: 2, variant: "F16", text: EVIL, pieces: ["<img", " src"], prompt: "p", thumb: 0 });
  const section = host.querySelector<HTMLElement>(".ll-opened");
  assert.equal(section?.hidden, false);
  assert.equal(section?.querySelectorAll("img").length, 0);
  press(section as Element, "+");
  assert.deepEqual(last("rate"), { do: "rate", row: 2, thumb: 1 });
  press(second, "Escape");
  assert.ok(last("shut"));
  dispose();
});

test("blind pairs are judged by keys, and show no names", async () => {
  const { host, last, set, press, dispose } = await opened();
  set("pair", { prompt: "p", a: EVIL, b: "other", left: 3 });
  const pair = host.querySelector<HTMLElement>(".ll-pair");
  assert.ok(pair && !pair.hidden);
  assert.ok(!pair.textContent?.includes("F16"));
  assert.equal(pair.querySelectorAll("img").length, 0);
  for (const [key, winner] of [
    ["a", "a"],
    ["B", "b"],
    ["t", "tie"],
    ["s", "skip"],
  ]) {
    press(pair, key);
    assert.deepEqual(last("verdict"), { do: "verdict", winner });
  }
  dispose();
});

test("ratings from votes are a table, as text", async () => {
  const { showStandings } = await import("../src/compare");
  const box = document.createElement("details") as unknown as HTMLElement;
  showStandings(box, [{ name: EVIL, rating: 1131, low: null, high: null, votes: 1 }]);
  assert.equal(box.querySelectorAll("img").length, 0);
  assert.match(box.textContent ?? "", /1131from 10 votes on1$/);
  showStandings(box, []);
  assert.equal(box.hidden, true);
});
