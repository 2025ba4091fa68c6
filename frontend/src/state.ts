import type { Standing } from "./compare";
// The state that the kernel shares with the page, and the messages between them. The Python side (llmlab/widgets/*.py)
// owns the state; these types are the page's view of it.

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
  /** Why it doesn't support images; empty if it does. */
  no_images: string;
}

/** A running load or unload. */
export interface Work {
  what: string;
  phase: string;
  /** From 0 to 1; null if unknown. */
  fraction: number | null;
}

export interface LabState {
  models?: LoadedModel[];
  offers?: string[];
  work?: Work | null;
}

export interface Problem {
  message?: string;
  hint?: string;
}

/** The state of every widget. */
export interface BaseState {
  lab_state: LabState;
  problem: Problem;
  static_class: string;
  conversation?: string;
  turns?: Turn[];
}

/** A message from the kernel: `do` names it. */
// biome-ignore lint/suspicious/noExplicitAny: each handler names the fields that its message has
export type Message = { do: string } & Record<string, any>;

/** Settings and measurements of an answer: times in seconds, speeds in tokens/s. */
export interface Facts {
  model?: string;
  engine?: string;
  quant?: string;
  adapter?: string;
  prompt_tokens?: number;
  tokens?: number;
  thought_tokens?: number;
  tokens_per_s?: number | null;
  ttft_s?: number | null;
  finish?: string;
  seed?: number | null;
  line?: string;
  /** What was left out or cut off. */
  notes?: string[];
}

/** A tool call of an answer. */
export interface Step {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
  state: "waiting" | "queued" | "running" | "done" | "failed" | "denied";
  result: string;
  error: string;
  seconds: number;
}

/** A tool that the model may call. */
export interface ToolRow {
  name: string;
  description: string;
  /** function, or mcp:NAME. */
  origin: string;
  on: boolean;
  /** Its calls run without approval. */
  always: boolean;
}

/** A saved system prompt or template. */
export interface SavedPrompt {
  name: string;
  kind: "system" | "template";
  text: string;
  variables: string[];
}

/** A token: its text, its probability (null if not kept), the most likely alternatives. */
export type TokenRow = [text: string, probability: number | null, top: [text: string, probability: number][]];

export interface Attachment {
  name: string;
  text?: string | null;
  /** A data: URL. */
  image?: string;
  /** Why it can't be attached. */
  why?: string;
  /** Pages of a PDF. */
  pages?: number;
  /** The kernel is reading it: the ticket of the request. */
  reading?: string;
}

export interface Turn {
  id: string;
  parent: string;
  role: "user" | "assistant";
  text: string;
  /** What a reasoning model wrote before its answer. */
  thought?: string;
  files?: Attachment[];
  /** The calls before the answer. */
  steps?: Step[];
  error?: { message: string; hint: string } | null;
  facts: Facts;
  tokens?: TokenRow[] | null;
  rating?: number;
  /** Set by the page: something is being generated. */
  busy?: boolean;
}

/** A running answer. */
export interface Live {
  text: string;
  thought?: string;
  tokens: number;
  steps?: Step[];
}

export type Sampling = Record<string, number | string[] | undefined> & { stop?: string[]; bad_words?: string[] };

export interface ChatState extends BaseState {
  turns: Turn[];
  leaf: string;
  running: string;
  /** The running answer was told to stop. */
  stopping: boolean;
  model: string;
  /** A change of the loaded models: what to say, a model to switch to, one to load, one to stay beside. */
  notice: { text?: string; switch?: string; load?: string; stay?: string };
  adapter: string;
  system: string;
  sampling: Sampling;
  schema: string;
  /** on, off, low, medium, high or a number of tokens; empty: the model's own. */
  think: string;
  /** error, drop or shift. */
  overflow: string;
  tool_list: ToolRow[];
  prompts: SavedPrompt[];
  /** The change to the prompts that can be undone. */
  prompt_change: string;
  meter: { used?: number; draft?: number; context?: number };
  conversation: string;
  earlier: { id: string; title: string; at: string }[];
  height: number;
}

export interface Column {
  model: string;
  adapter: string;
  /** "": the arena's. */
  system: string;
  sampling: Record<string, number | string | undefined>;
}

export interface ArenaAnswer {
  text?: string;
  /** What a reasoning model wrote before its answer. */
  thought?: string;
  running?: boolean;
  error?: { message: string; hint: string } | null;
  facts?: Facts;
}

export interface ArenaState extends BaseState {
  columns: Column[];
  /** The earlier prompts of this conversation, with the columns' answers. */
  rounds: { prompt: string; answers: ArenaAnswer[] }[];
  prompt: string;
  answers: ArenaAnswer[];
  order: number[];
  blind: boolean;
  revealed: boolean;
  verdict: string;
  ballots: { winner: string }[];
  standings: Standing[];
  /** How the prompts that the columns read differ; "" if they don't. */
  difference: string;
  /** -1 for a new one each time. */
  seed: number;
}

/** A constraint's effect at one token. */
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
  guided: { name?: string; summary?: string };
}

export type Score = number | boolean | string | null;

/** One answer of an experiment: the start of its text. */
export interface GridCell {
  row: number;
  question: number;
  variant: number;
  text: string;
  error: string;
  scores: Record<string, Score>;
  /** 1 is up, -1 is down, 0 is not rated. */
  thumb: number;
}

export interface GridState extends BaseState {
  title: string;
  questions: { text: string; reference: string }[];
  variants: string[];
  scores: string[];
  cells: GridCell[];
  opened: {
    row?: number;
    prompt?: string;
    reference?: string;
    variant?: string;
    text?: string;
    error?: string;
    pieces?: string[];
    line?: string;
    thumb?: number;
    /** How the prompt differs from the first model's; "" if it doesn't. */
    differs?: string;
  };
  /** Two answers to compare, without what would tell which is which. */
  pair: { prompt?: string; a?: string; b?: string; left?: number };
  standings: Standing[];
  tally: string;
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
  summary: string;
  on: string;
  reason: string;
}

export interface PanelState extends BaseState {
  rows: PanelRow[];
  device: { name?: string; summary?: string; total?: number; free?: number };
}
