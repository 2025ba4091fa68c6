// The state that the kernel shares with the page, and the messages between them. The Python side (llmlab/widgets/*.py)
// owns it; these types are what the page relies on.

export interface Quant {
  quant: string;
  action: string;
}

export interface LoadedModel {
  name: string;
  engine: string;
  quant: string;
  context: number;
  adapters: string[];
  quants: Quant[];
  current: boolean;
  chat: boolean;
  /** Why it can't be asked with images; empty if it can. */
  no_images: string;
}

/** A load or unload under way. */
export interface Work {
  what: string;
  phase: string;
  /** From 0 to 1; null while unknown. */
  fraction: number | null;
}

export interface Bench {
  models?: LoadedModel[];
  offers?: string[];
  work?: Work | null;
}

export interface Problem {
  message?: string;
  hint?: string;
}

/** What every widget has. */
export interface BaseState {
  bench: Bench;
  problem: Problem;
  static_class: string;
  conversation?: string;
  turns?: Turn[];
}

/** A message from the kernel: `do` names it. */
// biome-ignore lint/suspicious/noExplicitAny: each handler names the fields that its message has
export type Message = { do: string } & Record<string, any>;

/** Measured facts of an answer: times in seconds, speeds in tokens/s. */
export interface Facts {
  model?: string;
  engine?: string;
  quant?: string;
  adapter?: string;
  prompt_tokens?: number;
  tokens?: number;
  tokens_per_s?: number | null;
  ttft_s?: number | null;
  finish?: string;
  seed?: number | null;
  line?: string;
}

/** A token: its text, its probability (null if it was not kept), the likeliest others. */
export type TokenRow = [text: string, probability: number | null, top: [text: string, probability: number][]];

export interface Attachment {
  name: string;
  text?: string | null;
  /** A data: URL. */
  image?: string;
  /** Why it can't be attached. */
  why?: string;
}

export interface Turn {
  id: string;
  parent: string;
  role: "user" | "assistant";
  text: string;
  files?: Attachment[];
  error?: { message: string; hint: string } | null;
  facts: Facts;
  tokens?: TokenRow[] | null;
  rating?: number;
  /** Set by the page: something is being generated. */
  busy?: boolean;
}

/** An answer under way. */
export interface Live {
  text: string;
  tokens: number;
}

export type Sampling = Record<string, number | string[] | undefined> & { stop?: string[] };

export interface ChatState extends BaseState {
  turns: Turn[];
  leaf: string;
  running: string;
  model: string;
  adapter: string;
  system: string;
  sampling: Sampling;
  schema: string;
  meter: { used?: number; draft?: number; context?: number };
  conversation: string;
  earlier: { id: string; title: string; at: string }[];
  height: number;
}

export interface Column {
  model: string;
  adapter: string;
  sampling: Record<string, number | undefined>;
}

export interface ArenaAnswer {
  text?: string;
  running?: boolean;
  error?: { message: string; hint: string } | null;
  facts?: Facts;
}

export interface ArenaState extends BaseState {
  columns: Column[];
  prompt: string;
  answers: ArenaAnswer[];
  order: number[];
  blind: boolean;
  revealed: boolean;
  verdict: string;
  ballots: { winner: string }[];
  /** -1 for a fresh one each time. */
  seed: number;
}

/** What a constraint did at one token. */
export interface Mask {
  removed: number;
  wanted: string;
  wanted_probability: number;
  changed: boolean;
  forced: boolean;
  greedy: boolean;
}

export interface InspectorState extends BaseState {
  versions: { rows: TokenRow[]; label: string; at: number; line: string }[];
  shown: number;
  running: boolean;
  mask: (Mask | null)[];
  guided: { name?: string; says?: string };
}

export interface PanelRow {
  name: string;
  engine: string;
  quant: string;
  parameters: string;
  context: number;
  adapters: string[];
  current: boolean;
  in_flight: number;
  weights: number;
  kv: number;
  says: string;
  on: string;
  reason: string;
}

export interface PanelState extends BaseState {
  rows: PanelRow[];
  device: { name?: string; says?: string; total?: number; free?: number };
}
