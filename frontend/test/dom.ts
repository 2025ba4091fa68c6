import { parseHTML } from "linkedom";

// A document for the tests. Import it before what is tested.

export const { document } = parseHTML("<!DOCTYPE html><html><head></head><body></body></html>");
Object.assign(document, { compatMode: "CSS1Compat" }); // linkedom has none; KaTeX asks
Object.assign(globalThis, { document });
