// Builds elements. Text is inserted as text nodes only; no file here parses HTML.

export type Child = Node | string | number | null | undefined | false | "" | Child[];
// biome-ignore lint/suspicious/noExplicitAny: attributes, DOM properties and listeners, which el() distinguishes
export type Props = Record<string, any>;

/** An element: el("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child, ...). */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props?: Props | null,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on") && typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (PROPERTIES.has(key)) Object.assign(node, { [key]: value });
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "textContent", "readOnly"]);

function add(node: Node, children: Child[]): void {
  for (const child of children) {
    if (Array.isArray(child)) add(node, child);
    else if (child !== null && child !== undefined && child !== false)
      node.appendChild(typeof child === "object" ? child : document.createTextNode(String(child)));
  }
}

// 16 by 16 line drawings, as path data.
const ICONS = {
  send: "M8 13V3M4 7l4-4 4 4",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M6 6h7v7H6zM3 10V3h7",
  check: "M3 8.5l3.5 3.5L13 5",
  edit: "M3 13l.7-3L11 2.7l2.3 2.3L6 12.3zM9.5 4.2l2.3 2.3",
  again: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  up: "M5 7.5l3-5.5c1.2 0 1.8.8 1.5 2L9 6.5h3.5c.8 0 1.2.7 1 1.4l-1.2 4.6c-.1.6-.6 1-1.2 1H5zM2.5 7.5H5v6H2.5z",
  down: "M11 8.5l-3 5.5c-1.2 0-1.8-.8-1.5-2L7 9.5H3.5c-.8 0-1.2-.7-1-1.4l1.2-4.6c.1-.6.6-1 1.2-1H11zM13.5 8.5H11v-6h2.5z",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5M7 7v4M9 7v4",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  clip: "M12.5 7.5l-4.7 4.7a2.8 2.8 0 0 1-4-4L8.5 3.5a1.9 1.9 0 0 1 2.7 2.7L6.7 10.7a1 1 0 0 1-1.4-1.4L9.5 5",
  close: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  warn: "M8 2.5l6 10.5H2zM8 6.5v3M8 11.2v.3",
  export: "M8 10V2.5M5 5l3-3 3 3M3 9v4h10V9",
  tune: "M3 5h5M11 5h2M3 11h2M8 11h5M9.5 3.5v3M6.5 9.5v3",
  braces:
    "M6 2.5c-2 0-2 1-2 2.5S3.5 8 2.5 8c1 0 1.5 1.5 1.5 3s0 2.5 2 2.5M10 2.5c2 0 2 1 2 2.5s.5 3 1.5 3c-1 0-1.5 1.5-1.5 3s0 2.5-2 2.5",
  note: "M3 3h10v8l-2.5 2.5H3zM5.5 6.5h5M5.5 9h3",
  tool: "M10.5 2.5a3.5 3.5 0 0 0-3.3 4.7L2.8 11.6a1.1 1.1 0 0 0 1.6 1.6l4.4-4.4a3.5 3.5 0 0 0 4.5-4.4L11 6.7 9.3 5l2.3-2.3a3.5 3.5 0 0 0-1.1-.2z",
  search: "M7 2.5a4.3 4.3 0 1 1 0 8.6 4.3 4.3 0 0 1 0-8.6zM10.2 10.2l3.3 3.3",
  template: "M3 3.5h10M3 6.5h10M3 9.5h5M10 11.5h4M12 9.5v4",
  undo: "M5.5 3L2.5 6l3 3M2.5 6H10a3.5 3.5 0 0 1 0 7H6",
  eye: "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6z",
};

/** An icon, hidden from screen readers: the button around it has the label. */
export function icon(name: keyof typeof ICONS): SVGElement {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "ll-icon");
  const path = document.createElementNS(ns, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

interface ButtonProps extends Props {
  iconName?: keyof typeof ICONS;
  text?: string;
  onclick?: () => void;
  cls?: string;
  title?: string;
}

/** A button: with an icon and a label for screen readers and as a tooltip; or with text that shows. */
export function button(
  label: string,
  { iconName, text, onclick, cls = "", title, ...more }: ButtonProps = {},
): HTMLButtonElement {
  return el(
    "button",
    { type: "button", class: `ll-button ${cls}`, "aria-label": label, title: title ?? label, onclick, ...more },
    iconName && icon(iconName),
    text && el("span", {}, text),
  );
}

/** Change the text of a button that shows one. */
export function setText(node: HTMLElement, text: string): void {
  if (node.lastChild) node.lastChild.textContent = text;
}

/** Set a select's options to `items`, unless they are the same already. */
export function options(select: HTMLSelectElement, items: [value: string, text: string][], value: string): void {
  const want = JSON.stringify(items);
  if (select.dataset.items !== want) {
    select.dataset.items = want;
    select.replaceChildren(...items.map(([v, text]) => el("option", { value: v }, text)));
  }
  if (select.value !== value) select.value = value;
}

/** Copy text; resolves to whether it succeeded. */
async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { value: text, style: "position:fixed;opacity:0" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A button that copies the result of `text()`, and briefly shows that it did. */
export function copyButton(label: string, text: () => string, props: ButtonProps = {}): HTMLButtonElement {
  const node = button(label, { iconName: "copy", ...props });
  node.addEventListener("click", async () => {
    const worked = await copyText(text());
    node.replaceChildren(icon(worked ? "check" : "close"));
    node.title = worked ? "Copied" : "The browser refused to copy";
    setTimeout(() => {
      node.replaceChildren(icon("copy"));
      node.title = label;
    }, 1200);
  });
  return node;
}

/** A formatted number: 1,234 or 12.3. */
export function num(value: number, digits = 0): string {
  return Number(value).toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** A speed with three significant digits: "0.6 tokens/s", "12.3 tokens/s", "1,234 tokens/s". */
export function speed(tokensPerS: number): string {
  const value = tokensPerS < 100 ? Number(tokensPerS.toPrecision(tokensPerS < 1 ? 2 : 3)) : tokensPerS;
  return `${value.toLocaleString("en-US", { maximumFractionDigits: value < 100 ? 4 : 0 })} tokens/s`;
}

/** A number of tokens: "1 token", "1,234 tokens". */
export function tokens(count: number): string {
  return `${num(count)} ${count === 1 ? "token" : "tokens"}`;
}

/** Seconds as "12 ms" or "3.4 s". */
export function seconds(value: number): string {
  return value < 0.1 ? `${num(value * 1000, value < 0.01 ? 1 : 0)} ms` : `${num(value, value < 10 ? 2 : 0)} s`;
}

// Drawing may take a quarter of the time, so that the page stays responsive while a long text grows.
const REST = 3;

/** Call `f` at most once per frame; by a timer if there are no frames (a background tab). */
export function onceAFrame(f: () => void): () => void {
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let restUntil = 0;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = 0;
    timer = undefined;
    const began = performance.now();
    f();
    const took = performance.now() - began;
    restUntil = began + took + (took > 8 ? REST * took : 0);
  };
  return () => {
    if (timer !== undefined) return;
    const rest = restUntil - performance.now();
    if (rest > 0) {
      timer = setTimeout(run, rest);
      return;
    }
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, 250);
  };
}

/** Finish reasons in words. */
export const FINISHED: Record<string, string> = {
  stop: "",
  length: "stopped at max tokens",
  interrupted: "stopped by you",
  tool_calls: "tool calls",
  error: "failed",
};

/** A short time: "14:05" today, "24 Nov" before. */
export function when(iso: string): string {
  const then = new Date(iso);
  const today = then.toDateString() === new Date().toDateString();
  return today
    ? then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : then.toLocaleDateString([], { day: "numeric", month: "short" });
}
