import type { AnyModel } from "@anywidget/types";
import { button, el, icon, num, onceAFrame, options, setText, when } from "./dom";
import { Drawer } from "./drawer";
import { type Context, type Frame, frame, loader } from "./frame";
import { shortcuts } from "./keys";
import type { Attachment, ChatState, Live, LoadedModel, Message, Turn } from "./state";
import { type Chat, isEnter, picture, TurnView } from "./turn";

// The chat. The kernel holds the conversation; this draws it and sends the user's actions.

const MAX_FILE = 2_000_000;
const TEXT_FILES =
  "text/*,.md,.py,.json,.jsonl,.csv,.tsv,.yaml,.yml,.toml,.ipynb,.js,.ts,.c,.cpp,.h,.rs,.go,.java,.sh,.sql,.xml,.html,.css,.log";
const IMAGE_FILES = "image/png,image/jpeg,image/webp,image/gif";

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
  private ticket = "";
  private editTicket = "";
  private attached: Attachment[] = [];
  private noImages = "";
  private wasRunning = "";
  private counting: ReturnType<typeof setTimeout> | undefined;
  private pin = false;
  private shown = 0;
  // Created by bar() and composer().
  private drawer!: Drawer;
  private modelPick!: HTMLSelectElement;
  private quantPick!: HTMLSelectElement;
  private adapterPick!: HTMLSelectElement;
  private area!: HTMLTextAreaElement;
  private go!: HTMLButtonElement;
  private clip!: HTMLButtonElement;
  private picker!: HTMLInputElement;
  private chips!: HTMLElement;
  private meter!: HTMLElement;
  private meterBar!: HTMLElement;
  private meterText!: HTMLElement;

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
    this.f.root.append(this.bar(), this.drawer.el, this.log, this.composer(), this.announcer);
    this.bind();
  }

  get busy(): boolean {
    return Boolean(this.model.get("running"));
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
        this.area.focus();
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

  private picked(): LoadedModel | undefined {
    const models = this.model.get("lab_state").models ?? [];
    const name = this.model.get("model");
    return name ? models.find((m) => m.name === name) : models.find((m) => m.current);
  }

  private pickers() {
    const { models = [], work } = this.model.get("lab_state") ?? {};
    const name = this.model.get("model");
    const current = models.find((m) => m.current);
    const items: [string, string][] = [
      ["", current ? `${current.name} (current)` : "no model loaded"],
      ...models.map((m): [string, string] => [m.name, m.name]),
    ];
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

  // -- the composer ----------------------------------------------------------------------------------------------------

  private composer() {
    this.area = el("textarea", { class: "ll-input ll-ask", rows: 1, dir: "auto", "aria-label": "Message" });
    this.go = button("Send", {
      iconName: "send",
      cls: "ll-primary ll-go",
      onclick: () => (this.busy ? this.f.send("stop") : this.submit()),
    });
    this.picker = el("input", { type: "file", multiple: true, hidden: true, accept: TEXT_FILES });
    this.picker.addEventListener("change", () => this.attach([...(this.picker.files ?? [])]));
    this.clip = button("Attach text files", { iconName: "clip", onclick: () => this.picker.click() });
    this.chips = el("div", { class: "ll-files" });
    this.meterText = el("span", {});
    this.meterBar = el("span", { class: "ll-meter-fill" });
    this.meter = el(
      "div",
      { class: "ll-meter", title: "Tokens of the conversation, and the model's context length" },
      el("span", { class: "ll-meter-bar" }, this.meterBar),
      this.meterText,
    );
    this.area.addEventListener("input", () => {
      this.size();
      this.countSoon();
    });
    this.area.addEventListener("keydown", (event) => {
      if (isEnter(event)) {
        event.preventDefault();
        if (!this.busy) this.submit();
      } else if (event.key === "Escape" && this.busy) this.f.send("stop");
      else if (event.key === "ArrowUp" && !this.area.value && !this.busy) this.editLast(event);
    });
    this.log.addEventListener("keydown", (event) => {
      if (event.key === "?" && !/^(TEXTAREA|INPUT)$/.test((event.target as HTMLElement).tagName)) keys.toggle();
    });
    const keys = shortcuts();
    const box = el(
      "div",
      { class: "ll-composer" },
      this.chips,
      el("div", { class: "ll-ask-row" }, this.clip, this.picker, this.area, this.go),
      el(
        "div",
        { class: "ll-row ll-below" },
        this.meter,
        el("span", { class: "ll-space" }),
        el("span", { class: "ll-quiet" }, "Enter sends · Shift+Enter: new line"),
        keys.opener,
      ),
      keys.list,
    );
    this.area.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length) return;
      event.preventDefault();
      this.attach(files);
    });
    box.addEventListener("dragover", (event) => event.preventDefault());
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.attach([...(event.dataTransfer?.files ?? [])]);
    });
    return box;
  }

  private size() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight + 2, 220)}px`;
  }

  private countSoon() {
    clearTimeout(this.counting);
    this.counting = setTimeout(() => {
      if (this.f.connected()) this.f.send("count", { text: this.area.value, files: this.attached });
    }, 350);
  }

  private async attach(files: File[]) {
    for (const file of files) {
      if (file.type.startsWith("image/") && this.picked()?.no_images === "" && file.size <= MAX_FILE) {
        this.attached.push({ name: file.name, image: await dataUrl(file) });
        continue;
      }
      const bytes = file.size <= MAX_FILE ? await file.arrayBuffer() : null;
      let text: string | null = null;
      try {
        text = bytes && new TextDecoder("utf-8", { fatal: true }).decode(bytes);
      } catch {
        text = null;
      }
      const image = text === null && file.type.startsWith("image/");
      if (image) this.noImages = this.picked()?.no_images || "Load a model first.";
      this.attached.push(
        text === null
          ? { name: file.name, text: null, why: image ? "an image" : bytes ? "not text" : "larger than 2 MB" }
          : { name: file.name, text },
      );
    }
    this.picker.value = "";
    this.showChips();
    this.noImages = "";
    this.attached = this.attached.filter((file) => file.text !== null);
    this.countSoon();
  }

  private showChips() {
    this.chips.replaceChildren(
      ...this.attached.map((file) =>
        el(
          "span",
          { class: `ll-tag ${file.text === null ? "ll-bad" : ""}` },
          picture(file) ?? icon("clip"),
          file.name,
          file.why ? ` (${file.why})` : "",
          button(`Remove ${file.name}`, {
            iconName: "close",
            onclick: () => {
              this.attached = this.attached.filter((one) => one !== file);
              this.showChips();
              this.countSoon();
            },
          }),
        ),
      ),
      ...(this.noImages ? [el("span", { class: "ll-quiet", role: "status" }, this.noImages)] : []),
    );
  }

  private submit() {
    const text = this.area.value;
    if ((!text.trim() && !this.attached.length) || this.ticket || !this.f.connected()) return;
    this.ticket = `t${Math.random().toString(36).slice(2)}`;
    this.f.send("send", { text, files: this.attached, ticket: this.ticket });
  }

  edit(id: string): void {
    const was = this.editing;
    this.editing = id;
    this.render();
    if (!id) (this.views.get(was)?.el ?? this.area).focus();
  }

  /** Edit the last message, as ArrowUp in an empty message does. */
  private editLast(event: Event) {
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
    if (ticket && ticket === this.ticket) {
      this.ticket = "";
      this.area.value = "";
      this.attached = [];
      this.showChips();
      this.size();
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
    f.onConnect((on) => {
      if (!on) this.ticket = ""; // a message that the lost kernel didn't receive can be sent again
      this.state();
      this.render();
    });
    model.on("msg:custom", (m) => {
      if (m?.do !== "hello") return;
      for (const [id, live] of Object.entries(m.live ?? {})) this.live.set(id, live as Live);
      this.draw();
    });
    model.on("change:problem", () => {
      this.ticket = "";
    });
    f.watch(["turns", "leaf", "running"], () => {
      this.render();
      this.state();
    });
    f.watch(["earlier"], () => this.render());
    f.watch(["lab_state", "model", "adapter"], () => {
      this.pickers();
      this.render();
      this.state();
    });
    f.watch(["system", "sampling", "schema", "think"], () => this.drawer.marks());
    f.watch(["meter"], () => this.showMeter());
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

  private state() {
    const on = this.f.connected();
    const { busy } = this;
    this.area.disabled = !on;
    this.go.disabled = !on;
    this.go.replaceChildren(icon(busy ? "stop" : "send"));
    const label = busy ? "Stop" : "Send";
    this.go.setAttribute("aria-label", label);
    this.go.title = label;
    this.go.classList.toggle("ll-stop", busy);
    const name = this.picked()?.name;
    const sees = this.picked()?.no_images === "";
    const attach = sees ? "Attach text files or images" : "Attach text files";
    this.clip.setAttribute("aria-label", attach);
    this.clip.title = `${attach}: the model reads them with the message`;
    this.picker.accept = sees ? `${TEXT_FILES},${IMAGE_FILES}` : TEXT_FILES;
    this.area.placeholder = !on
      ? "Run this cell to continue the conversation"
      : name
        ? `Ask ${name} …`
        : "Load a model first";
    this.quantPick.disabled = this.quantPick.options.length < 2 || busy;
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

  private showMeter() {
    const { used = 0, draft = 0, context } = this.model.get("meter") ?? {};
    this.meter.hidden = context === undefined;
    if (context === undefined) return;
    const all = used + draft;
    this.meterBar.style.width = `${Math.min(100, (100 * all) / context)}%`;
    this.meter.classList.toggle("ll-full", all > context * 0.9);
    this.meterText.textContent = `${num(all)} of ${num(context)} tokens${draft ? ` (${num(draft)} in the draft)` : ""}`;
  }
}

/** A file as a data: URL. */
function dataUrl(file: File): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

export default {
  render(context: Context<ChatState>) {
    const chat = new ChatView(context);
    return () => chat.f.dispose();
  },
};
