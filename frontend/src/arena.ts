import type { AnyModel } from "@anywidget/types";
import { columnSettings, earlierRound, LETTERS } from "./column";
import { answerColumn, showStandings } from "./compare";
import { button, copyButton, tokens as countTokens, el, FINISHED, icon, onceAFrame, seconds, speed } from "./dom";
import { type Context, type Frame, frame, loader } from "./frame";
import { MarkdownView } from "./markdown";
import type { ArenaAnswer, ArenaState, Column, Live, LoadedModel, Message } from "./state";
import { ThoughtView } from "./thought";
import { isEnter } from "./turn";
import { showVote, type Vote } from "./votes";

// One prompt, several columns, a vote. In blind mode the columns' settings are hidden until the vote.

class ArenaView {
  readonly f: Frame<ArenaState>;
  private readonly model: AnyModel<ArenaState>;
  private readonly live = new Map<number, Live>();
  private readonly bodies: { view: MarkdownView; thought: ThoughtView; facts: HTMLElement }[] = [];
  private readonly grid: HTMLElement;
  private readonly votes: HTMLElement;
  private readonly asked: HTMLElement;
  private readonly difference: HTMLElement;
  private readonly standings: HTMLElement;
  private readonly made: HTMLElement;
  private readonly announcer: HTMLElement;
  private readonly none: HTMLElement;
  private readonly draw: () => void;
  private ticket = "";
  private queued = false;
  private wasBusy = false;
  // Created by bar() and composer().
  private followBox!: HTMLInputElement;
  private followRow!: HTMLElement;
  private actions!: HTMLElement;
  private blindBox!: HTMLInputElement;
  private seedBox!: HTMLInputElement;
  private more!: HTMLElement;
  private area!: HTMLTextAreaElement;
  private go!: HTMLButtonElement;
  private tally!: HTMLElement;

  constructor(context: Context<ArenaState>) {
    this.model = context.model;
    this.f = frame(context, "arena", "Arena: compare answers");
    this.grid = el("div", { class: "ll-grid" });
    this.votes = el("div", { class: "ll-votes", role: "group", "aria-label": "Vote" });
    this.asked = el("div", { class: "ll-asked" });
    this.difference = el("details", { class: "ll-difference", hidden: true });
    this.standings = el("details", { class: "ll-standings ll-below", hidden: true });
    this.made = el("div", { class: "ll-row ll-made", role: "status", hidden: true });
    this.announcer = el("div", { class: "ll-sr", "aria-live": "polite" });
    this.none = el(
      "div",
      { class: "ll-empty", hidden: true },
      el("b", {}, "No model is loaded yet"),
      el("span", { class: "ll-quiet" }, "Load one or two to compare their answers."),
      loader(this.f, this.model),
    );
    this.f.root.append(
      this.bar(),
      this.more,
      this.none,
      this.asked,
      this.difference,
      this.grid,
      this.votes,
      this.made,
      this.composer(),
      this.standings,
      this.announcer,
    );
    this.draw = onceAFrame(() => this.flow());
    this.f.on("delta", (m) => this.delta(m));
    this.f.on("accepted", ({ ticket }) => {
      if (ticket !== this.ticket) return;
      this.ticket = "";
      this.area.value = "";
    });
    this.f.on("experiment", ({ line, code }) => {
      this.made.hidden = false;
      this.made.replaceChildren(
        el("span", {}, line, " Run it in a cell: ", el("code", {}, code)),
        copyButton("Copy", () => code),
      );
    });
    this.model.on("msg:custom", (m) => {
      if (m?.do !== "hello") return;
      for (const [column, live] of Object.entries(m.live ?? {})) this.live.set(Number(column), live as Live);
      this.draw();
    });
    this.model.on("change:problem", () => {
      this.ticket = "";
    });
    this.f.onConnect((on) => {
      if (!on) this.ticket = "";
      this.render();
    });
    this.f.watch(
      [
        "columns",
        "answers",
        "order",
        "revealed",
        "verdict",
        "lab_state",
        "prompt",
        "rounds",
        "standings",
        "difference",
      ],
      () => this.renderSoon(),
    );
    this.f.watch(["blind", "seed"], () => this.showBar());
    this.render();
  }

  // Several traits change at once: draw once for all of them.
  private renderSoon() {
    if (this.queued) return;
    this.queued = true;
    queueMicrotask(() => {
      this.queued = false;
      this.render();
    });
  }

  private get busy(): boolean {
    return this.model.get("answers").some((a) => a.running);
  }

  private bar() {
    this.blindBox = el("input", { type: "checkbox" });
    this.blindBox.addEventListener("change", () => this.f.send("blind", { on: this.blindBox.checked }));
    this.seedBox = el("input", {
      class: "ll-input ll-seed",
      type: "number",
      min: 0,
      placeholder: "fresh",
      "aria-label": "Seed, the same for all columns",
    });
    this.seedBox.addEventListener("change", () => {
      this.model.set("seed", this.seedBox.value === "" ? -1 : Number(this.seedBox.value));
      this.model.save_changes();
    });
    const more = button("Add a column", {
      iconName: "plus",
      text: "Column",
      cls: "ll-tab ll-change",
      onclick: () => {
        const columns = this.model.get("columns");
        this.setColumns([...columns, columns[columns.length - 1]]);
      },
    });
    this.more = el("div", { class: "ll-bar", hidden: true }, loader(this.f, this.model, true));
    const load = button("Load another model, or the same one in another quant", {
      iconName: "plus",
      text: "Model",
      cls: "ll-tab ll-change",
      "aria-expanded": "false",
      onclick: () => {
        this.more.hidden = !this.more.hidden;
        load.setAttribute("aria-expanded", String(!this.more.hidden));
        if (!this.more.hidden) this.more.querySelector("input")?.focus();
      },
    });
    return el(
      "div",
      { class: "ll-bar" },
      el("b", {}, "Arena"),
      el("span", { class: "ll-space" }),
      el(
        "label",
        { class: "ll-check", title: "Hide the columns' settings until you have voted" },
        this.blindBox,
        " Blind",
      ),
      el("label", { class: "ll-check" }, " Seed ", this.seedBox),
      more,
      load,
    );
  }

  private showBar() {
    this.blindBox.checked = this.model.get("blind");
    const seed = this.model.get("seed");
    this.seedBox.value = seed < 0 ? "" : String(seed);
  }

  private setColumns(columns: Column[]) {
    this.f.send("columns", { columns });
  }

  private composer() {
    this.area = el("textarea", {
      class: "ll-input ll-ask",
      rows: 1,
      dir: "auto",
      "aria-label": "Prompt for all columns",
      placeholder: "Prompt all columns …",
    });
    this.go = button("Send", {
      iconName: "send",
      cls: "ll-primary ll-go",
      onclick: () => (this.busy ? this.f.send("stop") : this.submit()),
    });
    this.area.addEventListener("keydown", (event) => {
      if (isEnter(event)) {
        event.preventDefault();
        if (!this.busy) this.submit();
      } else if (event.key === "Escape" && this.busy) this.f.send("stop");
    });
    this.area.addEventListener("input", () => {
      this.area.style.height = "auto";
      this.area.style.height = `${Math.min(this.area.scrollHeight + 2, 200)}px`;
    });
    this.tally = el("div", { class: "ll-quiet" });
    this.followBox = el("input", { type: "checkbox" });
    this.followRow = el(
      "label",
      { class: "ll-check", title: "Each column sees the earlier prompts and its own answers" },
      this.followBox,
      " Follow up",
    );
    this.actions = el(
      "span",
      { class: "ll-row" },
      this.followRow,
      button("Start a new conversation", { text: "New", onclick: () => this.restart() }),
      button("Make an experiment of these columns and prompts", {
        text: "Experiment",
        onclick: () => this.f.send("experiment"),
      }),
    );
    const below = el("div", { class: "ll-row ll-below" }, this.tally, el("span", { class: "ll-space" }), this.actions);
    return el("div", { class: "ll-composer" }, el("div", { class: "ll-ask-row" }, this.area, this.go), below);
  }

  private restart() {
    this.followBox.checked = false;
    this.f.send("restart");
  }

  private submit() {
    if (!this.area.value.trim() || this.ticket || !this.f.connected()) return;
    this.ticket = `t${Math.random().toString(36).slice(2)}`;
    const follow_up = this.followBox.checked && Boolean(this.model.get("prompt"));
    this.f.send("send", { text: this.area.value, ticket: this.ticket, follow_up });
  }

  private delta({ column, at, text, thought, tokens }: Message) {
    const now = this.live.get(column) ?? { text: "", thought: "", tokens: 0 };
    const before = thought === undefined ? now.text : (now.thought ?? "");
    if (at > before.length) {
      this.f.send("resync");
      return;
    }
    const grown = before.slice(0, at) + (thought ?? text);
    this.live.set(column, thought === undefined ? { ...now, text: grown, tokens } : { ...now, thought: grown, tokens });
    this.draw();
  }

  /** New text in the columns that are still generating. */
  private flow() {
    const answers = this.model.get("answers");
    for (const [column, { text, thought, tokens }] of this.live) {
      if (!answers[column]?.running || !this.bodies[column]) continue;
      this.bodies[column].thought.update(thought ?? "", text ? 0 : tokens, !text);
      this.bodies[column].view.update(text);
      this.bodies[column].facts.textContent = `${countTokens(tokens)} …`;
    }
  }

  private render() {
    const answers = this.model.get("answers");
    const order = this.model.get("order");
    const verdict = this.model.get("verdict");
    const prompt = this.model.get("prompt");
    const models = this.model.get("lab_state")?.models ?? [];
    const on = this.f.connected();
    this.none.hidden = models.length > 0;
    this.asked.hidden = !prompt;
    this.asked.replaceChildren(
      ...this.model.get("rounds").map((one) => earlierRound(one.prompt, order, one.answers)),
      el("b", {}, "You"),
      el("div", { class: "ll-sent", dir: "auto" }, prompt),
    );
    // It names the models, which a blind vote hides.
    const difference = this.model.get("revealed") ? this.model.get("difference") : "";
    this.difference.hidden = !difference;
    this.difference.replaceChildren(el("summary", {}, "The columns read different prompts"), el("pre", {}, difference));
    this.grid.style.setProperty("--ll-columns", String(order.length));
    const nodes = order.map((column, place) => this.column(answers[column] ?? {}, column, place, models));
    this.grid.replaceChildren(...nodes);
    this.flow();
    this.showVotes(order, answers, verdict, prompt);
    const { busy } = this;
    if (this.wasBusy && !busy) {
      this.live.clear();
      this.announcer.textContent = "All columns have answered. Vote for the better one.";
    }
    this.wasBusy = busy;
    this.area.disabled = this.go.disabled = !on;
    this.actions.hidden = !prompt || busy || !on;
    if (!prompt) this.made.hidden = true;
    showStandings(this.standings, this.model.get("standings"));
    this.go.replaceChildren(icon(busy ? "stop" : "send"));
    this.go.setAttribute("aria-label", busy ? "Stop" : "Send");
    this.go.classList.toggle("ll-stop", busy);
    const ballots = this.model.get("ballots");
    const wins = new Map<string, number>();
    for (const { winner } of ballots) wins.set(winner, (wins.get(winner) ?? 0) + 1);
    this.tally.textContent = ballots.length
      ? `${ballots.length === 1 ? "1 vote" : `${ballots.length} votes`} — ${[...wins].map(([who, n]) => `${who === "none" ? "all bad" : who}: ${n}`).join(", ")}`
      : "Same prompt, same seed. Your votes are in arena.votes, a DataFrame.";
  }

  private column(answer: ArenaAnswer, column: number, place: number, models: LoadedModel[]) {
    const verdict = this.model.get("verdict");
    const locked = this.busy || !this.f.connected();
    const hidden = !this.model.get("revealed");
    const body = this.bodies[column] ?? {
      view: new MarkdownView(),
      thought: new ThoughtView(),
      facts: el("span", { class: "ll-facts" }),
    };
    this.bodies[column] = body;
    if (!answer.running) {
      body.view.update(answer.text ?? "");
      body.thought.update(answer.thought ?? "", answer.facts?.thought_tokens ?? 0, false);
    } else if (!this.live.has(column)) {
      body.view.update("");
      body.thought.update("", 0, true);
    }
    body.view.el.classList.toggle("ll-caret", Boolean(answer.running));
    const x = answer.facts ?? {};
    if (!answer.running) {
      body.facts.textContent = hidden
        ? ""
        : [
            x.tokens !== undefined && countTokens(x.tokens),
            x.tokens_per_s && speed(x.tokens_per_s),
            x.ttft_s !== undefined && x.ttft_s !== null && `TTFT ${seconds(x.ttft_s)}`,
            FINISHED[x.finish ?? ""],
          ]
            .filter(Boolean)
            .join(" · ");
    }
    const settings = hidden
      ? el("span", { class: "ll-quiet" }, "hidden until the vote")
      : columnSettings(this.model.get("columns"), column, models, locked, (all) => this.setColumns(all));
    return answerColumn(
      LETTERS[place],
      [settings].flat(),
      [
        body.thought.el,
        body.view.el,
        answer.error &&
          el(
            "div",
            { class: "ll-notice ll-problem", role: "alert" },
            icon("warn"),
            el("span", {}, el("b", {}, answer.error.message), " ", answer.error.hint),
          ),
        !answer.text &&
          !answer.running &&
          !answer.error &&
          el("span", { class: "ll-quiet" }, x.finish ? "(no text)" : "The answer will appear here."),
      ],
      el(
        "footer",
        { class: "ll-row" },
        body.facts,
        el("span", { class: "ll-space" }),
        answer.text ? copyButton("Copy", () => answer.text ?? "") : "",
      ),
      verdict === String(column) ? "ll-won" : "",
    );
  }

  private showVotes(order: number[], answers: ArenaAnswer[], verdict: string, prompt: string) {
    const ready = prompt && !this.busy && answers.some((a) => a.text);
    this.votes.hidden = !ready;
    if (!ready) return;
    showVote(
      this.votes,
      verdict ? "You voted." : "Which is better?",
      [...order.map((column, place): Vote => [column, LETTERS[place]]), ["tie", "Tie"], ["none", "All bad"]],
      verdict,
      (choice) => this.f.send("vote", { choice }),
    );
  }
}

export default {
  render(context: Context<ArenaState>) {
    const arena = new ArenaView(context);
    return () => arena.f.dispose();
  },
};
