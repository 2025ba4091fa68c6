import assert from "node:assert/strict";
import { test } from "node:test";
import { speed, tokens } from "../src/dom";
import "./dom";

test("speeds have three significant digits", () => {
  const shown = [0.0412, 0.61, 1.234, 12.34, 99.96, 812.4, 5147.2].map(speed);
  assert.deepEqual(
    shown,
    ["0.041", "0.61", "1.23", "12.3", "100", "812", "5,147"].map((value) => `${value} tokens/s`),
  );
});

test("one token, many tokens", () => {
  assert.deepEqual([0, 1, 1234].map(tokens), ["0 tokens", "1 token", "1,234 tokens"]);
});
