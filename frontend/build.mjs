// Builds the widgets into llmlab/widgets/static, one JS and one CSS file each.
//   node build.mjs           build
//   node build.mjs --check   build elsewhere and compare with what is committed
//   node build.mjs --test    bundle the tests into build/
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "../llmlab/widgets/static");
const WIDGETS = ["arena", "chat", "grid", "inspector", "panel"];
// anywidget sends the file to the page with each widget, and a saved notebook may contain it.
const LARGEST = 700_000;

// highlight.js can also write HTML into a page. That part is unused and removed, so that no file here sets HTML.
const textOnly = {
  name: "text-only",
  setup(esbuild) {
    esbuild.onLoad({ filter: /highlight\.js\/lib\/core\.js$/ }, ({ path }) => {
      const source = readFileSync(path, "utf8");
      const contents = source.replace("element.innerHTML = result.value;", "");
      if (contents === source) throw new Error("highlight.js changed: look where it sets innerHTML now");
      return { contents: contents.replaceAll("element.innerHTML", "element"), loader: "js" };
    });
  },
};

const shared = {
  absWorkingDir: HERE,
  preserveSymlinks: true, // node_modules may be a link; the licences are found by the path of each package
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  logLevel: "warning",
  plugins: [textOnly],
};

async function widgets(outdir) {
  rmSync(outdir, { recursive: true, force: true });
  const entryPoints = WIDGETS.flatMap((name) => [`src/${name}.ts`, `src/${name}.css`]);
  const { metafile } = await build({
    ...shared,
    entryPoints,
    outdir,
    minify: true,
    legalComments: "none",
    metafile: true,
  });
  for (const file of readdirSync(outdir)) {
    const size = readFileSync(join(outdir, file)).length;
    if (size > LARGEST) throw new Error(`${file} has ${size} bytes; the limit is ${LARGEST}`);
  }
  writeFileSync(join(outdir, "LICENSES.txt"), licenses(Object.keys(metafile.inputs)));
}

/** The licences of the packages that the built files contain. */
function licenses(inputs) {
  const found = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean);
  const texts = [...new Set(found)].sort().map((name) => {
    const folder = join(HERE, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    if (!file) throw new Error(`${name} comes without its licence's text`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
  return `The JavaScript files in this folder contain these packages.\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

function differences(folder, other) {
  const read = (base, name) => {
    try {
      return readFileSync(join(base, name), "utf8");
    } catch {
      return null;
    }
  };
  const names = [...new Set([...readdirSync(folder), ...readdirSync(other)])];
  return names.filter((name) => read(folder, name) !== read(other, name));
}

if (process.argv.includes("--test")) {
  const out = join(HERE, "build");
  rmSync(out, { recursive: true, force: true });
  const tests = readdirSync(join(HERE, "test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: tests.map((name) => `test/${name}`),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    external: ["linkedom", "commonmark-spec"],
  });
} else if (process.argv.includes("--check")) {
  const fresh = mkdtempSync(join(tmpdir(), "llmlab-static-"));
  await widgets(fresh);
  mkdirSync(STATIC, { recursive: true });
  const stale = differences(fresh, STATIC);
  rmSync(fresh, { recursive: true });
  if (stale.length) {
    console.error(`llmlab/widgets/static is not what frontend/ builds: ${stale.join(", ")}. Run: make frontend`);
    process.exit(1);
  }
} else {
  await widgets(STATIC);
  for (const name of readdirSync(STATIC)) console.log(`${name}: ${readFileSync(join(STATIC, name)).length} bytes`);
}
