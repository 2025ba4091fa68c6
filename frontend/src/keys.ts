import { button, el } from "./dom";

// The keyboard in a conversation: one tab stop per turn, arrow keys inside, and the list of shortcuts.

const STOPS = "a[href], button, summary, pre[tabindex], .ll-table";

/** The controls of a turn that can take the focus, in order. */
function stops(turn: HTMLElement): HTMLElement[] {
  return [...turn.querySelectorAll<HTMLElement>(STOPS)].filter(
    (node) => !(node as HTMLButtonElement).disabled && node.getClientRects().length > 0,
  );
}

/** Make a turn one tab stop: its controls are reached by arrow keys. An open editor keeps the usual order, and code or a
    table that scrolls sideways is a stop of its own, so that the arrow keys can scroll it. */
export function oneStop(turn: HTMLElement): void {
  turn.tabIndex = 0;
  for (const node of turn.querySelectorAll<HTMLElement>(STOPS)) {
    const scrolls = node.matches("pre, .ll-table") && node.scrollWidth > node.clientWidth + 1;
    node.tabIndex = scrolls || node.closest(".ll-editor, .ll-approval") ? 0 : -1;
  }
}

/** Handle the arrow keys in a turn: left and right inside it, up and down between turns. */
export function arrows(event: KeyboardEvent, turn: HTMLElement): void {
  const target = event.target as HTMLElement;
  if (/^(TEXTAREA|INPUT|SELECT)$/.test(target.tagName) || event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.tabIndex === 0 && target.matches("pre, .ll-table")) return;
  const inside = stops(turn);
  const at = inside.indexOf(target);
  let next: Element | null | undefined;
  if (event.key === "ArrowRight") next = inside[Math.min(at + 1, inside.length - 1)];
  else if (event.key === "ArrowLeft") next = at > 0 ? inside[at - 1] : turn;
  else if (event.key === "ArrowDown") next = turn.nextElementSibling;
  else if (event.key === "ArrowUp") next = turn.previousElementSibling;
  else if (event.key === "Escape" && target !== turn) next = turn;
  else return;
  event.preventDefault();
  (next as HTMLElement | null)?.focus();
}

const SHORTCUTS: [keys: string, does: string][] = [
  ["Enter", "send; Shift+Enter: a new line"],
  ["Escape", "stop the answer; leave the editor or the settings"],
  ["↑", "in the empty message: edit your last message"],
  ["↑ ↓", "in the conversation: the turn above or below"],
  ["Tab", "from turn to turn, and to Approve and Deny of a call"],
  ["→ ←", "in a turn: its buttons and links"],
  ["?", "in the conversation: this list"],
];

/** The list of shortcuts, and the button that shows it. */
export function shortcuts(): { list: HTMLElement; opener: HTMLButtonElement; toggle(): void } {
  const list = el(
    "dl",
    { class: "ll-keys", hidden: true, "aria-label": "Keyboard shortcuts" },
    SHORTCUTS.map(([keys, does]) => el("div", {}, el("dt", {}, el("kbd", {}, keys)), el("dd", {}, does))),
  );
  const toggle = () => {
    list.hidden = !list.hidden;
    opener.setAttribute("aria-expanded", String(!list.hidden));
  };
  const opener = button("Keyboard shortcuts", { text: "?", cls: "ll-help", "aria-expanded": "false", onclick: toggle });
  return { list, opener, toggle };
}

/** Which control of an element has the focus, to give it back when the element is drawn anew: its label. */
export function focused(inside: HTMLElement): string | null {
  const active = document.activeElement;
  return active && active !== inside && inside.contains(active) ? (active.getAttribute("aria-label") ?? "") : null;
}

/** Return the focus to the control with a label, or to the element if there is none now. */
export function refocus(inside: HTMLElement, label: string): void {
  const same = stops(inside).find((node) => label && node.getAttribute("aria-label") === label);
  (same ?? inside).focus({ preventScroll: true });
}
