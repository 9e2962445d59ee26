"""Public chat templates through ours and transformers', and what is trained of conversations beside what TRL's training templates mark.

    venv/bin/pip install jinja2 transformers && venv/bin/pip download --no-deps trl && unzip trl-*.whl 'trl/chat_templates/*'
    cargo build --release --workspace --examples
    venv/bin/python xtask/checks/template_check.py FOLDER_OF_TEMPLATES [--show NAME]

Every `NAME.jinja` renders sixteen kinds of conversations, and those of `xtask/goldens/prompts.py`; where there is a `NAME_training.jinja`, its `{% generation %}` parts of a conversation
of two turns are compared with what ours trains with the plain template.
"""

import argparse
import copy
import datetime
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter

from transformers.utils import chat_template_utils

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "goldens"))
import prompts  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release")
parser.add_argument("--show", default="")
options = parser.parse_args()
ours = subprocess.Popen([f"{options.target}/examples/chats"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
NAMED = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(1_722_000_000, datetime.timezone.utc)


chat_template_utils.datetime = Fixed

U, A, S = (lambda text, **more: {"role": "user", "content": text, **more}, lambda text, **more: {"role": "assistant", "content": text, **more},
           lambda text: {"role": "system", "content": text})
TOOLS = [{"type": "function", "function": {"name": "clock", "description": "Tells the time", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "description": "A zone"}}, "required": ["zone"]}}}]
CALL = [{"id": "call00001", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}]
RESULT = {"role": "tool", "content": "12:00", "tool_call_id": "call00001", "name": "clock"}
CONVERSATIONS = {
    "one": ([U("hi")], None), "two": ([U("hi"), A("ho")], None), "four": ([U("hi"), A("ho"), U("hum"), A("hey")], None),
    "system": ([S("be brief"), U("hi")], None), "system, four": ([S("be"), U("hi"), A("ho"), U("hum"), A("hey")], None),
    "spaces": ([U(" hi \n"), A("\n ho ")], None), "letters": ([U("é🦀<>&\"'"), A("{{ x }} {% y %}")], None),
    "thought": ([U("hi"), A("<think>\nhm\n</think>\n\nho"), U("x"), A("<think>\nmm\n</think>\n\ny")], None),
    "reasoning": ([U("hi"), A("ho", reasoning_content="hm"), U("x"), A("y", reasoning_content="mm")], None),
    "parts": ([U([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), A("ho")], None),
    "tools": ([U("hi")], TOOLS), "call": ([U("when"), A("", tool_calls=CALL)], TOOLS),
    "call and result": ([U("when"), A("", tool_calls=CALL), RESULT, A("noon")], TOOLS),
    "call with text": ([U("when"), A("I look.", tool_calls=CALL), RESULT, A("noon"), U("thanks"), A("welcome")], TOOLS),
    "no text": ([U("when"), A(None, tool_calls=CALL), RESULT], TOOLS), "long": ([U("x" * 300), A("y" * 300)] * 3, None),
}


def ask(template, messages, tools):
    conversation = {"messages": messages, "tools": tools} if tools else messages
    ours.stdin.write(json.dumps({"template": template, "tokens": NAMED, "conversation": conversation}) + "\n")
    ours.stdin.flush()
    return json.loads(ours.stdout.readline())


def theirs(template, messages, tools, prompt=False, mask=False):
    # As `apply_chat_template` does before it renders.
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    rendered, marks = chat_template_utils.render_jinja_template(
        [copy.deepcopy(messages)], tools=copy.deepcopy(tools), chat_template=template, add_generation_prompt=prompt,
        return_assistant_tokens_mask=mask, **NAMED)
    return rendered[0], marks[0] if mask else []


counts, listed = Counter(), []
for path in sorted(options.folder.glob("*.jinja")):
    if path.stem.endswith("_training"):
        continue
    template = path.read_text()
    for kind, (messages, tools) in CONVERSATIONS.items():
        found = ask(template, messages, tools)
        try:
            expected = theirs(template, messages, tools)[0], theirs(template, messages, tools, prompt=True)[0]
        except Exception as error:  # noqa: BLE001: whatever the reference refuses
            counts["text: the reference refuses" + ("" if "error" in found else ", ours answers")] += 1
            continue
        if "error" in found:
            counts["text: refused here"] += 1
            listed.append(f"refused {path.stem} {kind}: {found['error'][:160]}")
        elif (found["text"], found["prompted"]) == expected:
            counts["text: same"] += 1
        else:
            counts["text: different"] += 1
            listed.append(f"DIFFERENT {path.stem} {kind}:\n  {found['text'][-300:]!r}\n  {expected[0][-300:]!r}")
    for kind, messages, tools, prompt, others in prompts.CASES:
        ours.stdin.write(json.dumps({"template": template, "tokens": prompts.TOKENS, "input": {"prompt": prompt, "others": others},
                                     "conversation": {"messages": messages, "tools": tools or []}}) + "\n")
        ours.stdin.flush()
        found, expected = json.loads(ours.stdout.readline()), prompts.render(template, messages, tools, prompt, others)
        verdict = ("same" if found.get("text") == expected else "the reference refuses, ours answers" if expected is None
                   else "refused here" if "error" in found else "different")
        counts["prompts: " + verdict] += 1
        if verdict == "refused here":
            listed.append(f"refused {path.stem} {kind}: {found['error'][:160]}")
        if verdict == "different":
            listed.append(f"DIFFERENT {path.stem} {kind}:\n  {found['text'][-300:]!r}\n  {expected[-300:]!r}")
    training = path.with_name(path.stem + "_training.jinja")
    if not training.exists():
        continue
    for kind in ("two", "four", "system, four", "reasoning", "call and result"):
        messages, tools = CONVERSATIONS[kind]
        found = ask(template, messages, tools)
        try:
            text, marks = theirs(training.read_text(), messages, tools, mask=True)
        except Exception:  # noqa: BLE001
            counts["trained: TRL refuses"] += 1
            continue
        if "error" in found:
            counts["trained: refused here"] += 1
            continue
        trained = [text[start:end] for start, end in marks]
        mine = [piece for _, pieces in found["documents"] for piece in pieces]
        stripped = [piece.rstrip("\n") for piece in trained], [piece.rstrip("\n") for piece in mine]
        verdict = "same" if trained == mine else "same but for line ends after the turn" if stripped[0] == stripped[1] else "other"
        counts["trained: " + verdict] += 1
        if verdict == "other":
            listed.append(f"trained {path.stem} {kind}, {len(found['documents'])} documents:\n  ours {mine}\n  TRL  {trained}")
        if options.show and options.show == path.stem:
            listed.append(f"show {path.stem} {kind}: {len(found['documents'])} documents\n  ours {mine}\n  TRL  {trained}")
print("\n".join(listed))
print(dict(counts), "of", sum(counts.values()))
raise SystemExit(bool(counts["text: different"] + counts["prompts: different"]))
