import type { AnyModel } from "@anywidget/types";
import { button, copyButton, el, icon, options } from "./dom";
import type { BaseState, Message } from "./state";

// The frame of every widget: the connection to the kernel, errors, progress, themes, and keyboard handling.

// The kernel acknowledges each action; after this long without an answer, the connection is checked.
const SILENT_MS = 2500;
// Time after which the widget reports that the kernel doesn't answer.
const HELLO_MS = 4000;

export interface Context<S extends BaseState> {
  model: AnyModel<S>;
  el: HTMLElement;
}

export interface Frame<S extends BaseState> {
  /** The widget's element, to append to. */
  root: HTMLElement;
  /** This view's unique id. */
  view: string;
  /** Send an action to the kernel. */
  send(action: string, fields?: object): void;
  /** Handle one kind of the kernel's messages. */
  on(action: string, handler: (message: Message) => void): void;
  /** Call `update` now, and whenever one of the traits changes. */
  watch(names: (keyof S & string)[], update: () => void): void;
  connected(): boolean;
  onConnect(handler: (connected: boolean) => void): void;
  dispose(): void;
}

/** Put a widget's frame into the page. */
export function frame<S extends BaseState>(context: Context<S>, name: string, label: string): Frame<S> {
  const { el: host } = context;
  const model = context.model as unknown as AnyModel<BaseState>;
  const view = Math.random().toString(36).slice(2);
  const root = el("div", { class: `llmlab-w ll-${name}`, role: "group", "aria-label": label });
  const notices = el("div", { class: "ll-notices" });
  const hider = el("style");
  root.append(hider, notices);
  host.append(root);
  host.classList.add("llmlab-host");

  let connected = false;
  const handlers = new Map<string, (message: Message) => void>();
  const connectHandlers: ((connected: boolean) => void)[] = [];

  let silent: ReturnType<typeof setTimeout> | undefined;
  const send = (action: string, fields: object = {}) => {
    if (action !== "hello" && action !== "look") {
      clearTimeout(silent);
      silent = setTimeout(() => hello(), SILENT_MS);
    }
    try {
      model.send({ do: action, ...fields });
    } catch (error) {
      lost();
      console.warn("llmlab: the kernel can't be reached", error);
    }
  };
  const on = (action: string, f: (message: Message) => void) => {
    handlers.set(action, f);
  };
  const watch = (names: string[], f: () => void) => {
    for (const one of names) model.on(`change:${one}`, f);
    f();
  };

  // -- the connection: a widget restored from a file, or left by a restarted kernel, gets no answer ------------
  const offline = el("div", { class: "ll-notice ll-offline", role: "status", hidden: true });
  const sayOffline = () => {
    const conversation = model.get("conversation");
    const turns = model.get("turns")?.length;
    const line = `%llm chat --resume ${conversation}`;
    offline.replaceChildren(
      icon("warn"),
      el(
        "span",
        {},
        el("b", {}, "Read-only: no kernel answers. "),
        "It was restarted or is busy. ",
        ...(conversation && turns
          ? [
              "To continue this conversation, run ",
              el("code", {}, line),
              copyButton("Copy the line", () => line),
              " in a cell.",
            ]
          : ["Run this cell again to reconnect; the content remains below."]),
      ),
      button("Try again", { text: "Try again", onclick: () => hello() }),
    );
  };
  notices.append(offline);
  let timer: ReturnType<typeof setTimeout> | undefined;
  function lost() {
    connected = false;
    sayOffline();
    offline.hidden = false;
    root.classList.add("ll-readonly");
    for (const f of connectHandlers) f(false);
  }
  function hello() {
    clearTimeout(timer);
    timer = setTimeout(lost, HELLO_MS);
    send("hello", { view });
  }
  on("hello", () => {
    clearTimeout(timer);
    connected = true;
    offline.hidden = true;
    root.classList.remove("ll-readonly");
    for (const f of connectHandlers) f(true);
  });
  model.on("msg:custom", (message) => {
    clearTimeout(silent);
    if (message && typeof message === "object") handlers.get(message.do)?.(message);
  });
  // A kernel restart closes the comms; the widget models stay on the page.
  model.on("comm_live_update", () => hello());

  // -- errors and running work -----------------------------------------------------------------------------------
  const problem = el("div", { class: "ll-notice ll-problem", role: "alert", hidden: true });
  const work = el("div", { class: "ll-notice ll-work", role: "status", hidden: true });
  notices.append(problem, work);
  watch(["problem"], () => {
    const { message, hint } = model.get("problem") ?? {};
    problem.hidden = !message;
    problem.replaceChildren(
      icon("warn"),
      el("span", {}, el("b", {}, message ?? ""), " ", hint ?? ""),
      button("Dismiss", { iconName: "close", onclick: () => send("dismiss") }),
    );
  });
  watch(["lab_state"], () => {
    const state = model.get("lab_state")?.work;
    work.hidden = !state;
    if (!state) return;
    const bar = el("progress", { "aria-label": state.what });
    if (state.fraction !== null && state.fraction !== undefined) bar.value = state.fraction;
    work.replaceChildren(el("span", {}, `${state.what}${state.phase ? `: ${state.phase}` : ""}`), bar);
  });
  watch(["static_class"], () => {
    // The static form below the widget is for files and pages without widgets: hide it while this widget is alive.
    const cls = (model.get("static_class") ?? "").replace(/[^a-z0-9-]/gi, "");
    hider.textContent = cls
      ? `.${cls},.jp-OutputArea-child:has(.${cls}),.cell-output:has(> * .${cls}){display:none!important}`
      : "";
  });

  // -- themes: the browser's native controls follow the host's background, not the system's -------------------------
  const theme = () => {
    root.dataset.host = hostName();
    root.dataset.page = hostIsDark(root) ? "dark" : "light";
    root.dataset.dark = String(darkness(root) ?? false);
  };
  requestAnimationFrame(theme);
  const watcher = new MutationObserver(() => setTimeout(theme, 50));
  watcher.observe(document.body, { attributes: true });
  watcher.observe(document.documentElement, { attributes: true });

  // -- keyboard events -----------------------------------------------------------------------------------------------
  // JupyterLab listens on the document in the capture phase and ignores elements with this attribute. Saving and the
  // palette still work from inside.
  const guard = (event: KeyboardEvent) => {
    if (!root.contains(event.target as Node)) return;
    const global = (event.ctrlKey || event.metaKey) && (event.shiftKey || ["s", "b"].includes(event.key.toLowerCase()));
    root.toggleAttribute("data-lm-suppress-shortcuts", !(global && event.key !== "Enter"));
  };
  window.addEventListener("keydown", guard, true);
  // A click on the cell next to the widget returns the keys to the notebook, which itself doesn't move the focus.
  const release = (event: MouseEvent) => {
    const { activeElement } = document;
    if (!root.contains(event.target as Node) && root.contains(activeElement)) (activeElement as HTMLElement).blur();
  };
  window.addEventListener("mousedown", release, true);
  for (const type of ["keydown", "keyup", "keypress", "paste", "copy", "cut"]) {
    root.addEventListener(type, (event) => event.stopPropagation());
  }

  hello();
  return {
    root,
    view,
    send,
    on,
    watch,
    connected: () => connected,
    onConnect: (f) => {
      connectHandlers.push(f);
    },
    dispose() {
      clearTimeout(timer);
      clearTimeout(silent);
      watcher.disconnect();
      window.removeEventListener("keydown", guard, true);
      window.removeEventListener("mousedown", release, true);
    },
  };
}

/** A form to load a model. With `full`, also with engine, quant and name. */
export function loader<S extends BaseState>(f: Frame<S>, model: AnyModel<S>, full = false): HTMLFormElement {
  const list = el("datalist", { id: `ll-${f.view}-${Math.random().toString(36).slice(2)}` });
  const input = el("input", {
    class: "ll-input",
    type: "text",
    placeholder: "nano, a path, or hf:org/repo",
    "aria-label": "Model to load",
    list: list.id,
    autocomplete: "off",
    spellcheck: "false",
  });
  const go = button("Load", { text: "Load", cls: "ll-primary ll-change", type: "submit" });
  const engine = el("select", { class: "ll-select", "aria-label": "Engine" });
  options(
    engine,
    [
      ["auto", "engine: auto"],
      ["llamacpp", "llamacpp"],
      ["vllm", "vllm"],
    ],
    "auto",
  );
  const quant = el("input", {
    class: "ll-input ll-short",
    placeholder: "quant: default",
    "aria-label": "Quant",
    title: "For example Q4_K_M (llamacpp) or awq (vllm)",
  });
  const name = el("input", {
    class: "ll-input ll-short",
    placeholder: "name: its own",
    "aria-label": "Name in this kernel",
    title: "With another name, the same model can be loaded twice, in two quants or engines",
  });
  const form = el(
    "form",
    { class: `ll-loader ${full ? "ll-full-loader" : ""}` },
    input,
    full && [engine, quant, name],
    list,
    go,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const spec = input.value.trim() || "nano";
    f.send("load", full ? { spec, engine: engine.value, quant: quant.value, name: name.value } : { spec });
    input.value = quant.value = name.value = "";
  });
  f.watch(["lab_state"], () => {
    const { offers = [], work } = model.get("lab_state") ?? {};
    list.replaceChildren(...offers.map((one) => el("option", { value: one })));
    go.disabled = Boolean(work);
  });
  return form;
}

/** Whether an element's own background is dark; undefined if it is transparent. */
function darkness(node: Element): boolean | undefined {
  const [red, green, blue, alpha = 1] =
    getComputedStyle(node)
      .backgroundColor.match(/[\d.]+/g)
      ?.map(Number) ?? [];
  return blue === undefined || alpha === 0 ? undefined : red * 0.3 + green * 0.59 + blue * 0.11 < 128;
}

/** VS Code and Colab, whose pages also have JupyterLab's variables: ipywidgets' own style sheet sets them, light. */
function hostName(): string {
  const page = document.documentElement;
  if (getComputedStyle(page).getPropertyValue("--vscode-editor-background")) return "vscode";
  return page.hasAttribute("theme") ? "colab" : "";
}

/** Whether the page is dark, where the host has no colour variables: Colab's attribute, or the background behind. */
function hostIsDark(root: Element): boolean {
  const named = document.documentElement.getAttribute("theme");
  if (named) return named === "dark";
  let node: Node | null = root.parentNode;
  while (node) {
    const found = node instanceof Element ? darkness(node) : undefined;
    if (found !== undefined) return found;
    node = node instanceof ShadowRoot ? node.host : node.parentNode;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
