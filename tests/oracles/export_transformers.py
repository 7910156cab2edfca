#!/usr/bin/env python3
"""Compares the model that transformers loads from our folders (python/softpick_llama) with this library.

Needs from PyPI: torch, transformers (4.52 or later), safetensors, numpy.  Run:

    python3 tests/oracles/export_transformers.py build/release/softpick build/release/libsoftpick.so

Random models of each kind of attention and with each feature are saved, written once more by `softpick convert`, and
opened by transformers: without trust_remote_code that must fail, with it the logits must be ours (tests/oracles/logits.py)
and generate() must continue a prompt as `softpick generate` would, with caches that grow and caches of fixed size.  Last,
one model is written by `--to llama --as-softmax`: then transformers' own LLaMA must compute what ours does with softmax.
Exit status: 0 all agree, 1 not.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests" / "oracles")]

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM  # noqa: E402

from logits import BOUND, LLAMA3, SMALL, Softpick, compare, random_tokens, their_logits  # noqa: E402
from softpick_llama.configuration_softpick_llama import SoftpickLlamaConfig  # noqa: E402
from softpick_llama.modeling_softpick_llama import SoftpickLlamaForCausalLM  # noqa: E402

AUTO_MAP = {
    "AutoConfig": "configuration_softpick_llama.SoftpickLlamaConfig",
    "AutoModelForCausalLM": "modeling_softpick_llama.SoftpickLlamaForCausalLM",
}
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
FLOAT32 = {"dtype" if VERSION >= (4, 56) else "torch_dtype": torch.float32}
CASES = {
    "softpick": dict(attention_function="softpick"),
    "softpick-lambda-eps": dict(attention_function="softpick", softpick_lambda=0.25, softpick_eps=1e-3),
    "softpick-row-factor": dict(attention_function="softpick", attention_row_factor=True),
    "softpick-window": dict(attention_function="softpick", sliding_window=11),
    "softpick-qk-norm": dict(attention_function="softpick", qk_norm=True, qk_norm_eps=1e-5, qkv_bias=True),
    "softpick-llama3": dict(attention_function="softpick", head_dim=32, rope_theta=1e4, rope_scaling=LLAMA3),
    "softmax-row-factor": dict(attention_function="softmax", attention_row_factor=True, tie_word_embeddings=True),
    "softmax-plus-one": dict(attention_function="softmax_plus_one", attention_bias=True, mlp_bias=True),
    "softmax-sink": dict(attention_function="softmax_sink"),
    "rectified": dict(attention_function="rectified", num_key_value_heads=6),
}


def random_model(name):
    config = SoftpickLlamaConfig(**{**SMALL, **CASES[name]}, auto_map=AUTO_MAP)
    torch.manual_seed(sum(map(ord, name)))
    model = SoftpickLlamaForCausalLM(config).eval()
    with torch.no_grad():
        for tensor in dict(model.named_parameters()).values():
            if tensor.dim() == 2:
                tensor.normal_(0, 1.5 / tensor.shape[1] ** 0.5)
            else:
                tensor.add_(0.3 * torch.randn_like(tensor))
    return model


def refused(loader, folder):
    try:
        loader.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError):
        return True
    return False


def greedy_by_logits(model, tokens, n):
    """Without a cache."""
    tokens = list(tokens)
    for _ in range(n):
        tokens.append(int(their_logits(model, tokens)[-1].argmax()))
    return tokens


def generates(model, tokens):
    wanted = greedy_by_logits(model, tokens, 24)
    settings = dict(max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    for cache in ("dynamic", "static"):
        if cache == "static" and model.config.sliding_window:
            continue  # transformers gives windows a ring, whose keys lie in another order
        ids = model.generate(torch.tensor([tokens]), cache_implementation=cache, **settings)[0].tolist()
        if ids != wanted:
            return False
    padded = torch.tensor([[0] * 5 + tokens, random_tokens(5, SMALL["vocab_size"], 8) + tokens])
    mask = torch.ones_like(padded)
    mask[0, :5] = 0
    ids = model.generate(padded, attention_mask=mask, **settings)[0, 5:].tolist()
    return ids == wanted


def check(name, tool, softpick, parent):
    """Complaints about one model."""
    saved, folder = parent / f"{name}-saved", parent / name
    random_model(name).save_pretrained(saved)
    subprocess.run([tool, "convert", saved, "--out", folder], check=True, stderr=subprocess.DEVNULL)
    for loader in (AutoConfig, AutoModel, AutoModelForCausalLM):
        if not refused(loader, folder):
            yield f"{loader.__name__} opens it without trust_remote_code"
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **FLOAT32).eval()
    tokens = random_tokens(120, SMALL["vocab_size"], 3)
    for opened in (saved, folder):
        worst = compare(softpick, opened, their_logits(model, tokens), tokens)
        if worst > BOUND:
            yield f"{opened.name}: {worst:.2e} of the range of the logits"
    if not generates(model, tokens[:30]):
        yield "generate() differs from the logits"
    try:
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, attn_implementation="sdpa")
        yield "attn_implementation sdpa is accepted"
    except ValueError:
        pass


def check_as_softmax(tool, softpick, parent):
    source, folder = parent / "softpick-saved", parent / "as-softmax"
    command = [tool, "convert", source, "--to", "llama", "--out", folder]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0:
        yield "a softpick model is written as LLaMA without being asked twice"
    subprocess.run(command + ["--as-softmax"], check=True, stderr=subprocess.DEVNULL)
    model = AutoModelForCausalLM.from_pretrained(folder, **FLOAT32).eval()
    tokens = random_tokens(120, SMALL["vocab_size"], 3)
    worst = compare(softpick, folder, their_logits(model, tokens), tokens)
    if worst > BOUND:
        yield f"{worst:.2e} of the range of the logits"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    tool, softpick, failed = sys.argv[1], Softpick(sys.argv[2]), 0
    with tempfile.TemporaryDirectory() as temporary:
        parent = pathlib.Path(temporary)
        jobs = {name: lambda name=name: check(name, tool, softpick, parent) for name in CASES}
        jobs["as-softmax"] = lambda: check_as_softmax(tool, softpick, parent)
        for name, job in jobs.items():
            complaints = list(job())
            failed += bool(complaints)
            print(f"{name:22} {'; '.join(complaints) or 'agrees'}")
    print(f"transformers {transformers.__version__}: {len(jobs) - failed} of {len(jobs)} agree")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
