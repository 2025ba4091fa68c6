import type { AnyModel } from "@anywidget/types";
import { button, el, icon, num } from "./dom";
import type { Frame } from "./frame";
import { shortcuts } from "./keys";
import { Templates } from "./saved";
import type { Attachment, ChatState, LoadedModel, Message } from "./state";
import { isEnter, pagesText, picture } from "./turn";

// The message being written: its text, files and tokens, and the button that sends or stops.

const MAX_FILE = 2_000_000;
// The server's web socket refuses messages of more than 10 MB, and base64 adds a third.
const MAX_PDF = 7_000_000;
const MAX_IMAGE = 25_000_000;
// A larger image is scaled down: vision models read at most about this many pixels a side.
const IMAGE_SIDE = 2048;
const TEXT_FILES =
  "text/*,.pdf,.md,.py,.json,.jsonl,.csv,.tsv,.yaml,.yml,.toml,.ipynb,.js,.ts,.c,.cpp,.h,.rs,.go,.java,.sh,.sql,.xml,.html,.css,.log";
const IMAGE_FILES = "image/png,image/jpeg,image/webp,image/gif";

/** The parts of the chat that the composer uses. */
export interface Host {
  readonly busy: boolean;
  picked(): LoadedModel | undefined;
  editLast(event: Event): void;
  render(): void;
}

export class Composer {
  readonly el: HTMLElement;
  readonly area: HTMLTextAreaElement;
  /** Stop was pressed, and the kernel hasn't answered yet. */
  stopping = false;
  private readonly go: HTMLButtonElement;
  private readonly clip: HTMLButtonElement;
  private readonly picker: HTMLInputElement;
  private readonly chips = el("div", { class: "ll-files" });
  private readonly meter: HTMLElement;
  private readonly meterBar = el("span", { class: "ll-meter-fill" });
  private readonly meterText = el("span", {});
  private readonly hint = el("span", { class: "ll-quiet", role: "status" });
  private templates: Templates | null = null;
  private ticket = "";
  private attached: Attachment[] = [];
  private note = "";
  private counting: ReturnType<typeof setTimeout> | undefined;
  private pasted = 0;

  constructor(
    private readonly model: AnyModel<ChatState>,
    private readonly f: Frame<ChatState>,
    private readonly host: Host,
  ) {
    this.area = el("textarea", { class: "ll-input ll-ask", rows: 1, dir: "auto", "aria-label": "Message" });
    this.go = button("Send", {
      iconName: "send",
      cls: "ll-primary ll-go",
      onclick: () => (host.busy ? this.stop() : this.submit()),
    });
    this.picker = el("input", { type: "file", multiple: true, hidden: true, accept: TEXT_FILES });
    this.picker.addEventListener("change", () => this.attach([...(this.picker.files ?? [])]));
    this.clip = button("Attach files", { iconName: "clip", onclick: () => this.picker.click() });
    const holder = el("div", { hidden: true });
    const opener = button("Prompt templates", {
      iconName: "template",
      "aria-expanded": "false",
      onclick: () => this.toggleTemplates(holder, opener),
    });
    this.meter = el(
      "div",
      { class: "ll-meter", title: "Tokens of the conversation, and the model's context length" },
      el("span", { class: "ll-meter-bar" }, this.meterBar),
      this.meterText,
    );
    const keys = shortcuts();
    this.el = el(
      "div",
      { class: "ll-composer" },
      holder,
      this.chips,
      el("div", { class: "ll-ask-row" }, this.clip, opener, this.picker, this.area, this.go),
      el("div", { class: "ll-row ll-below" }, this.meter, el("span", { class: "ll-space" }), this.hint, keys.opener),
      keys.list,
    );
    this.listen(keys.toggle);
    f.watch(["meter", "overflow"], () => this.showMeter());
    f.watch(["prompts", "prompt_change"], () => this.templates?.row.update());
  }

  private listen(toggleKeys: () => void) {
    const { area, f, host } = this;
    area.addEventListener("input", () => {
      this.size();
      this.countSoon();
    });
    area.addEventListener("keydown", (event) => {
      if (isEnter(event)) {
        event.preventDefault();
        if (!host.busy) this.submit();
      } else if (event.key === "Escape" && host.busy) this.stop();
      else if (event.key === "ArrowUp" && !area.value && !host.busy) host.editLast(event);
    });
    f.root.addEventListener("keydown", (event) => {
      const { tagName } = event.target as HTMLElement;
      const inLog = (event.target as HTMLElement).closest(".ll-log");
      if (event.key === "?" && inLog && !/^(TEXTAREA|INPUT)$/.test(tagName)) toggleKeys();
      if (event.key === "Escape" && inLog && host.busy) this.stop();
    });
    area.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length) return;
      event.preventDefault();
      this.attach(files);
    });
    this.el.addEventListener("dragover", (event) => event.preventDefault());
    this.el.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.attach([...(event.dataTransfer?.files ?? [])]);
    });
  }

  // -- sending and stopping --------------------------------------------------------------------------------------------

  private submit() {
    const text = this.area.value;
    const empty = !text.trim() && !this.attached.length;
    if (empty || this.ticket || !this.f.connected() || this.attached.some((file) => file.reading)) return;
    this.ticket = `t${Math.random().toString(36).slice(2)}`;
    this.f.send("send", { text, files: this.attached, ticket: this.ticket });
    this.state();
  }

  private stop() {
    this.stopping = true;
    this.f.send("stop");
    this.state();
    this.host.render();
  }

  /** The kernel has taken a message; returns whether it was this one. */
  accepted(ticket: string): boolean {
    if (!ticket || ticket !== this.ticket) return false;
    this.ticket = this.note = "";
    this.area.value = "";
    this.attached = [];
    this.showChips();
    this.size();
    this.state();
    return true;
  }

  /** The kernel has refused something: the message stays, and can be sent again. */
  failed(): void {
    this.ticket = "";
    this.stopping = false;
    this.state();
  }

  /** The connection came or went; a message that a lost kernel didn't receive can be sent again. */
  connected(): void {
    if (!this.f.connected()) this.failed();
  }

  state(): void {
    const on = this.f.connected();
    const { busy } = this.host;
    if (!busy) this.stopping = false;
    const stopping = busy && (this.stopping || this.model.get("stopping"));
    const sending = Boolean(this.ticket) && !busy;
    this.area.disabled = !on;
    this.go.disabled = !on || stopping || sending;
    this.go.replaceChildren(stopping || sending ? el("span", { class: "ll-running" }) : icon(busy ? "stop" : "send"));
    const label = stopping ? "Stopping" : sending ? "Sending" : busy ? "Stop" : "Send";
    this.go.setAttribute("aria-label", label);
    this.go.title = label;
    this.go.classList.toggle("ll-stop", busy);
    const hint = stopping
      ? "stopping …"
      : sending
        ? "sending …"
        : busy
          ? "Escape stops"
          : "Enter sends · Shift+Enter: new line";
    if (this.hint.textContent !== hint) this.hint.textContent = hint; // a change is announced
    const picked = this.host.picked();
    const sees = picked?.no_images === "";
    const attach = sees ? "Attach text files, PDFs or images" : "Attach text files or PDFs";
    this.clip.setAttribute("aria-label", attach);
    this.clip.title = `${attach}: the model reads them with the message`;
    this.picker.accept = sees ? `${TEXT_FILES},${IMAGE_FILES}` : TEXT_FILES;
    this.area.placeholder = !on
      ? "Run this cell to continue the conversation"
      : picked
        ? `Ask ${picked.name} …`
        : "Load a model first";
  }

  private size() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight + 2, 220)}px`;
  }

  private countSoon() {
    clearTimeout(this.counting);
    this.counting = setTimeout(() => {
      const files = this.attached.filter((file) => !file.reading);
      if (this.f.connected()) this.f.send("count", { text: this.area.value, files });
    }, 350);
  }

  private showMeter() {
    const { used = 0, draft = 0, context } = this.model.get("meter") ?? {};
    this.meter.hidden = context === undefined;
    if (context === undefined) return;
    const all = used + draft;
    this.meterBar.style.width = `${Math.min(100, (100 * all) / context)}%`;
    this.meter.classList.toggle("ll-full", all > context * 0.9);
    const left = all > context && this.model.get("overflow") !== "error" ? ": the oldest turns are left out" : "";
    const drafted = draft ? ` (${num(draft)} in the draft)` : "";
    this.meterText.textContent = `${num(all)} of ${num(context)} tokens${drafted}${left}`;
  }

  // -- templates -------------------------------------------------------------------------------------------------------

  private toggleTemplates(holder: HTMLElement, opener: HTMLElement) {
    holder.hidden = !holder.hidden;
    opener.setAttribute("aria-expanded", String(!holder.hidden));
    if (holder.hidden) {
      this.templates = null;
      return;
    }
    this.templates = new Templates(
      this.model,
      this.f,
      (text) => this.insert(text),
      () => this.area.value,
    );
    holder.replaceChildren(this.templates.el);
    this.templates.el.querySelector<HTMLElement>("select")?.focus();
  }

  /** A template was saved. */
  saved({ name, kind }: Message): void {
    if (kind === "template") this.templates?.row.choose(name);
  }

  /** Insert a text at the cursor, or in place of the selection. */
  private insert(text: string) {
    const { area } = this;
    const [start, end] = [area.selectionStart ?? area.value.length, area.selectionEnd ?? area.value.length];
    area.focus();
    area.value = area.value.slice(0, start) + text + area.value.slice(end);
    area.setSelectionRange(start + text.length, start + text.length);
    this.size();
    this.countSoon();
  }

  // -- files -------------------------------------------------------------------------------------------------------------

  private async attach(files: File[]) {
    this.note = "";
    for (const file of files) {
      const made = await this.attachment(file);
      if (made.why) this.note = `${made.name}: ${made.why}`;
      else this.attached.push(made);
    }
    this.picker.value = "";
    this.showChips();
    this.countSoon();
  }

  private async attachment(file: File): Promise<Attachment> {
    const { name } = file;
    if (file.type === "application/pdf" || /\.pdf$/i.test(name)) return this.pdf(file);
    if (file.type.startsWith("image/")) return this.image(file);
    if (file.size > MAX_FILE) return { name, why: "it is larger than 2 MB." };
    try {
      return { name, text: new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()) };
    } catch {
      return { name, why: "it isn't text, a PDF or an image." };
    }
  }

  private async image(file: File): Promise<Attachment> {
    const refused = this.host.picked()?.no_images ?? "Load a model first.";
    // All pasted images are called image.png.
    const name = file.name === "image.png" ? `pasted-${++this.pasted}.png` : file.name || `pasted-${++this.pasted}.png`;
    if (refused) return { name, why: refused };
    if (file.size > MAX_IMAGE) return { name, why: "it is larger than 25 MB." };
    const made = await scaled(file);
    if (!made) return { name, why: "the browser can't read it. Save it as PNG or JPEG." };
    return made.length > MAX_PDF ? { name, why: "it is too large. Make it smaller." } : { name, image: made };
  }

  /** The kernel reads a PDF's text; until it has, the message can't be sent. */
  private async pdf(file: File): Promise<Attachment> {
    const { name } = file;
    if (file.size > MAX_PDF)
      return { name, why: `it is larger than 7 MB. From Python: chat.send("...", files=["${name}"])` };
    const reading = `p${Math.random().toString(36).slice(2)}`;
    const url = await dataUrl(file);
    this.f.send("pdf", { name, data: url.slice(url.indexOf(",") + 1), ticket: reading });
    return { name, reading };
  }

  /** The kernel has read a PDF, or says why it can't. */
  readPdf({ ticket, file, problem }: Message): void {
    const at = this.attached.findIndex((one) => one.reading === ticket);
    if (at < 0) return;
    if (problem) {
      this.note = `${problem.message} ${problem.hint}`;
      this.attached.splice(at, 1);
    } else this.attached[at] = file;
    this.showChips();
    this.countSoon();
  }

  private showChips() {
    this.chips.replaceChildren(
      ...this.attached.map((file) =>
        el(
          "span",
          { class: "ll-tag" },
          picture(file) ?? icon("clip"),
          file.name,
          file.reading ? " · reading …" : file.pages && ` · ${pagesText(file.pages)}`,
          button(`Remove ${file.name}`, {
            iconName: "close",
            onclick: () => {
              this.attached = this.attached.filter((one) => one !== file);
              this.showChips();
              this.countSoon();
            },
          }),
        ),
      ),
      ...(this.note ? [el("span", { class: "ll-why ll-bad", role: "status" }, this.note)] : []),
    );
  }
}

/** A file as a data: URL. */
function dataUrl(file: Blob): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** An image as a data: URL, scaled down if it is large; null if the browser can't read it. */
async function scaled(file: File): Promise<string | null> {
  try {
    const picture = await createImageBitmap(file);
    const factor = IMAGE_SIDE / Math.max(picture.width, picture.height);
    const known = IMAGE_FILES.includes(file.type);
    if (factor >= 1 && file.size <= MAX_FILE && known) return await dataUrl(file);
    const canvas = el("canvas", {});
    canvas.width = Math.round(picture.width * Math.min(factor, 1));
    canvas.height = Math.round(picture.height * Math.min(factor, 1));
    canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const small = canvas.toDataURL("image/png");
    return small.length <= MAX_FILE ? small : canvas.toDataURL("image/jpeg", 0.9);
  } catch {
    return null;
  }
}
