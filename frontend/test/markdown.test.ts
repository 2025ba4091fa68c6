import assert from "node:assert/strict";
import { test } from "node:test";
import { MarkdownView, render } from "../src/markdown";
import { document } from "./dom";

function shown(text: string): HTMLElement {
  const box = document.createElement("div");
  box.append(...(render(text) as never[]));
  return box as unknown as HTMLElement;
}

const ATTACKS = [
  "<script>hacked()</script>",
  '<img src=x onerror="hacked()">',
  "<svg onload=hacked()>",
  "[a](javascript:hacked())",
  "[a](JaVaScRiPt:hacked())",
  "[a](java&#x73;cript:hacked())",
  "[a](&#1;javascript:hacked())",
  "[a]( javascript:hacked() )",
  "[a](vbscript:x) [b](data:text/html,<script>1</script>) [c](file:///etc/passwd) [d](blob:x)",
  "[a][1]\n\n[1]: javascript:hacked()",
  "<javascript:hacked()>",
  "![a](javascript:hacked()) ![b](https://e.org/x.png)",
  "`</code><script>hacked()</script>`",
  '```"><script>hacked()</script>\n</code></pre><script>hacked()</script>\n```',
  "```html\n<img src=x onerror=hacked()>\n```",
  "| <img src=x onerror=hacked()> |\n|---|\n| [t](javascript:x) |",
  '# <b onclick=hacked()>\n\n> <iframe srcdoc="x">',
  "$\\href{javascript:hacked()}{x}$ $\\text{<img src=x onerror=hacked()>}$",
];

for (const attack of ATTACKS) {
  test(`does nothing: ${attack}`, () => {
    for (const node of shown(attack).querySelectorAll("*")) {
      assert.ok(!/^(script|img|iframe|object|embed|style|form|base|meta|link)$/.test(node.localName), node.localName);
      for (const { name, value } of node.attributes) {
        assert.ok(!name.startsWith("on"), name);
        if (name === "href") assert.match(value, /^(https?|mailto):/);
        assert.ok(name !== "src" && name !== "srcdoc");
      }
    }
  });
}

test("refused links are shown as text", () => {
  assert.equal(shown("[a](javascript:x) and [b](/x)").textContent, "a and b");
  assert.equal(shown("![a](https://e.org/x.png)").querySelector("a")?.textContent, "image: a");
});

test("code is highlighted", () => {
  const box = shown("```python\nif x: return 'a'\n```");
  assert.equal(box.querySelector(".ll-hl-keyword")?.textContent, "if");
  assert.equal(box.querySelector(".ll-hl-string")?.textContent, "'a'");
  assert.equal(box.querySelector("code")?.textContent, "if x: return 'a'");
});

test("tasks are boxes that can't be clicked", () => {
  const boxes = [...shown("- [ ] a\n- [x] b").querySelectorAll("input")];
  assert.deepEqual(
    boxes.map((box) => [box.type, Boolean(box.checked), box.disabled]),
    [
      ["checkbox", false, true],
      ["checkbox", true, true],
    ],
  );
});

test("text has its own direction, code doesn't", () => {
  const box = shown("سلام\n\n- سلام\n\n  سلام\n\n`x`\n\n```\nx\n```");
  assert.deepEqual(
    [...box.querySelectorAll("[dir]")].map((node) => `${node.localName} ${node.getAttribute("dir")}`),
    ["p auto", "li auto", "p auto", "div ltr"],
  );
});

const TEXT = `# Title

One *two* **three** [four][1].

- a
- b

  c

| a | b |
|---|---|
| $x$ | y |

\`\`\`python
def f():
    return 1
\`\`\`

\\[ x \\]

[1]: https://example.org
`;

test("a growing text ends with the same nodes as a complete one, and keeps unchanged elements", () => {
  const view = new MarkdownView();
  let title: Node | null = null;
  for (let end = 1; end <= TEXT.length; end++) {
    view.update(TEXT.slice(0, end));
    if (end === 12) title = view.el.firstChild;
  }
  const whole = new MarkdownView();
  whole.update(TEXT);
  assert.equal(view.el.innerHTML, whole.el.innerHTML);
  assert.ok(view.el.firstChild === title);
});

test("a growing code block keeps its elements", () => {
  const view = new MarkdownView();
  view.update("a\n\n```python\nx = ");
  const pre = view.el.querySelector("pre");
  view.update("a\n\n```python\nx = 1\ny = 2\n```\n\nb");
  assert.ok(view.el.querySelector("pre") === pre);
  assert.equal(view.el.querySelector("code")?.textContent, "x = 1\ny = 2");
  view.update("c");
  assert.equal(view.el.textContent, "c");
});
