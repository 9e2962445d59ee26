"""Models go to transformers and come from it unchanged.

    pip install torch transformers peft
    cargo build --release && cargo build --release -p narthex-model --example logits
    python xtask/checks/transformers_check.py --project examples/bard --model bard --chat bard-chat

Exports two models of a project, loads them with AutoModelForCausalLM and AutoTokenizer and compares
logits (f32, within 1e-4), token ids and the rendered chat template; puts the tuned model's adapter on
the base with PEFT and compares with the merged weights. Then makes random Llamas
(grouped-query, tied, untied, sharded, bf16), imports them, and compares likewise.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release")
parser.add_argument("--project", default="examples/bard")
parser.add_argument("--model", default="bard")
parser.add_argument("--chat", default="bard-chat")
options = parser.parse_args()
failures = 0


def narthex(*arguments):
    return subprocess.run([f"{options.target}/narthex", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail)


def compare_logits(name, folder, tokens):
    asked = json.dumps({"folder": str(folder), "tokens": tokens}) + "\n"
    ours = subprocess.run([f"{options.target}/examples/logits"], input=asked, check=True, capture_output=True, text=True)
    ours = torch.tensor(json.loads(ours.stdout)["logits"])
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        theirs = model(torch.tensor(tokens)).logits.reshape(ours.shape)
    difference = (ours - theirs).abs().max().item()
    check(f"{name}: logits", difference < 1e-4, f"largest difference {difference:.2e} of {theirs.abs().max().item():.2f}")
    return model


print(f"torch {torch.__version__}, transformers {transformers.__version__}")
with tempfile.TemporaryDirectory() as home:
    home = pathlib.Path(home)
    text = "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun. caffè \u4e2d\n"
    for name in [options.model, options.chat]:
        folder = home / name
        narthex("export", name, folder, "--project", options.project)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(text)["input_ids"]
        check(f"{name}: decode", tokenizer.decode(ids) == text)
        model = compare_logits(name, folder, [ids])
        # Greedy continuation through both.
        prompt = "ROMEO:\n"
        ours = json.loads(narthex("generate", folder, "--prompt", prompt, "--temperature", 0, "--max-tokens", 40, "--json"))["text"]
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            theirs = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1]:]
        check(f"{name}: greedy continuation of 40 tokens", tokenizer.decode(theirs, skip_special_tokens=True) == ours, repr(ours[:40]))
    from peft import PeftModel

    with torch.no_grad():
        sequence = torch.tensor([tokenizer(text)["input_ids"]])
        merged = model(sequence).logits
        base = AutoModelForCausalLM.from_pretrained(home / options.model, dtype=torch.float32).eval()
        plain = base(sequence).logits
        adapted = PeftModel.from_pretrained(base, home / options.chat / "adapter").eval()(sequence).logits
    difference = (adapted - merged).abs().max().item()
    check("adapter on the base through PEFT", difference < 1e-4 < (plain - merged).abs().max().item(), f"largest difference {difference:.2e}")
    messages = [{"role": "user", "content": "O Romeo!"}, {"role": "assistant", "content": "Ay me."}, {"role": "user", "content": "Speak\nagain."}]
    shown = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    server = subprocess.Popen([f"{options.target}/narthex", "serve", options.chat, "--project", options.project, "--port", "8391"], stderr=subprocess.PIPE, text=True)
    try:
        while "OpenAI API" not in server.stderr.readline():
            pass
        import urllib.request

        def post(path, body):
            request = urllib.request.Request(f"http://127.0.0.1:8391{path}", json.dumps(body).encode(), {"content-type": "application/json"})
            return json.load(urllib.request.urlopen(request))

        chat = post("/v1/chat/completions", {"model": options.chat, "messages": messages, "max_tokens": 20, "temperature": 0})
        plain = post("/v1/completions", {"model": options.chat, "prompt": ids, "max_tokens": 20, "temperature": 0})
        check("chat template: number of prompt tokens", chat["usage"]["prompt_tokens"] == len(ids), f"{len(ids)}")
        check("chat template: the answer to our rendering is the answer to theirs", chat["choices"][0]["message"]["content"] == plain["choices"][0]["text"])
        echoed = post("/v1/completions", {"model": options.chat, "prompt": shown, "max_tokens": 0, "echo": True, "logprobs": 1})
        check("text of the template gives the same ids", echoed["usage"]["prompt_tokens"] == len(ids))
    finally:
        server.terminate()
        server.wait()
    for name, changes, dtype, shard in [
        ("grouped-query, tied", dict(num_key_value_heads=2, tie_word_embeddings=True), torch.float32, "1GB"),
        ("grouped-query, untied", dict(num_key_value_heads=4, tie_word_embeddings=False), torch.float32, "1GB"),
        ("sharded", dict(num_key_value_heads=1, tie_word_embeddings=False), torch.float32, "500KB"),
        ("bf16", dict(num_key_value_heads=8, tie_word_embeddings=True, rope_theta=500000.0), torch.bfloat16, "1GB"),
    ]:
        torch.manual_seed(1)
        config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=344, num_hidden_layers=3, num_attention_heads=8, max_position_embeddings=256, initializer_range=0.1, **changes)
        folder = home / name.replace(", ", "-")
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=shard)
        tokenizer.save_pretrained(folder)
        shards = len(list(folder.glob("*.safetensors")))
        imported = home / "imports"
        imported.mkdir(exist_ok=True)
        narthex("import", folder, "--name", folder.name, "--license", "MIT", "--project", imported)
        back = home / f"back-{folder.name}"
        narthex("export", folder.name, back, "--project", imported)
        tokens = torch.randint(0, config.vocab_size, (2, 33)).tolist()
        compare_logits(f"import of a random Llama ({name}, {shards} file{'s' * (shards > 1)})", back, tokens)
print(f"{failures} failed")
sys.exit(failures > 0)
