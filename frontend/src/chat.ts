import type { AnyModel } from "@anywidget/types";
import { Composer } from "./composer";
import { button, el, icon, num, onceAFrame, options, setText, when } from "./dom";
import { Drawer } from "./drawer";
import { type Context, type Frame, frame, loader } from "./frame";
import type { ChatState, Live, LoadedModel, Message, Turn } from "./state";
import { callText } from "./tools";
import { type Chat, TurnView } from "./turn";

// The chat. The kernel holds the conversation; this draws it and sends the user's actions.

class ChatView implements Chat {
  readonly f: Frame<ChatState>;
  editing = "";
  private readonly model: AnyModel<ChatState>;
  private readonly views = new Map<string, TurnView>();
  private readonly live = new Map<string, Live>();
  private readonly log: HTMLElement;
  private readonly empty: HTMLElement;
  private readonly announcer: HTMLElement;
  private readonly draw: () => void;
  private readonly composer: Composer;
  private readonly notice = el("div", { class: "ll-notice ll-changed-model", role: "status", hidden: true });
  private editTicket = "";
  private wasRunning = "";
  private asked = "";
  private pin = false;
  private shown = 0;
  // Created by bar().
  private drawer!: Drawer;
  private modelPick!: HTMLSelectElement;
  private quantPick!: HTMLSelectElement;
  private adapterPick!: HTMLSelectElement;

  constructor(context: Context<ChatState>) {
    this.model = context.model;
    this.f = frame(context, "chat", "Chat with a language model");
    this.log = el("div", {
      class: "ll-log",
      role: "log",
      "aria-live": "off",
      "aria-label": "Conversation",
    });
    this.empty = el("div", { class: "ll-empty" });
    this.announcer = el("div", { class: "ll-sr", "aria-live": "polite" });
    this.draw = onceAFrame(() => this.render());
    const bar = this.bar();
    this.composer = new Composer(this.model, this.f, this);
    this.f.root.append(bar, this.drawer.el, this.notice, this.log, this.composer.el, this.announcer);
    this.bind();
    this.pin = true; // begin at the newest turn, once there is a layout
    this.draw();
  }

  get busy(): boolean {
    return Boolean(this.model.get("running"));
  }

  get stopping(): boolean {
    return this.busy && (this.model.get("stopping") || this.composer.stopping);
  }

  get leaf(): string {
    return this.model.get("leaf");
  }

  // -- the bar: the model and the settings ---------------------------------------------------------------------------

  private bar() {
    this.modelPick = el("select", { class: "ll-select", "aria-label": "Model", title: "Model" });
    this.quantPick = el("select", {
      class: "ll-select",
      "aria-label": "Quant",
      title: "Quant: switching loads it in place",
    });
    this.adapterPick = el("select", { class: "ll-select", "aria-label": "Adapter", title: "Adapter" });
    const { f } = this;
    for (const one of [this.modelPick, this.quantPick, this.adapterPick])
      one.addEventListener("mousedown", () => f.send("look"));
    this.modelPick.addEventListener("change", () => f.send("pick", { model: this.modelPick.value, adapter: "" }));
    this.adapterPick.addEventListener("change", () =>
      f.send("pick", { model: this.model.get("model"), adapter: this.adapterPick.value }),
    );
    this.quantPick.addEventListener("change", () =>
      f.send("quant", { name: this.picked()?.name ?? "", quant: this.quantPick.value }),
    );
    this.drawer = new Drawer(this.model, f);
    const fresh = button("New conversation", { iconName: "plus", text: "New", cls: "ll-tab ll-change" });
    fresh.addEventListener("click", () => {
      // If the run log is on, the old conversation is kept there.
      if (!this.model.get("turns").length || this.model.get("conversation") || fresh.dataset.armed) {
        delete fresh.dataset.armed;
        setText(fresh, "New");
        f.send("clear");
        this.composer.area.focus();
        return;
      }
      fresh.dataset.armed = "1";
      setText(fresh, "Discard all?");
      setTimeout(() => {
        delete fresh.dataset.armed;
        setText(fresh, "New");
      }, 2500);
    });
    return el(
      "div",
      { class: "ll-bar" },
      this.modelPick,
      this.quantPick,
      this.adapterPick,
      el("span", { class: "ll-tabs" }, this.drawer.tabs, fresh),
    );
  }

  picked(): LoadedModel | undefined {
    const models = this.model.get("lab_state").models ?? [];
    const name = this.model.get("model");
    return name ? models.find((m) => m.name === name) : models.find((m) => m.current);
  }

  private pickers() {
    const { models = [], work } = this.model.get("lab_state") ?? {};
    const name = this.model.get("model");
    const current = models.find((m) => m.current);
    const items = models.map((m): [string, string] => [m.name, m.name]);
    // Until the first answer, the chat uses the current model.
    if (!name) items.unshift(["", current ? `${current.name} (current)` : "no model loaded"]);
    if (name && !models.some((m) => m.name === name)) items.push([name, `${name} (not loaded)`]);
    options(this.modelPick, items, name);
    const picked = this.picked();
    const quants = picked?.quants ?? [];
    options(
      this.quantPick,
      quants.map(({ quant, action }) => [quant, action === "download" ? `${quant} (download)` : quant]),
      picked?.quant ?? "",
    );
    this.quantPick.hidden = !picked;
    this.quantPick.disabled = quants.length < 2 || Boolean(work) || this.busy;
    const adapters = picked?.adapters ?? [];
    this.adapterPick.hidden = !picked;
    this.adapterPick.disabled = !adapters.length;
    this.adapterPick.title = adapters.length
      ? "Adapter: the next answer uses it"
      : "No adapter is attached: %llm lora add NAME SOURCE";
    const adapter = this.model.get("adapter");
    const gone = adapter && !adapters.includes(adapter);
    options(
      this.adapterPick,
      [
        ["", "no adapter"],
        ...[...adapters, ...(gone ? [adapter] : [])].map((a): [string, string] => [
          a,
          adapters.includes(a) ? a : `${a} (not attached)`,
        ]),
      ],
      adapter,
    );
    if (gone) this.adapterPick.disabled = false;
  }

  // -- editing ----------------------------------------------------------------------------------------------------

  edit(id: string): void {
    const was = this.editing;
    this.editing = id;
    this.render();
    if (!id) (this.views.get(was)?.el ?? this.composer.area).focus();
  }

  /** Edit the last message, as ArrowUp in an empty message does. */
  editLast(event: Event): void {
    const last = this.path().findLast((turn) => turn.role === "user");
    if (!last) return;
    event.preventDefault();
    this.edit(last.id);
  }

  /** The turns shown, from the first to the last. */
  private path(): Turn[] {
    const byId = new Map(this.model.get("turns").map((turn) => [turn.id, turn]));
    const path: Turn[] = [];
    for (let at = byId.get(this.model.get("leaf")); at; at = byId.get(at.parent)) path.unshift(at);
    return path;
  }

  saveEdit(id: string, text: string): void {
    this.editTicket = `e${Math.random().toString(36).slice(2)}`;
    this.f.send("edit", { turn_id: id, text, ticket: this.editTicket });
  }

  private accepted({ ticket }: Message) {
    if (this.composer.accepted(ticket)) {
      this.pin = true;
      this.draw();
    } else if (ticket && ticket === this.editTicket) this.edit("");
  }

  // -- display -----------------------------------------------------------------------------------------------------------

  private bind() {
    const { f, model } = this;
    f.on("delta", (m) => this.delta(m));
    f.on("accepted", (m) => this.accepted(m));
    f.on("export", (m) => this.drawer.showExport(m));
    f.on("steps", (m) => this.stepped(m));
    f.on("pdf", (m) => this.composer.readPdf(m));
    f.on("prompt_saved", (m) => {
      this.drawer.saved(m);
      this.composer.saved(m);
    });
    f.onConnect(() => {
      this.composer.connected();
      this.state();
      this.render();
    });
    model.on("msg:custom", (m) => {
      if (m?.do !== "hello") return;
      for (const [id, live] of Object.entries(m.live ?? {})) this.live.set(id, live as Live);
      this.draw();
    });
    model.on("change:problem", () => this.composer.failed());
    f.watch(["turns", "leaf", "running", "stopping"], () => {
      this.render();
      this.state();
    });
    f.watch(["earlier"], () => this.render());
    f.watch(["lab_state", "model", "adapter"], () => {
      this.pickers();
      this.render();
      this.state();
    });
    f.watch(["system", "sampling", "schema", "think", "overflow"], () => this.drawer.marks());
    f.watch(["notice"], () => this.showNotice());
    f.watch(["height"], () => {
      this.log.style.maxHeight = `${this.model.get("height")}px`;
    });
    this.state();
  }

  /** A piece of an answer. `at` is the number of characters before it: after a gap, the text is requested again. */
  private delta({ id, at, text, thought, tokens }: Message) {
    const now = this.live.get(id) ?? { text: "", thought: "", tokens: 0 };
    const before = thought === undefined ? now.text : (now.thought ?? "");
    if (at > before.length) {
      this.f.send("resync");
      return;
    }
    const grown = before.slice(0, at) + (thought ?? text);
    this.live.set(id, thought === undefined ? { ...now, text: grown, tokens } : { ...now, thought: grown, tokens });
    this.draw();
  }

  /** The calls of the running answer; the text so far was the model writing them. */
  private stepped({ id, steps }: Message) {
    const now = this.live.get(id) ?? { text: "", tokens: 0 };
    const grown = steps.length > (now.steps?.length ?? 0);
    this.live.set(id, { ...now, steps, text: grown ? "" : now.text });
    const asked = (steps as Live["steps"])?.find((step) => step.state === "waiting");
    if (asked && asked.id !== this.asked) {
      this.asked = asked.id;
      this.announcer.textContent = `${callText(asked)} waits for your approval`;
    }
    this.draw();
  }

  /** What has become of the chat's model. */
  private showNotice() {
    const { text, switch: other, load, stay } = this.model.get("notice") ?? {};
    const { f } = this;
    this.notice.hidden = !text;
    if (!text) return;
    const buttons = [
      other &&
        button(`Switch to ${other}`, {
          text: `Switch to ${other}`,
          cls: "ll-primary ll-change",
          onclick: () => f.send("switch", { model: other }),
        }),
      load &&
        button(`Load ${load}`, {
          text: `Load ${load}`,
          cls: "ll-change",
          onclick: () => f.send("load", { spec: load }),
        }),
      stay && button("Stay with this model", { iconName: "close", cls: "ll-change", onclick: () => f.send("stay") }),
    ];
    this.notice.replaceChildren(icon("warn"), el("span", {}, text), el("span", { class: "ll-row ll-fit" }, buttons));
  }

  private state() {
    this.composer.state();
    this.quantPick.disabled = this.quantPick.options.length < 2 || this.busy;
  }

  render(): void {
    const turns = this.model.get("turns");
    const byId = new Map(turns.map((turn) => [turn.id, turn]));
    const running = this.model.get("running");
    const path = this.path();
    const stick = this.pin || this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    const grew = this.pin || running || path.length !== this.shown;
    this.pin = false;
    this.shown = path.length;
    const nodes: HTMLElement[] = path.map((turn) => {
      let view = this.views.get(turn.id);
      if (!view) {
        view = new TurnView(this, turn);
        this.views.set(turn.id, view);
      }
      const siblings = turns.filter((one) => one.parent === turn.parent);
      const live = turn.id === running;
      view.update(
        live ? { ...turn, busy: true } : { ...turn, busy: Boolean(running) },
        siblings,
        live,
        this.live.get(turn.id),
      );
      return view.el;
    });
    if (!nodes.length) nodes.push(this.emptyState());
    const old = [...this.log.children];
    if (old.length !== nodes.length || old.some((node, i) => node !== nodes[i])) {
      const active = document.activeElement as HTMLElement | null;
      const inside = active !== null && active !== this.log && this.log.contains(active);
      this.log.replaceChildren(...nodes);
      // The focus stays in the conversation: where it was, or else on the last turn, which is the new answer.
      if (inside) (active.isConnected ? active : nodes[nodes.length - 1]).focus({ preventScroll: true });
    }
    for (const id of this.views.keys()) if (!byId.has(id)) this.views.delete(id);
    if (stick && grew) this.log.scrollTop = this.log.scrollHeight;
    if (this.wasRunning && this.wasRunning !== running) {
      const done = byId.get(this.wasRunning);
      this.live.delete(this.wasRunning);
      if (done) this.announcer.textContent = `${done.facts.model ?? "The model"} answered: ${done.text.slice(0, 400)}`;
    }
    this.wasRunning = running;
  }

  private emptyState() {
    const picked = this.picked();
    const earlier = (this.model.get("earlier") ?? []).filter((one) => one.id !== this.model.get("conversation"));
    const key = JSON.stringify([picked?.name, picked?.quant, picked?.chat, earlier, this.f.connected()]);
    if (this.empty.dataset.key !== key) {
      this.empty.dataset.key = key;
      this.empty.replaceChildren(
        ...(picked
          ? [
              el("b", {}, `Ask ${picked.name} something`),
              el("span", {}, `${picked.engine} · ${picked.quant} · context of ${num(picked.context)} tokens`),
              el(
                "span",
                { class: "ll-quiet" },
                picked.chat
                  ? "Each answer shows its speed. Any turn can be edited, regenerated and rated; versions are kept."
                  : "This is a base model without a chat template: it completes text, but can't chat.",
              ),
            ]
          : [
              el("b", {}, "No model is loaded yet"),
              el(
                "span",
                { class: "ll-quiet" },
                "Load one to chat with it. nano is small, included in llmlab, and fast.",
              ),
              loader(this.f, this.model),
            ]),
      );
      if (earlier.length && this.f.connected()) {
        this.empty.append(
          el(
            "div",
            { class: "ll-earlier", role: "group", "aria-label": "Earlier conversations" },
            el("span", { class: "ll-quiet" }, "Or continue an earlier conversation:"),
            ...earlier.map(({ id, title, at }) =>
              button(`Continue: ${title}`, {
                text: `${title || "(no text)"} · ${when(at)}`,
                title: `%llm chat --resume ${id}`,
                onclick: () => this.f.send("resume", { conversation: id }),
              }),
            ),
          ),
        );
      }
    }
    return this.empty;
  }
}

export default {
  render(context: Context<ChatState>) {
    const chat = new ChatView(context);
    return () => chat.f.dispose();
  },
};
