"""The run log: on disk, between processes, without secrets, and never in the way."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmlab.errors import BadInputError, LlmLabError, UnknownNameError
from llmlab.runlog import RunLog
from llmlab.runlog.redact import environment_secrets, redacted
from llmlab.runlog.schema import STEPS
from llmlab.types import Choice, Completion, Message, SamplingParams, Timings, Usage, data_url


def completion(question: str, answer: str, *before: Message) -> Completion:
    return Completion(
        choices=(Choice(answer, (1, 2, 3), "stop", seed=7),),
        usage=Usage(5, 3, 1),
        timings=Timings(0.01, 0.03, 2),
        model="nano",
        engine="llamacpp",
        quant="F16",
        params=SamplingParams(temperature=0.5, seed=7),
        messages=(*before, Message("user", question)),
    )


@pytest.fixture
def log(tmp_path: Path) -> Any:
    made = RunLog(tmp_path / "deep" / "runs.db")
    yield made
    made.close()


def test_what_is_added_is_read_back(log: RunLog) -> None:
    log.add(completion("one?", "1", Message("system", "Be brief.")), source="cell", conversation="aa11")
    log.add(completion("50% of two?", "1 é\n日本"), source="chat", conversation="bb22")
    log.add(completion("half a character", "\ud83d"), source="cell")
    table = log.frame()
    assert list(table["text"]) == ["1", "1 é\n日本", "?"]
    first = table.iloc[0]
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one?"},
    ]
    assert first["params"] == {"temperature": 0.5, "seed": 7}
    assert (first["tokens_per_s"], first["cached_tokens"], first["finish_reason"]) == (pytest.approx(100), 1, "stop")
    assert list(log.frame(search="50%")["conversation"]) == ["bb22"]
    assert list(log.frame(search="日本")["conversation"]) == ["bb22"]
    assert len(log.frame(search="_")) == 0
    assert list(log.frame(2)["conversation"]) == ["bb22", ""]
    assert [one.id for one in log.conversations()] == ["bb22", "aa11"]
    assert log.conversation("aa").system == "Be brief."
    assert [turn["content"] for turn in log.conversation("aa11").turns] == ["Be brief.", "one?", "1"]
    with pytest.raises(UnknownNameError, match="nope"):
        log.conversation("nope")
    with pytest.raises(BadInputError):
        log.frame(0)
    if os.name == "posix":
        assert log.path.stat().st_mode & 0o077 == 0, "others can read it"


def test_a_thought_has_columns_of_its_own(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "plain-but-secret-1")
    done = completion("Really?", "Yes.")
    choice = replace(done.choices[0], reasoning="Is it plain-but-secret-1?", reasoning_token_ids=(1, 2, 3, 4))
    log.add(replace(done, choices=(choice,)), source="cell", conversation="c1")
    row = log.frame().iloc[0]
    assert (row["text"], row["reasoning_tokens"]) == ("Yes.", 4)
    assert row["reasoning"].startswith("Is it ")
    assert "but-secret-1" not in row["reasoning"]
    assert log.conversation("c1").turns[-1]["reasoning_content"] == row["reasoning"]


def test_an_image_is_stored_as_its_hash_unless_asked_for(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    picture = b"GIF89a-pixels"
    digest = f"sha256:{hashlib.sha256(picture).hexdigest()}"
    shown = Message("user", "What is it?", images=(picture,))
    for conversation, setting in (("hash", "on"), ("pixels", "images")):
        monkeypatch.setenv("LLMLAB_RUN_LOG", setting)
        log.add(
            completion("And now?", "A cat.", shown, Message("assistant", "A dog.")),
            source="cell",
            conversation=conversation,
        )
        files = [{"name": "a.gif", "image": data_url(picture)}]
        turn = {"id": "t1", "parent": "", "role": "user", "text": "x", "files": files}
        log.keep(f"chat-{conversation}", changed=[(0, turn)], system="", settings={}, leaf="t1")
        log.flush()
    kept = [log.frame(conversation=one).iloc[0]["messages"][0]["content"][0] for one in ("hash", "pixels")]
    assert [one["image_url"]["url"] for one in kept] == [digest, data_url(picture)]
    found = [log.conversation(f"chat-{one}").turns[0]["files"][0]["image"] for one in ("hash", "pixels")]
    assert found == [digest, data_url(picture)]
    again = Message.of(log.conversation("hash").turns[0])
    assert (again.images, again.content) == ((), f"[an image that the run log hasn't kept, {digest[:15]}]\nWhat is it?")
    assert Message.of(log.conversation("pixels").turns[0]).images == (picture,)


def test_a_text_that_begins_as_an_image_is_a_text(log: RunLog) -> None:
    text = "data:image/png;base64,!!"
    log.add(completion(text, text), source="cell")
    log.flush()
    assert log.frame(1).iloc[0]["text"] == text


def test_a_long_talk_is_stored_once(log: RunLog) -> None:
    said: list[Message] = []
    for number in range(30):
        log.add(completion(f"question {number} " + "x" * 5000, "answer", *said), source="chat", conversation="long")
        said += [Message("user", f"question {number} " + "x" * 5000), Message("assistant", "answer")]
    assert len(log.frame(1).iloc[0]["messages"]) == 59
    log.close()
    assert log.path.stat().st_size < 30 * 5000 * 4  # written out each time, it would be 15 times as much


def test_prune(log: RunLog) -> None:
    log.add(completion("old", "gone"), source="cell", conversation="old1")
    log.keep("old1", system="", settings={}, leaf="a", changed=[(0, {"id": "a", "text": "old"})])
    assert log.prune(timedelta(days=1)) == 0
    time.sleep(0.05)
    assert log.prune(timedelta(seconds=0.02)) == 1
    assert len(log.frame()) == 0
    assert log.conversations() == []
    log.close()
    assert b"gone" not in log.path.read_bytes()


def test_secrets_stay_out(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", 'plain"but-secret-1')
    monkeypatch.setenv("MAX_TOKENS", "not-a-secret-at-all")
    token = "hf_" + "a1B2" * 9
    text = f'use {token} and plain"but-secret-1 with Bearer {"z" * 30}, not-a-secret-at-all'
    log.add(completion(text, f"I see {token}", Message("system", text)), source="cell", conversation="s1")
    log.keep(
        "s1",
        system=text,
        settings={"schema": token},
        leaf="a",
        changed=[(0, {"id": "a", "role": "user", "text": text})],
    )
    log.close()
    for file in log.path.parent.iterdir():
        stored = file.read_bytes()
        assert token.encode() not in stored
        assert b"but-secret-1" not in stored
        assert b"z" * 30 not in stored
    assert "not-a-secret-at-all" in log.frame().iloc[0]["prompt"]
    assert redacted("sk-short is fine, hf_short too") == "sk-short is fine, hf_short too"
    assert environment_secrets({"HF_TOKEN": "0123456789ab", "TOKENIZERS": "0123456789ab"}) == ("0123456789ab",)
    for name in ("LLMLAB_SERVE_KEY", "FAR_KEY", "OPENAI_API_KEY", "OPENAI_APIKEY", "AWS_SECRET_ACCESS_KEY"):
        assert environment_secrets({name: "0123456789ab", "KEYBOARD": "0123456789ab-x"}) == ("0123456789ab",)


def test_off(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAB_RUN_LOG", "off")
    log.add(completion("x", "y"), source="cell")
    assert len(log.frame()) == 0
    assert not log.path.exists()
    with pytest.raises(BadInputError, match="no chat to resume"):
        log.conversation()


def test_a_disk_that_fails_is_said_once_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = RunLog(tmp_path / "file" / "runs.db")  # a folder can't be made here
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(5):
            log.add(completion("x", "y"), source="cell")
        assert log.flush()
    assert len([one for one in said if "run log" in str(one.message)]) == 1
    log.close()
    strict = RunLog(tmp_path / "file" / "runs.db")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict.add(completion("x", "y"), source="cell")
        assert strict.flush(), "the writer died of its own warning"
    strict.close()


def test_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(b"this is no database, and never was one. " * 100)
    log = RunLog(path)
    with pytest.raises(LlmLabError, match="Can't read the run log") as raised:
        log.frame()
    assert str(path) in raised.value.hint


def test_an_older_file_is_brought_up_to_date(log: RunLog) -> None:
    log.path.parent.mkdir()
    with sqlite3.connect(log.path) as old:
        old.execute("create table other (x)")
    log.add(completion("x", "y"), source="cell")
    assert len(log.frame()) == 1
    with sqlite3.connect(log.path) as db:
        steps = [row[0] for row in db.execute("select name from _sqlite_migrations")]
    assert steps == [name for name, _ in STEPS]


# As sqlite-utils 4.2 made it, which wrote the log before.
MADE_BEFORE = """
CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name" ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE "conversations" ("id" TEXT PRIMARY KEY, "kind" TEXT, "started" TEXT, "updated" TEXT, "title" TEXT,
  "system" TEXT, "settings" TEXT, "leaf" TEXT);
CREATE INDEX "idx_conversations_updated" ON "conversations" ("updated");
CREATE TABLE "turns" ("conversation" TEXT, "id" TEXT, "place" INTEGER, "body" TEXT, PRIMARY KEY ("conversation", "id"));
CREATE TABLE "messages" ("hash" TEXT PRIMARY KEY, "body" TEXT);
CREATE TABLE "runs" ("id" INTEGER PRIMARY KEY, "conversation" TEXT, "source" TEXT, "at" TEXT, "model" TEXT,
  "engine" TEXT, "quant" TEXT, "adapter" TEXT, "prompt" TEXT, "text" TEXT, "texts" TEXT, "finish_reason" TEXT,
  "params" TEXT, "messages" TEXT, "turns" TEXT, "prompt_tokens" INTEGER, "completion_tokens" INTEGER,
  "cached_tokens" INTEGER, "ttft_s" REAL, "total_s" REAL, "tokens_per_s" REAL, "llmlab" TEXT);
CREATE INDEX "idx_runs_conversation" ON "runs" ("conversation");
CREATE INDEX "idx_runs_at" ON "runs" ("at");
INSERT INTO "_sqlite_migrations" VALUES (1, 'llmlab.runlog', 'first_tables', '2026-11-24 01:23:51.890935+00:00');
INSERT INTO "messages" VALUES ('aa', '{"role": "user", "content": "old?"}');
INSERT INTO "conversations" VALUES ('c0', 'cell', '2026-11-24T01:00:00+00:00', '2026-11-24T01:00:00+00:00', 'old?', '',
  '{}', '');
INSERT INTO "runs" VALUES (1, 'c0', 'cell', '2026-11-24T01:00:00+00:00', 'nano', 'llamacpp', 'F16', '', 'old?', 'yes',
  '', 'stop', '{"n": 1}', '["aa"]', '[]', 5, 3, 0, 0.01, 0.03, 100.0, '0.1.0');
"""


def test_a_file_of_before_goes_on(log: RunLog) -> None:
    log.path.parent.mkdir()
    with sqlite3.connect(log.path) as old:
        old.executescript(MADE_BEFORE)
    log.add(completion("new?", "no"), source="cell", conversation="c0")
    table = log.frame()
    assert list(table["text"]) == ["yes", "no"]
    assert table.iloc[0]["messages"] == [{"role": "user", "content": "old?"}]
    assert [(one.id, one.title) for one in log.conversations()] == [("c0", "old?")]
    with sqlite3.connect(log.path) as db:
        assert len(db.execute("select * from _sqlite_migrations").fetchall()) == len(STEPS)
    assert list(table["reasoning"]) == ["", ""]
    assert list(table["reasoning_tokens"]) == [0, 0]

    def shape(path: Path) -> list[Any]:
        with sqlite3.connect(path) as db:
            tables = [row[0] for row in db.execute("select name from sqlite_master where type = 'table' order by name")]
            return [(one, db.execute(f"pragma table_info({one})").fetchall()) for one in tables]

    new = RunLog(log.path.with_name("new.db"))
    new.add(completion("x", "y"), source="cell")
    new.close()
    log.close()
    assert [[column[1:4] for column in columns] for _, columns in shape(new.path)] == [
        [column[1:4] for column in columns] for _, columns in shape(log.path)
    ]


WRITER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.runlog.test_runlog import completion
from llmlab.runlog import RunLog
log = RunLog(Path({path!r}))
for i in range(200):
    log.add(completion(f"{{sys.argv[1]}} {{i}}", "a"), source="cell", conversation=sys.argv[1])
"""


def test_several_kernels_write_at_once(tmp_path: Path) -> None:
    """Both make the file, both write; the interpreter's end loses nothing."""
    path = tmp_path / "runs.db"
    code = WRITER.format(root=str(Path(__file__).parents[2]), path=str(path))
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("one", "two", "three")]
    assert [one.wait(240) for one in running] == [0, 0, 0]
    table = RunLog(path).frame()
    assert sorted(table["prompt"]) == sorted(f"{name} {i}" for name in ("one", "two", "three") for i in range(200))


FIRST = """
import json, llmlab
from llmlab.session import Lab
lab = Lab(); lab.load("nano", engine="llamacpp")
chat = llmlab.chat(lab=lab, temperature=0, system="Be kind.", max_tokens=24)
chat.send("Hello! My name is Farid.")
chat.regenerate().result()
chat.edit(chat.turns[0]["id"], "Hello! My name is Ingrid.").result()
chat.rate(chat.leaf, 1)
chat.submit("What is my name?").result()
print(json.dumps([chat.conversation, chat.turns, chat.leaf]))
"""


def test_a_chat_goes_on_in_another_process(
    tmp_path: Path, llamacpp: Any, shared_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel ends, the next one has the talk: versions, ratings, settings, and the model's own memory of it."""
    env = {**os.environ, "LLMLAB_DATA": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", FIRST], env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    name, turns, leaf = json.loads(ran.stdout.splitlines()[-1])
    monkeypatch.setenv("LLMLAB_DATA", str(tmp_path))
    from llmlab.widgets import Chat

    chat = Chat("llamacpp", lab=shared_lab, resume=True)
    assert (chat.conversation, chat.leaf, chat.system) == (name, leaf, "Be kind.")
    assert chat.turns == turns
    assert chat.sampling == {"temperature": 0, "max_tokens": 24}
    assert "Ingrid" in chat.messages[1]["content"]
    answer = chat.send("What is my name?")
    assert "Ingrid" in answer.text
    table = shared_lab.runlog.frame(conversation=name)
    assert len(table) == 5
    assert set(table["engine"]) == {"llamacpp"}
    assert table.iloc[-1]["messages"][-1] == {"role": "user", "content": "What is my name?"}
    again = Chat("llamacpp", lab=shared_lab, resume=name[:5])
    assert len(again.turns) == len(turns) + 2
    chat.close()
    again.close()
