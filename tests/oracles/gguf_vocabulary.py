#!/usr/bin/env python3
"""Vocabularies in the GGUF files that `softpick convert` writes, against llama.cpp's own tokenizer.

Needs from PyPI: xllamacpp (llama.cpp, built), numpy.  Run:

    python3 tests/oracles/gguf_vocabulary.py build/release [--data FOLDER]

For each kind of tokenizer in FOLDER/tokenizer (default ../shared/data) a small random model gets a GGUF file; llama.cpp
must then make the same tokens of every line of FOLDER/tokenizer/llamacpp-vectors/*.inp and of random text as this library
does with the original file, and as this library does with the GGUF file.  Known differences of llama.cpp's own are counted
and may be at most --rare of the texts (default 0.002).  Exit status: 0 all agree, 1 not.
"""

import argparse
import ctypes
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import urllib.request

import numpy
import xllamacpp

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Not among them: models of sentencepiece that rewrite texts first (stories/tok512.model), for which GGUF has no words and
# convert has a warning.
TOKENIZERS = {
    "stories .bin": "stories/tok512.bin",
    "llama2 .model": "llama2/tokenizer.model",
    "llama2 .json": "llama2/tokenizer.json.zst",
    "mistral .model": "mistral/tokenizer.model.v1",
    "gpt2 .json": "gpt2/tokenizer.json.zst",
    "gpt-neox .json": "gpt-neox/tokenizer.json.zst",
    "smollm2 .json": "smollm2/tokenizer.json.zst",
    "gpt2 .gguf": "llamacpp-vectors/ggml-vocab-gpt-2.gguf.zst",
    "llama2 .gguf": "llamacpp-vectors/ggml-vocab-llama-spm.gguf",
}
WIDTH, HEADS = 8, 2


class Tokens(ctypes.Structure):
    _fields_ = [("items", ctypes.POINTER(ctypes.c_int32)), ("n", ctypes.c_int64)]


class Ours:
    """A tokenizer of libsoftpick.so."""

    def __init__(self, library, path):
        self.calls, self.handle = library, ctypes.c_void_p()
        self.check(library.sp_tokenizer_open(ctypes.byref(self.handle), str(path).encode()))
        library.sp_tokenizer_vocabulary.restype = ctypes.c_int64
        self.vocabulary = library.sp_tokenizer_vocabulary(self.handle)

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.calls.sp_last_message().decode())

    def encode(self, text):
        raw, items, n = text.encode(), ctypes.POINTER(ctypes.c_int32)(), ctypes.c_int64()
        size = ctypes.c_int64(len(raw))
        self.check(self.calls.sp_tokenizer_encode(self.handle, raw, size, ctypes.byref(items), ctypes.byref(n)))
        return items[: n.value]


def write_model(folder, vocabulary):
    """A LLaMA of one layer; what it computes does not matter."""
    shapes = {"model.embed_tokens.weight": (vocabulary, WIDTH), "model.norm.weight": (WIDTH,)}
    layer = {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,), "mlp.down_proj": (WIDTH, 16)}
    layer.update({f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"})
    layer.update({f"mlp.{name}_proj": (16, WIDTH) for name in ("gate", "up")})
    shapes.update({f"model.layers.0.{name}.weight": shape for name, shape in layer.items()})
    header, data = {}, b""
    for name, shape in shapes.items():
        bytes_ = numpy.full(shape, 0.01, numpy.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = dict(model_type="llama", vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=16)
    config.update(num_hidden_layers=1, num_attention_heads=HEADS, tie_word_embeddings=True, rms_norm_eps=1e-5)
    config.update(max_position_embeddings=4096, bos_token_id=None, eos_token_id=None)
    (folder / "config.json").write_text(json.dumps(config))


class LlamaCpp:
    def __init__(self, path):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.verbosity = 64, 1, False, -1
        self.server = xllamacpp.Server(parameters)

    def encode(self, text):
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(
            self.server.listening_address + "/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]


def texts_of(data):
    for path in sorted((data / "tokenizer/llamacpp-vectors").glob("*.inp")):
        for text in path.read_text().split("\n__ggml_vocab_test__\n"):
            yield text
    draw = random.Random(6)
    words = (data.parent / "data/ckpt/stories260K.golden.txt").read_text().split()
    letters = "aeioubcdfgh  \n\tßé中国☃🦙0123456789'.,!?-_()\u00a0\u2028"
    for _ in range(400):
        yield " ".join(draw.choice(words) for _ in range(draw.randrange(12)))
        yield "".join(draw.choice(letters) for _ in range(draw.randrange(40)))


def unpacked(path, folder):
    if path.suffix != ".zst":
        return path
    out = folder / path.stem
    subprocess.run(["zstd", "-dqf", path, "-o", out], check=True)
    return out


def compare(build, library, path, texts, folder):
    """Texts that differ: from llama.cpp, from ourselves with the GGUF file."""
    folder.mkdir()
    source = unpacked(path, folder)
    ours = Ours(library, source)
    write_model(folder / "model", ours.vocabulary + 3)  # a model's vocabulary may be longer
    command = [build / "softpick", "convert", folder / "model", "--tokenizer", source, "--to", "gguf"]
    subprocess.run([*command, "--out", folder / "model.gguf"], check=True)
    theirs, again = LlamaCpp(folder / "model.gguf"), Ours(library, folder / "model.gguf")
    wrong, other = [], []
    for text in filter(None, texts):
        ids = ours.encode(text)
        if ids != theirs.encode(text):
            wrong.append(text)
        if ids != again.encode(text):
            other.append(text)
    return wrong, other


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--rare", type=float, default=0.002)
    arguments = parser.parse_args()
    library, failed = ctypes.CDLL(str(arguments.build / "libsoftpick.so")), 0
    library.sp_last_message.restype = ctypes.c_char_p
    texts = list(texts_of(arguments.data))
    with tempfile.TemporaryDirectory() as temporary:
        for name, file in TOKENIZERS.items():
            folder = pathlib.Path(temporary) / name.replace(" ", "")
            wrong, other = compare(arguments.build, library, arguments.data / "tokenizer" / file, texts, folder)
            bad = len(wrong) > arguments.rare * len(texts) or other
            failed += bool(bad)
            first = f": {(wrong or other)[0]!r}" if wrong or other else ""
            print(f"{name:16} {len(texts)} texts, {len(wrong)} not as llama.cpp, {len(other)} not by the file{first}", flush=True)
    print("all agree" if failed == 0 else f"{failed} tokenizers FAILED")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
