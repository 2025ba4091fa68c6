import { parseHTML } from "linkedom";

// A document for the tests. Import it before the tested modules.

export const { document } = parseHTML("<!DOCTYPE html><html><head></head><body></body></html>");
Object.assign(document, { compatMode: "CSS1Compat" }); // required by KaTeX, missing in linkedom
Object.assign(globalThis, { document });
