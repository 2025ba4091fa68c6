import { el, num, type Props } from "./dom";

// Tokens shaded by probability: [text, probability, [[text, probability], ...]].

/** A token's text with visible white space. */
export function visible(text: string): string {
  if (text === "") return "∅";
  return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}

/** Shade: none at probability 1, strongest at 0. Not by colour alone: hover and focus show the number. */
function shade(node: HTMLElement, probability: number): void {
  node.style.setProperty("--ll-doubt", String(Math.round((1 - probability) * 100) / 100));
}

/** One token as a span; its line breaks break the line. */
export function tokenSpan(text: string, probability: number, props: Props = {}): HTMLSpanElement {
  const node = el("span", { class: "ll-token", title: `${visible(text)}  ${percent(probability)}`, ...props });
  if (/^\s*\n\s*$/.test(text)) node.append(el("span", { class: "ll-break" }, "⏎"), text);
  else node.append(text === "" ? "∅" : text);
  shade(node, probability);
  return node;
}

export function percent(probability: number): string {
  const value = probability * 100;
  if (value < 0.001) return "< 0.001 %"; // no token's probability is 0
  return `${num(value, value >= 0.1 ? 1 : 3)} %`;
}
