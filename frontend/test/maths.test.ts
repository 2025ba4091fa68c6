import "./dom";
import assert from "node:assert/strict";
import { test } from "node:test";
import cases from "../../tests/maths_cases.json";
import { render } from "../src/markdown";
import { formula } from "../src/maths";

function shown(text: string): HTMLElement {
  const box = document.createElement("div");
  box.append(...render(text));
  return box;
}

for (const { text, maths } of cases) {
  test(`maths: ${JSON.stringify(text)}`, () => {
    const found = [...shown(text).querySelectorAll(".ll-math")];
    const tex = (node: Element) => (node.querySelector("annotation") ?? node).textContent;
    assert.deepEqual(
      found.map((node) => [tex(node), node.classList.contains("ll-display")]),
      maths,
    );
  });
}

test("a formula is MathML, and a price is text", () => {
  const box = shown("$x^2$ for $5 or $10");
  assert.equal(box.querySelectorAll("msup").length, 1);
  assert.match(box.textContent ?? "", / for \$5 or \$10$/);
});

test("TeX loads nothing and runs nothing", () => {
  for (const tex of [
    "\\href{javascript:alert(1)}{x}",
    "\\url{https://e.org}",
    "\\includegraphics{https://e.org/x.png}",
    "\\htmlClass{a}{x}",
    "\\htmlStyle{background:url(https://e.org)}{x}",
    "\\htmlData{a=b}{x}",
  ]) {
    const box = formula(tex, false);
    assert.equal(box.querySelectorAll("a, img, [href], [src], [data-a]").length, 0, tex);
    assert.ok(
      !/url\(/.test(box.querySelector("math")?.outerHTML.replace(/<annotation.*<\/annotation>/s, "") ?? ""),
      tex,
    );
  }
});

test("TeX that can't be read shows its source", () => {
  assert.equal(formula("\\frac{", false).querySelector("code")?.textContent, "\\frac{");
  const loop = "\\def\\a{\\a\\a}\\a";
  assert.equal(formula(loop, false).querySelector("code")?.textContent, loop);
});

test("adversarial texts don't hang the parser", () => {
  for (const text of ["${", "\\({}", "\\[{", "$$a", "$a", "\\(", "$$\n", "\\[\n", "{$}"]) {
    const began = performance.now();
    shown(text.repeat(60_000 / text.length));
    assert.ok(performance.now() - began < 5000, `${text}: ${performance.now() - began} ms`);
  }
});
