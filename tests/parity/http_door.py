"""The HTTP door with the real openai client: completions and chat, whole and streamed, log-probabilities against transformers, stop
strings, echo, errors, and a client that goes away."""
import json
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from harness import DEVICE, E3, check, skip, smollm2

try:
    import openai
except ImportError:
    skip("the openai client could not be fetched")
import torch
import transformers

torch.set_num_threads(2)
folder = smollm2()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


ports = [free_port() for _ in range(3)]
log = tempfile.NamedTemporaryFile("w+", suffix=".log")
server = subprocess.Popen([str(E3.parent / "e3-rollout-server"), "--listen", f"127.0.0.1:{ports[0]}", "--metrics", f"127.0.0.1:{ports[1]}",
                           "--http", f"127.0.0.1:{ports[2]}", "--model", str(folder), "--kv-cache-mib", "256", *DEVICE], stderr=log)
base = f"http://127.0.0.1:{ports[2]}"


def metric(name):
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/metrics") as reply:
        return next(float(line.split()[-1]) for line in reply.read().decode().splitlines() if line.startswith(name + " "))


def post(path, body):
    request = urllib.request.Request(base + path, body if isinstance(body, bytes) else json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


try:
    for _ in range(300):
        try:
            urllib.request.urlopen(base + "/health", timeout=5)
            break
        except OSError:
            if server.poll() is not None:
                check(False, "the server starts")
            time.sleep(0.1)
    client = openai.OpenAI(base_url=base + "/v1", api_key="none", timeout=120, max_retries=0)
    models = client.models.list().data
    check(len(models) == 1, f"one model: {models[0].id}")
    model = models[0].id

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def logprobs(ids):
        with torch.no_grad():
            return torch.log_softmax(reference(torch.tensor([ids])).logits[0], -1)

    # Completions: greedy, with echo and log-probabilities, as evaluation harnesses ask for a text's likelihood.
    prompt = "The capital of France is"
    ids = tokenizer(prompt)["input_ids"]
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=16, temperature=0, logprobs=3, echo=True)
    choice = whole.choices[0]
    check(choice.text.startswith(prompt) and choice.finish_reason == "length", f"echo: {choice.text!r}")
    lp = choice.logprobs
    check(whole.usage.prompt_tokens == len(ids) and whole.usage.completion_tokens == 16 and len(lp.tokens) == len(ids) + 16, "usage and tokens")
    check("".join(lp.tokens) == choice.text and lp.text_offset[3] == len("".join(lp.tokens[:3])), "the tokens are the text")
    full = tokenizer(choice.text)["input_ids"]
    if full == ids + full[len(ids):]:
        expected = logprobs(full)
        worst = max(abs(expected[i - 1, full[i]].item() - lp.token_logprobs[i]) for i in range(1, len(full)))
        check(lp.token_logprobs[0] is None and worst < 5e-5, f"log-probabilities of prompt and response are transformers': {worst:.1e}")
    check(all(len(t) in (3, 4) for t in lp.top_logprobs[1:]), "three most likely tokens, and the drawn one")
    scored = client.completions.create(model=model, prompt=ids, max_tokens=0, logprobs=1, echo=True, temperature=0)
    check(scored.choices[0].logprobs.token_logprobs == lp.token_logprobs[:len(ids)], "a prompt alone, given as token ids, has the same bits")

    # Streams say the same as whole answers; seeds make both the same.
    kwargs = dict(model=model, prompt=["Once upon a time", "def add(a, b):"], max_tokens=24, temperature=0.8, n=2, seed=7)
    answer = client.completions.create(**kwargs)
    parts = {}
    for chunk in client.completions.create(stream=True, stream_options={"include_usage": True}, **kwargs):
        for c in chunk.choices:
            parts[c.index] = parts.get(c.index, "") + c.text
        usage = chunk.usage
    check([c.text for c in answer.choices] == [parts[i] for i in range(4)] and len(set(parts.values())) == 4, "streamed and whole are the same four texts")
    check(usage.completion_tokens == answer.usage.completion_tokens, "usage at the end of the stream")

    # Chat.
    messages = [{"role": "user", "content": "Name the three primary colours."}]
    chat = client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0, logprobs=True, top_logprobs=2)
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    check(chat.usage.prompt_tokens == len(rendered), "the chat template is transformers'")
    content = chat.choices[0].logprobs.content
    first = logprobs(rendered)[-1]
    check(abs(first.max().item() - content[0].logprob) < 5e-5 and len(content[0].top_logprobs) == 2, "chat log-probabilities")
    streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model=model, messages=messages, max_tokens=32, temperature=0, stream=True))
    check(streamed == chat.choices[0].message.content, f"streamed chat: {streamed[:40]!r}")

    # A stop string ends the text in front of it, also where it spans tokens and where it is streamed.
    text = client.completions.create(model=model, prompt=prompt, max_tokens=40, temperature=0).choices[0].text
    stop = text[12:19]
    for stream in (False, True):
        r = client.completions.create(model=model, prompt=prompt, max_tokens=40, temperature=0, stop=[stop, "never there"], stream=stream)
        choices = [c.choices[0] for c in r] if stream else r.choices
        got, reason = "".join(c.text for c in choices), choices[-1].finish_reason
        check(got == text[:text.index(stop)] and reason == "stop", f"stop string {stop!r}, stream={stream}")

    # Before min_tokens a stop string is text, and the text goes on to the first one behind.
    space = client.completions.create(model=model, prompt=prompt, max_tokens=40, temperature=0, stop=" ", extra_body={"min_tokens": 12})
    early = client.completions.create(model=model, prompt=prompt, max_tokens=11, temperature=0).choices[0].text
    check(space.choices[0].text.startswith(early) and space.choices[0].finish_reason == "stop" and space.usage.completion_tokens >= 12
          and text.startswith(space.choices[0].text), f"min_tokens and stop: {space.choices[0].text!r}")

    # Characters of several tokens: the bytes of the tokens are the bytes of the text.
    emoji = client.completions.create(model=model, prompt="naïve 🤖🦜 日本", max_tokens=1, temperature=0, logprobs=2, echo=True)
    lp = emoji.choices[0].logprobs
    raw = b"".join(bytes(int(x, 16) for x in t[6:].split("\\x")[1:]) if t.startswith("bytes:") else t.encode() for t in lp.tokens)
    check(raw.decode(errors="replace") == emoji.choices[0].text and any(t.startswith("bytes:") for t in lp.tokens), f"parts of characters: {lp.tokens}")
    check(all(emoji.choices[0].text[o:].startswith(t) for o, t in zip(lp.text_offset, lp.tokens) if not t.startswith("bytes:")), "offsets count characters")
    chat = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say 🤖🦜"}], max_tokens=24, temperature=0, logprobs=True, top_logprobs=2)
    raw = b"".join(bytes(t.bytes) for t in chat.choices[0].logprobs.content)
    check(chat.choices[0].message.content in raw.decode(errors="replace"), "bytes of a chat's tokens")

    # Log-probabilities do not depend on the temperature; top_p 0 is greedy.
    hot = client.completions.create(model=model, prompt=prompt, max_tokens=1, temperature=1.7, seed=3, logprobs=5)
    cold = client.completions.create(model=model, prompt=prompt, max_tokens=1, temperature=0.2, seed=3, logprobs=5)
    shared = set(hot.choices[0].logprobs.top_logprobs[0]) & set(cold.choices[0].logprobs.top_logprobs[0])
    check(len(shared) >= 5 and all(hot.choices[0].logprobs.top_logprobs[0][t] == cold.choices[0].logprobs.top_logprobs[0][t] for t in shared),
          "log-probabilities at two temperatures are the same")
    greedy = client.completions.create(model=model, prompt=prompt, max_tokens=12, temperature=1, top_p=0).choices[0].text
    check(greedy == text[:len(greedy)], "top_p 0 is greedy")
    check(hot.system_fingerprint.endswith("/step-0"), f"the weights that answered: {hot.system_fingerprint}")

    # Errors say what is wrong.
    for body, param in (({"prompt": "x", "max_tokenz": 1}, "max_tokenz"), ({"prompt": "x", "temperature": -1}, "temperature"), ({"max_tokens": 3}, "prompt"),
                        ({"prompt": "x", "logit_bias": {"a": 1}}, "logit_bias"), ({"prompt": [[1, -2]]}, "prompt"), ({"prompt": "x", "presence_penalty": 1}, "presence_penalty")):
        code, reply = post("/v1/completions", body)
        check(code == 400 and reply["error"]["param"] == param, f"400: {reply['error']['message']}")
    for body in (b"{", b"[]", b'{"prompt": "x", "max_tokens": 100000}', b'{"prompt": [[999999]]}', b'{"prompt": ' + b"[" * 1000000 + b"]" * 1000000 + b"}",
                 b'{"prompt": "x", "min_tokens": 1, "stop_token_ids": [4000000000]}', b'{"prompt": ["a", "b", "c"], "n": 1024, "best_of": 1024, "stop": "x", "max_tokens": 3000000}',
                 json.dumps({"prompt": ["x"] * 100, "n": 100, "best_of": 100}).encode(), json.dumps({"prompt": [[1]] * 63 + [[1] * 9000]}).encode()):
        code, reply = post("/v1/completions", body)
        check(code == 400 and reply["error"]["message"], f"400: {reply['error']['message']}")
    code, reply = post("/v1/chat/completions", {"messages": [{"content": "no role"}]})
    check(code == 400, f"400: {reply['error']['message']}")
    check(post("/v1/nothing", {})[0] == 404, "404")

    # A client that goes away before its first token, behind others that fill the engine, is not computed for.
    body = json.dumps({"prompt": "Once", "max_tokens": 1500, "n": 64, "best_of": 64, "logit_bias": {"2": -100, "0": -100}}).encode()
    def ask(body):
        s = socket.create_connection(("127.0.0.1", ports[2]))
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        return s
    def settles(name, value):
        for _ in range(100):
            if metric(name) == value:
                return True
            time.sleep(0.1)
        return False
    crowd = [ask(body) for _ in range(10)]  # 640 samples, of which 512 run at once
    for _ in range(200):
        if metric("e3_rollout_running") > 0 and metric("e3_rollout_waiting") > 0:
            break
        time.sleep(0.1)
    check(metric("e3_rollout_running") > 0 and metric("e3_rollout_waiting") > 0, "a crowd runs and waits")
    for s in crowd:
        s.close()
    check(settles("e3_rollout_running", 0) and settles("e3_rollout_waiting", 0), "gone before an answer: nothing runs, nobody waits")

    # One that does not read for long gets everything in the end.
    s = ask(json.dumps({"prompt": "Once", "max_tokens": 600, "stream": True, "logprobs": 5, "temperature": 1, "seed": 1, "logit_bias": {"2": -100, "0": -100}}).encode())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    time.sleep(9)
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        part = s.recv(1 << 16)
        check(len(part) > 0, "the stream goes on") if not part else None
        received += part
    s.close()
    check(b"data: [DONE]" in received and received.count(b'"text"') > 500, "a slow reader loses nothing")

    # The port is had by one server.
    second = subprocess.run([str(E3.parent / "e3-rollout-server"), "--listen", f"127.0.0.1:{free_port()}", "--metrics", f"127.0.0.1:{free_port()}",
                             "--http", f"127.0.0.1:{ports[2]}"], stderr=subprocess.PIPE, timeout=60)
    check(second.returncode != 0 and b"--http" in second.stderr, f"a second server says: {second.stderr.decode().strip()[-120:]}")

    # A client that goes away takes back what it asked for; others go on meanwhile.
    stream = client.completions.create(model=model, prompt="Once", max_tokens=4000, temperature=1, stream=True, logit_bias={"2": -100, "0": -100})
    for _, _ in zip(range(5), stream):
        pass
    check(metric("e3_rollout_running") == 1, "a long completion runs")
    stream.close()
    for _ in range(100):
        if metric("e3_rollout_running") == 0 and metric("e3_rollout_kv_blocks_used") == 0:
            break
        time.sleep(0.1)
    check(metric("e3_rollout_running") == 0 and metric("e3_rollout_kv_blocks_used") == 0, "closed: nothing runs, all blocks are free")
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(client.completions.create(model=model, prompt=f"Number {i}", max_tokens=8, seed=i))) for i in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check(len(results) == 24, "24 clients at once")
    with urllib.request.urlopen(base + "/trace") as reply:
        check(len(json.load(reply)["traceEvents"]) > 100, "the trace of steps")
    check(metric("e3_rollout_prefix_hit_tokens_total") > 0, "prompts were found in the prefix cache")
    stream = client.completions.create(model=model, prompt="Once", max_tokens=4000, temperature=1, stream=True, logit_bias={"2": -100, "0": -100})
    next(iter(stream))
    server.terminate()
    check(server.wait(timeout=20) == 0, "SIGTERM ends the server, also in the middle of a stream")
finally:
    server.kill()
    log.seek(0)
    print(log.read()[-1500:])
