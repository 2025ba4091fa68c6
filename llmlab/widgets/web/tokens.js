import { el, num } from "./dom.js";

// Tokens shaded by how sure the model was: [text, probability, [[text, probability], ...]].

/** A token's text with its blanks visible. */
export function visible(text) {
  if (text === "") return "∅";
  return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}

/** Shade: none at probability 1, strongest at 0. Never by colour alone: the number shows on hover and focus. */
export function shade(node, probability) {
  node.style.setProperty("--ll-doubt", String(Math.round((1 - probability) * 100) / 100));
}

/** One token as a span; line breaks break. */
export function tokenSpan([text, probability], props = {}) {
  const node = el("span", { class: "ll-token", title: `${visible(text)}  ${percent(probability)}`, ...props });
  if (/^\s*\n\s*$/.test(text)) node.append(el("span", { class: "ll-break" }, "⏎"), text);
  else node.append(text === "" ? "∅" : text);
  shade(node, probability);
  return node;
}

export function percent(probability) {
  const value = probability * 100;
  if (value < 0.001) return "< 0.001 %"; // no token's probability is 0
  return `${num(value, value >= 0.1 ? 1 : 3)} %`;
}
