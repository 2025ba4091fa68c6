"""An HTTP server that answers what a test scripts: failures, pauses, malformed streams, and Ollama's shapes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One connection; `server.script` is the `ScriptedServer`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.script.asked.append((self.path, body, dict(self.headers)))
        self.answer(body)

    def answer(self, body):
        route = self.server.script.routes.get(self.path)
        if route is None:
            self.send(404, {"error": {"message": "no such route"}})
        elif callable(route):
            route(body, self)
        else:
            self.send(200, route)

    def send(self, status, value, headers=()):
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, lines, *, end=True):
        """Send lines as they are, each in a chunk; without `end` the connection is closed in the middle."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            data = line.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if end:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def hang(self):
        """Wait for the client to go away, or for the test's end."""
        self.connection.settimeout(0.05)
        while not self.server.script.release.is_set():
            try:
                if self.connection.recv(1) == b"":
                    self.server.script.gone.set()
                    break
            except TimeoutError:
                continue
            except OSError:
                self.server.script.gone.set()
                break
        self.close_connection = True


class ScriptedServer:
    """Answers by path. A route is a JSON value, a text, or a function of (body, handler) that writes its own answer.

    Attributes:
        asked: (path, body, headers) of each POST, in order.
        gone: set when a client closed its connection during `hang`.
    """

    def __init__(self, routes):
        self.routes = dict(routes)
        self.asked = []
        self.gone = threading.Event()
        self.release = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.script = self
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()


MODELS = {"object": "list", "data": [{"id": "far/model-7b", "object": "model", "owned_by": "someone"}]}


def events(*texts, reason="stop", usage=(5, 2)):
    """OpenAI's stream of an answer."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    if reason is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage is not None:
        chunks.append({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def says(*texts, **more):
    """A route that streams texts."""
    return lambda _body, handler: handler.stream(events(*texts, **more))


def in_turn(*routes):
    """A route that answers differently each time; the last one stays."""
    left = list(routes)
    return lambda body, handler: (left.pop(0) if len(left) > 1 else left[0])(body, handler)


def status(code, message="no", headers=()):
    """A route that refuses."""
    return lambda _body, handler: handler.send(code, {"error": {"message": message}}, headers)


class Ollama:
    """Ollama's routes over one model that says "Hi there" and cuts prompts at its context, silently."""

    def __init__(self, *, context=64, running=0):
        self.context = context
        self.routes = {
            "/v1/models": {"object": "list", "data": [{"id": "tiny:latest", "owned_by": "library"}]},
            "/api/version": {"version": "0.12.6"},
            "/api/tags": {"models": [{"name": "tiny:latest", "model": "tiny:latest"}]},
            "/api/ps": {"models": [{"model": "tiny:latest", "context_length": running}] if running else []},
            "/api/show": {
                "details": {"family": "llama", "quantization_level": "Q4_0"},
                "model_info": {"general.parameter_count": 5, "llama.context_length": 512},
                "parameters": 'temperature                    0.6\nstop                           "<|end|>"',
                "capabilities": ["completion", "tools"],
            },
            "/api/chat": self.chat,
            "/api/generate": self.chat,
        }

    def chat(self, body, handler):
        if body.get("_debug_render_only"):
            text = "".join(f"<{turn['role']}>{turn['content']}" for turn in body["messages"]) + "<assistant>"
            handler.send(200, {"model": body["model"], "_debug_info": {"rendered_template": text}})
            return
        words = " ".join(turn["content"] for turn in body.get("messages", ())) or body.get("prompt", "")
        read = min(len(words.split()) + 4, body["options"].get("num_ctx", self.context))
        final = {"done": True, "done_reason": "stop", "prompt_eval_count": read, "eval_count": 2}
        if "tools" in body and body["messages"][-1]["role"] == "user":
            call = {"function": {"name": body["tools"][0]["function"]["name"], "arguments": {"a": 1, "b": 2}}}
            parts = [{"message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": False}]
        elif "messages" in body:
            thought = [{"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False}]
            parts = thought * bool(body.get("think"))
            parts += [{"message": {"role": "assistant", "content": text}, "done": False} for text in ("Hi", " there")]
        else:
            parts = [{"response": text, "done": False} for text in ("Hi", " there")]
        last = {"message": {"role": "assistant", "content": ""}} if "messages" in body else {"response": ""}
        handler.stream([json.dumps(part) + "\n" for part in [*parts, {**last, **final}]])
