import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import dockerfile from "highlight.js/lib/languages/dockerfile";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import julia from "highlight.js/lib/languages/julia";
import python from "highlight.js/lib/languages/python";
import r from "highlight.js/lib/languages/r";
import rust from "highlight.js/lib/languages/rust";
import shell from "highlight.js/lib/languages/shell";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";

// Syntax highlighting by highlight.js, without its HTML output.

const LANGUAGES = {
  ...{ bash, c, cpp, css, diff, dockerfile, go, ini, java, javascript, json, julia, python, r, rust, shell, sql },
  ...{ typescript, xml, yaml },
};
for (const [name, language] of Object.entries(LANGUAGES)) hljs.registerLanguage(name, language);

// Longer code isn't highlighted: it would take up to a second.
const LONGEST = 50_000;

/** A piece of code and its kind ("keyword", "string", …; "" for none). */
export type Run = [kind: string, text: string];

interface Scope {
  scope?: string;
  children: (Scope | string)[];
}

/** The code in pieces; one piece if the language is unknown. */
export function highlight(code: string, language: string): Run[] {
  if (!code) return [];
  if (code.length > LONGEST || !hljs.getLanguage(language)) return [["", code]];
  const result = hljs.highlight(code, { language, ignoreIllegals: true });
  const { rootNode } = (result as unknown as { _emitter: { rootNode: Scope } })._emitter;
  const runs: Run[] = [];
  const walk = (node: Scope, outer: string) => {
    const kind = node.scope?.split(".")[0] ?? outer;
    for (const child of node.children) {
      if (typeof child === "string") runs.push([kind, child]);
      else walk(child, kind);
    }
  };
  walk(rootNode, "");
  return runs;
}
