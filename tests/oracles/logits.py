#!/usr/bin/env python3
"""Compares this library's logits in float32 with those of transformers, on random models of many shapes and on real ones.

Needs from PyPI: torch, transformers (4.50 or later), safetensors, numpy.  Run:

    python3 tests/oracles/logits.py build/release/libsoftpick.so [CHECKPOINT ...]

Each random model is saved by transformers (save_pretrained), opened by both, and compared at every position: by passes
over whole prefixes, and token by token with a cache.  It is opened again with the config keys of transformers 4 and of 5,
and cut into shards.  CHECKPOINT: folders of models that transformers opens, compared in the same way.  With --golden
FOLDER the small models that tests/test_model_golden.c reads are written there.

A comparison fails if the largest difference is above 1e-4 of the range of the logits.  Exit status: 0 all agree, 1 not.
"""

import argparse
import ctypes
import json
import pathlib
import shutil
import sys
import tempfile

import numpy
import torch
import transformers
from transformers import AutoModelForCausalLM

BOUND = 1e-4  # of the range of the logits
RELEASE = tuple(map(int, transformers.__version__.split(".")[:2]))


# ---- this library ----------------------------------------------------------------------------------------------------


class ModelOptions(ctypes.Structure):
    """sp_model_options"""

    _fields_ = [
        ("struct_bytes", ctypes.c_size_t),
        ("dtype", ctypes.c_int),
        ("training", ctypes.c_bool),
        ("seed", ctypes.c_uint64),
        ("device", ctypes.c_int32),
        ("recompute", ctypes.c_bool),
        ("attention", ctypes.c_char_p),
    ]


class Softpick:
    """libsoftpick.so"""

    def __init__(self, path):
        self.calls = ctypes.CDLL(path)
        self.calls.sp_model_options_default.restype = ModelOptions
        self.calls.sp_last_message.restype = ctypes.c_char_p
        self.calls.sp_cache_new.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_int64]
        self.calls.sp_model_decode.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_int32),
            ctypes.c_int64,
            ctypes.POINTER(ctypes.c_float),
        ]
        self.calls.sp_cache_free.argtypes = [ctypes.c_void_p]
        self.calls.sp_model_free.argtypes = [ctypes.c_void_p]

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.calls.sp_last_message().decode())

    def logits(self, folder, tokens, vocabulary, pieces):
        """(len(pieces), V): the logits after each piece of the tokens, given to one cache one after another."""
        model, cache = ctypes.c_void_p(), ctypes.c_void_p()
        options = self.calls.sp_model_options_default()
        self.check(self.calls.sp_model_open(ctypes.byref(model), str(folder).encode(), ctypes.byref(options)))
        out = numpy.full((len(pieces), vocabulary), numpy.nan, numpy.float32)
        try:
            self.check(self.calls.sp_cache_new(ctypes.byref(cache), model, len(tokens)))
            first = 0
            for row, n in zip(out, pieces):
                piece = (ctypes.c_int32 * n)(*tokens[first : first + n])
                address = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                self.check(self.calls.sp_model_decode(model, cache, piece, n, address))
                first += n
        finally:
            self.calls.sp_cache_free(cache)
            self.calls.sp_model_free(model)
        return out


# ---- comparisons -----------------------------------------------------------------------------------------------------


def their_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def difference(ours, theirs):
    """Largest difference, as a share of the range of the logits; infinite where something is not a number."""
    worst = numpy.abs(ours.astype(numpy.float64) - theirs).max() / (theirs.max() - theirs.min())
    return worst if numpy.isfinite(worst) else numpy.inf


def compare(softpick, folder, theirs, tokens):
    """At all positions token by token, and at those that end pieces of several tokens."""
    n, vocabulary = theirs.shape
    worst = difference(softpick.logits(folder, tokens, vocabulary, [1] * n), theirs)
    for pieces in ([n], [n // 2, n - n // 2], [n // 3, 17, 1, n - n // 3 - 18]):
        ends = numpy.cumsum(pieces) - 1
        worst = max(worst, difference(softpick.logits(folder, tokens, vocabulary, pieces), theirs[ends]))
    return worst


def as_transformers_4(folder):
    """config.json in the words of before version 5."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters", None) or config.get("rope_scaling") or {}
    config["rope_theta"] = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
    if rope.get("rope_type") == "linear":  # the words of before 4.45
        rope = {"type": "linear", "factor": rope["factor"]}
    config["rope_scaling"] = rope if rope.get("rope_type", rope.get("type", "default")) != "default" else None
    config["torch_dtype"] = config.pop("dtype", config.get("torch_dtype", "float32"))
    config.pop("layer_types", None)
    path.write_text(json.dumps(config))


def as_transformers_5(folder):
    """config.json in the words of version 5, also if an older one wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "rope_parameters" not in config:
        rope = config.pop("rope_scaling", None) or {}
        kind = rope.pop("rope_type", rope.pop("type", "default"))
        config["rope_parameters"] = {**rope, "rope_type": kind, "rope_theta": config.pop("rope_theta", 10000.0)}
        config["dtype"] = config.pop("torch_dtype", "float32")
    path.write_text(json.dumps(config))


# ---- random models ---------------------------------------------------------------------------------------------------

SMALL = dict(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
CASES = {  # those that this version of transformers knows are compared
    "llama": ("Llama", {}),
    "llama-all-heads": ("Llama", dict(num_key_value_heads=6)),
    "llama-one-key-head": ("Llama", dict(num_key_value_heads=1)),
    "llama-tied": ("Llama", dict(tie_word_embeddings=True)),
    "llama-biases": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "llama-head-width": ("Llama", dict(head_dim=20)),
    "llama-theta-eps": ("Llama", dict(rope_theta=500000.0, rms_norm_eps=1e-3)),
    "llama-linear": ("Llama", dict(rope_scaling=dict(rope_type="linear", factor=2.5))),
    "llama-llama3": ("Llama", dict(head_dim=32, rope_theta=10000.0, rope_scaling=LLAMA3)),
    "llama-eos-list": ("Llama", dict(eos_token_id=[2, 5, 9])),
    "mistral": ("Mistral", dict(sliding_window=None)),
    "mistral-window": ("Mistral", dict(sliding_window=11, head_dim=12)),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": (
        "Qwen2",
        dict(use_sliding_window=True, sliding_window=13, max_window_layers=0),
    ),
    "qwen3": ("Qwen3", dict(head_dim=16)),
    "qwen3-biases": ("Qwen3", dict(head_dim=16, attention_bias=True, tie_word_embeddings=True)),
}


def randomize(model):
    """Weights large enough for attention to be far from uniform; biases and norms away from 0 and 1."""
    with torch.no_grad():
        for tensor in dict(model.named_parameters()).values():
            if tensor.dim() == 2:
                tensor.normal_(0, 1.5 / tensor.shape[1] ** 0.5)
            else:
                tensor.add_(0.3 * torch.randn_like(tensor))
    return model


def random_model(name, **changes):
    maker, settings = CASES[name]
    config = getattr(transformers, maker + "Config")(**{**SMALL, **settings, **changes})
    config._attn_implementation = "eager"
    torch.manual_seed(sum(map(ord, name)))
    return randomize(getattr(transformers, maker + "ForCausalLM")(config).eval())


# ---- models that are not softmax, by the modelling file that softpick convert writes -------------------------------------

FAMILY = {
    "softpick": dict(attention_function="softpick"),
    "softpick-relu": dict(attention_function="softpick", softpick_lambda=0.0, softpick_eps=1e-3),
    "softpick-row-factor": dict(attention_function="softpick", attention_row_factor=True),
    "softpick-window-norms": dict(attention_function="softpick", sliding_window=11, qk_norm=True, qk_norm_eps=1e-5),
    "softpick-biases": dict(attention_function="softpick", qkv_bias=True, mlp_bias=True, head_dim=20),
    "softpick-llama3": dict(attention_function="softpick", head_dim=32, rope_scaling=LLAMA3),
    "softmax-row-factor": dict(attention_function="softmax", attention_row_factor=True),
    "softmax-plus-one": dict(attention_function="softmax_plus_one"),
    "softmax-sink": dict(attention_function="softmax_sink"),
    "rectified": dict(attention_function="rectified", tie_word_embeddings=True),
}


def random_of_family(name):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))
    from softpick_llama.configuration_softpick_llama import SoftpickLlamaConfig
    from softpick_llama.modeling_softpick_llama import SoftpickLlamaForCausalLM

    torch.manual_seed(sum(map(ord, name)))
    return randomize(SoftpickLlamaForCausalLM(SoftpickLlamaConfig(**{**SMALL, **FAMILY[name]})).eval())


def check_generation(model, tokens):
    """With a cache as without, alone and beside a padded neighbour."""
    with torch.no_grad():
        ids = torch.tensor([tokens])
        settings = dict(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None)
        cached = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **settings)
        plain = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **settings)
        padded = torch.tensor([[0] * 5 + tokens[:-5], tokens])
        mask = torch.ones_like(padded)
        mask[0, :5] = 0
        beside = model.generate(padded, attention_mask=mask, use_cache=True, **settings)
        alone = model.generate(ids[:, :-5], attention_mask=torch.ones_like(ids[:, :-5]), use_cache=True, **settings)
    same = torch.equal(cached, plain) and torch.equal(beside[1], cached[0]) and torch.equal(beside[0, 5:], alone[0])
    assert same, "generate() gives other tokens with a cache or beside padding"


def compare_family(softpick, name, parent):
    model = random_of_family(name)
    tokens = random_tokens(120, SMALL["vocab_size"], 3)
    folder = parent / name
    model.save_pretrained(folder)
    check_generation(model, tokens[:40])
    return compare(softpick, folder, their_logits(model, tokens), tokens)


def random_tokens(n, vocabulary, seed):
    return numpy.random.default_rng(seed).integers(0, vocabulary, n).tolist()


def compare_random(softpick, name, parent):
    model = random_model(name)
    tokens = random_tokens(120, SMALL["vocab_size"], 3)
    theirs = their_logits(model, tokens)
    worst = 0.0
    for words, rewrite in (("4", as_transformers_4), ("5", as_transformers_5)):
        folder = parent / f"{name}-{words}"
        model.save_pretrained(folder)
        rewrite(folder)
        worst = max(worst, compare(softpick, folder, theirs, tokens))
    folder = parent / f"{name}-shards"
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1, name
    return max(worst, compare(softpick, folder, theirs, tokens))


def compare_checkpoint(softpick, folder, remote_code):
    settings = {"dtype" if RELEASE >= (4, 56) else "torch_dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote_code, **settings).eval()
    tokens = random_tokens(200, model.config.vocab_size, 4)
    return compare(softpick, folder, their_logits(model, tokens), tokens)


# ---- files for the tests ---------------------------------------------------------------------------------------------

GOLDEN_SHAPE = dict(
    vocab_size=13,
    hidden_size=12,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
GOLDEN = {
    "llama-biases": dict(head_dim=8, eos_token_id=[2, 5]),
    "llama-linear": dict(tie_word_embeddings=True),
    "llama-llama3": dict(head_dim=8, rope_theta=100.0),  # its four angles: kept, blended, blended, divided
    "mistral-window": dict(head_dim=8),
    "qwen2": {},
    "qwen3": dict(head_dim=10),
}


def write_golden(parent):
    """A folder for each model: config.json and model.safetensors as transformers writes them, and golden.json.  The
    weights are stored as bf16; the logits are those of float32."""
    tokens = random_tokens(30, GOLDEN_SHAPE["vocab_size"], 5)
    for name, changes in GOLDEN.items():
        model = random_model(name, **GOLDEN_SHAPE, **changes)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.copy_(tensor.bfloat16())
        theirs = their_logits(model, tokens)
        folder = parent / name
        shutil.rmtree(folder, ignore_errors=True)
        model.bfloat16().save_pretrained(folder, max_shard_size="3KB" if name == "qwen2" else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        rows = [",".join(f"{value:.6g}" for value in row) for row in theirs.tolist()]
        text = '{"transformers":"%s",\n"tokens":%s,\n"logits":[\n[%s]\n]}\n' % (
            transformers.__version__,
            json.dumps(tokens, separators=(",", ":")),
            "],\n[".join(rows),
        )
        (folder / "golden.json").write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libsoftpick", help="libsoftpick.so")
    parser.add_argument("checkpoints", nargs="*", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the modelling files of CHECKPOINT")
    arguments = parser.parse_intermixed_args()
    transformers.utils.logging.disable_progress_bar()
    if arguments.golden:
        write_golden(arguments.golden)
    softpick = Softpick(arguments.libsoftpick)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        known = [name for name, (maker, _) in CASES.items() if hasattr(transformers, maker + "Config")]
        jobs = [(name, lambda name=name: compare_random(softpick, name, pathlib.Path(temporary))) for name in known]
        jobs += [(name, lambda name=name: compare_family(softpick, name, pathlib.Path(temporary))) for name in FAMILY]
        for folder in arguments.checkpoints:
            jobs.append(
                (str(folder), lambda f=folder: compare_checkpoint(softpick, f, arguments.trust_remote_code))
            )
        for name, job in jobs:
            worst = job()
            failed += worst > BOUND
            print(f"{name:24} {worst:.2e} of the range{'  TOO FAR' if worst > BOUND else ''}")
    print(f"transformers {transformers.__version__}: {len(jobs) - failed} of {len(jobs)} models agree")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
