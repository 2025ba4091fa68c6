import type { AnyModel } from "@anywidget/types";
import { button, el, num, options, setText } from "./dom";
import { type Context, type Frame, frame, loader } from "./frame";
import type { PanelRow, PanelState, Quant } from "./state";

// The loaded models. While visible, it polls the kernel every second, waiting for each answer.

const EVERY_MS = 1000;
const SURE_MS = 2500;

class PanelView {
  readonly f: Frame<PanelState>;
  readonly timer: ReturnType<typeof setInterval>;
  private readonly model: AnyModel<PanelState>;
  private readonly list: HTMLElement;
  private readonly device: HTMLElement;
  private readonly cards = new Map<string, { key: string; node: HTMLElement }>();
  private waiting = false;

  constructor(context: Context<PanelState>) {
    this.model = context.model;
    this.f = frame(context, "panel", "Loaded models");
    this.list = el("div", { class: "ll-models" });
    this.device = el("div", { class: "ll-device" });
    this.f.root.append(
      el("div", { class: "ll-bar" }, el("b", {}, "Loaded models"), el("span", { class: "ll-space" }), this.device),
      this.list,
      el("div", { class: "ll-foot" }, loader(this.f, this.model, true)),
    );
    this.f.watch(["rows", "lab_state"], () => this.render());
    this.f.watch(["device"], () => this.showDevice());
    this.f.on("looked", () => {
      this.waiting = false;
    });
    this.timer = setInterval(() => {
      if (this.waiting || !this.f.connected() || document.hidden || !this.f.root.isConnected) return;
      this.waiting = true;
      this.f.send("look");
    }, EVERY_MS);
  }

  private showDevice() {
    const { name, summary, total = 0, free = 0 } = this.model.get("device") ?? {};
    const share = total ? (100 * (total - free)) / total : 0;
    this.device.replaceChildren(
      el("span", { class: "ll-quiet" }, `${name ?? ""}: ${summary ?? ""}`),
      el(
        "span",
        { class: "ll-mem", title: `${num(share)} % of the memory in use` },
        el("span", { class: "ll-mem-used", style: `width:${share}%` }),
      ),
    );
  }

  private render() {
    const rows = this.model.get("rows") ?? [];
    const { models = [], work } = this.model.get("lab_state") ?? {};
    const total = Math.max(this.model.get("device")?.total ?? 1, 1);
    const largest = Math.max(...rows.map((r) => r.weights + r.kv), 1);
    const nodes = rows.map((row) => {
      const quants = models.find((m) => m.name === row.name)?.quants ?? [];
      const key = JSON.stringify([row, quants, work?.what]);
      const old = this.cards.get(row.name);
      if (old?.key === key) return old.node;
      const node = this.card(row, quants, Boolean(work), largest, total);
      this.cards.set(row.name, { key, node });
      return node;
    });
    if (!rows.length)
      nodes.push(
        el(
          "div",
          { class: "ll-empty" },
          el("b", {}, "No model is loaded"),
          el("span", { class: "ll-quiet" }, "Enter a name below and press Load. nano is small and included."),
        ),
      );
    const now = [...this.list.children];
    if (now.length !== nodes.length || now.some((node, i) => node !== nodes[i])) this.list.replaceChildren(...nodes);
  }

  private card(row: PanelRow, quants: Quant[], busy: boolean, largest: number, total: number) {
    const { f } = this;
    const pick = el("select", {
      class: "ll-select ll-change",
      "aria-label": `Quant of ${row.name}`,
      disabled: busy || quants.length < 2,
    });
    options(
      pick,
      quants.map(({ quant, action }) => [quant, action === "download" ? `${quant} (download)` : quant]),
      row.quant,
    );
    pick.addEventListener("change", () => f.send("quant", { name: row.name, quant: pick.value }));
    const out = button(`Unload ${row.name}`, { text: "Unload", cls: "ll-change", disabled: busy });
    let armed: ReturnType<typeof setTimeout> | undefined;
    out.addEventListener("click", () => {
      if (armed) {
        f.send("unload", { name: row.name });
        return;
      }
      setText(out, "Sure?");
      armed = setTimeout(() => {
        armed = undefined;
        setText(out, "Unload");
      }, SURE_MS);
    });
    const part = (bytes: number, cls: string, what: string) =>
      el("span", { class: `ll-mem-${cls}`, style: `width:${(100 * bytes) / largest}%`, title: what });
    return el(
      "div",
      { class: "ll-model", role: "group", "aria-label": row.name },
      el(
        "div",
        { class: "ll-row" },
        el("b", {}, row.name),
        el("span", { class: "ll-tag" }, row.engine),
        el("span", { class: "ll-tag" }, `${row.parameters} parameters`),
        el("span", { class: "ll-tag" }, `context ${num(row.context)}`),
        row.adapters.map((a) => el("span", { class: "ll-tag" }, `adapter ${a}`)),
        row.current && el("span", { class: "ll-tag ll-current" }, "current"),
        el("span", { class: "ll-space" }),
        row.in_flight
          ? el(
              "span",
              { class: "ll-flight", role: "status" },
              el("span", { class: "ll-running" }),
              `${row.in_flight} in flight`,
            )
          : el("span", { class: "ll-quiet" }, "idle"),
        pick,
        !row.current &&
          button(`Make ${row.name} the current model`, {
            text: "Use",
            cls: "ll-change",
            onclick: () => f.send("use", { name: row.name }),
          }),
        out,
      ),
      el(
        "div",
        { class: "ll-row" },
        el(
          "span",
          { class: "ll-mem ll-wide", role: "img", "aria-label": row.summary },
          part(row.weights, "weights", "weights"),
          part(row.kv, "kv", "KV cache"),
        ),
        el(
          "span",
          { class: "ll-quiet", title: row.reason },
          `${row.summary} · ${num((100 * (row.weights + row.kv)) / total, 1)} % of the memory (${row.on})`,
        ),
      ),
    );
  }
}

export default {
  render(context: Context<PanelState>) {
    const panel = new PanelView(context);
    return () => {
      clearInterval(panel.timer);
      panel.f.dispose();
    };
  },
};
