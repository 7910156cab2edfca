"""Whole tokenizers against the originals: token by token, and back to text.

    python3 tests/oracles/tokenizer_ids.py BUILD [--data FOLDER] [--only NAME,...] [--bytes N] [--random N]

BUILD is a build folder with libsoftpick.so.  Originals are Hugging Face's tokenizers for files of the kind tokenizer.json and
sentencepiece for its models and what is made of them.  Texts are every line of FOLDER (default ../shared/data beside the
sources; at most N bytes of each file, default all), its test vectors, and N random Unicode strings (default 100000).
Needs from PyPI tokenizers==0.23.3, sentencepiece, transformers (it makes a tokenizer.json of a model and of tiktoken's ranks),
protobuf, and zstandard or the program zstd.  Exit code: 0 all is equal, 1 something differs.
"""

import argparse
import base64
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread on each side, so that the times compare
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import sentencepiece
from tokenizers import Tokenizer, processors

import random_text

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PLAIN, SPECIAL, TEMPLATE = 0, 1, 2
MODES = {PLAIN: "plain", SPECIAL: "special", SPECIAL | TEMPLATE: "special+template"}
BATCH = 20000


# ---- ours ----


class Tokens(ctypes.Structure):
    _fields_ = [("items", ctypes.POINTER(ctypes.c_int32)), ("n", ctypes.c_int64)]


class Ours:
    def __init__(self, library, path):
        self.calls, self.handle = library, ctypes.c_void_p()
        self.check(library.sp_tokenizer_open(ctypes.byref(self.handle), str(path).encode()))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.calls.sp_last_message().decode(errors="replace"))

    def encode(self, texts, flags):
        n = len(texts)
        raw = [text.encode() for text in texts]
        items = (ctypes.c_char_p * n)(*raw)
        sizes = (ctypes.c_int64 * n)(*map(len, raw))
        out = (Tokens * n)()
        start = time.perf_counter()
        self.check(self.calls.sp_tokenizer_encode_many(self.handle, items, sizes, ctypes.c_int64(n), flags, out))
        took = time.perf_counter() - start
        ids = [tokens.items[: tokens.n] for tokens in out]
        for tokens in out:
            self.calls.free(tokens.items)
        return ids, took

    def decode(self, ids):
        items = (ctypes.c_int32 * max(len(ids), 1))(*ids)
        text, n = ctypes.c_void_p(), ctypes.c_int64()
        self.check(self.calls.sp_tokenizer_decode(self.handle, items, ctypes.c_int64(len(ids)), ctypes.byref(text), ctypes.byref(n)))
        found = ctypes.string_at(text, n.value)
        self.calls.free(text)
        return found

    def close(self):
        self.calls.sp_tokenizer_free(self.handle)


def open_library(build):
    library = ctypes.CDLL(str(pathlib.Path(build) / "libsoftpick.so"))
    library.sp_last_message.restype = ctypes.c_char_p
    for name in ("sp_tokenizer_free", "free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = None
    return library


# ---- the originals ----


class HuggingFace:
    modes = tuple(MODES)

    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokenizer.no_padding()  # as transformers does unless it is asked to pad or cut
        self.tokenizer.no_truncation()

    def encode(self, texts, flags):
        self.tokenizer.encode_special_tokens = not flags & SPECIAL
        start = time.perf_counter()
        found = self.tokenizer.encode_batch(texts, add_special_tokens=bool(flags & TEMPLATE))
        took = time.perf_counter() - start
        return [one.ids for one in found], took

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True).encode()


class SentencePiece:
    modes = (PLAIN,)

    def __init__(self, path):
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def encode(self, texts, flags):
        start = time.perf_counter()
        found = self.tokenizer.encode(texts, num_threads=1)
        return found, time.perf_counter() - start

    def decode(self, ids):
        return self.tokenizer.decode(ids).encode(errors="surrogateescape")


# ---- files ----


def unpacked(path, folder):
    """A .zst file unpacked; any other file where it is."""
    if path.suffix != ".zst":
        return path
    to = folder / f"{path.parent.name}-{path.stem}"
    subprocess.run(["zstd", "-dqf", str(path), "-o", str(to)], check=True)
    return to


def keeping_spaces(model, folder):
    """The model without the rule that drops spaces at ends and in rows: llama2.c's files do not tell of it."""
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    proto.ParseFromString(model.read_bytes())
    proto.normalizer_spec.remove_extra_whitespaces = False
    to = folder / f"{model.stem}-spaces.model"
    to.write_bytes(proto.SerializeToString())
    return to


def converted_model(model, folder, name):
    """The tokenizer.json that transformers makes of a sentencepiece model."""
    from transformers import LlamaTokenizerFast

    there = folder / name
    there.mkdir()
    (there / "tokenizer.model").write_bytes(model.read_bytes())
    tokenizer = LlamaTokenizerFast.from_pretrained(str(there))
    tokenizer.backend_tokenizer.save(str(folder / f"{name}.json"))
    return folder / f"{name}.json"


def converted_ranks(ranks, folder, name):
    """The tokenizer.json that transformers makes of tiktoken's ranks, with LLaMA-3's special tokens and template."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(path):
            lines = pathlib.Path(path).read_bytes().splitlines()
            return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}

    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
             "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
             "<|eot_id|>", "<|python_tag|>"]
    named += [f"<|reserved_special_token_{i}|>" for i in range(3, 248)]
    tokenizer = Converter(vocab_file=str(ranks), extra_special_tokens=named).converted()
    begin = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(single=f"{begin[0]} $A", pair=f"{begin[0]} $A {begin[0]}:1 $B:1", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer.save(str(folder / f"{name}.json"))
    return folder / f"{name}.json"


def cases(data, folder):
    """Name, what makes our file, what makes the original's file, and what reads that."""
    at = data / "tokenizer"

    def file(name):
        return lambda: unpacked(at / name, folder)

    def model(name, path):
        made = {}

        def make():
            if not made:
                made[0] = converted_model(at / path, folder, name)
            return made[0]

        return make

    def ranks():
        return converted_ranks(unpacked(at / "llama3/tokenizer.model.zst", folder), folder, "llama3")

    same = [("llama2-legacy-json", file("llama2/tokenizer.json.zst")), ("llama2-metaspace-json", file("llama2/tokenizer.metaspace.json.zst")),
            ("mistral-v1-json", model("mistral-v1", "mistral/tokenizer.model.v1")),
            ("mistral-v3-json", model("mistral-v3", "mistral/tokenizer.model.v3")), ("llama3-json", ranks),
            ("gpt2-json", file("gpt2/tokenizer.json.zst")), ("gpt-neox-json", file("gpt-neox/tokenizer.json.zst")),
            ("smollm2-json", file("smollm2/tokenizer.json.zst")), ("stories-json", model("stories", "stories/tok512.model"))]
    for name, make in same:
        yield name, make, make, HuggingFace
    models = [("llama2-model", "llama2/tokenizer.model", "llama2/tokenizer.model"), ("llama2-bin", "llama2/tokenizer.bin", "llama2/tokenizer.model"),
              ("mistral-v1-model", "mistral/tokenizer.model.v1", "mistral/tokenizer.model.v1"),
              ("mistral-v3-model", "mistral/tokenizer.model.v3", "mistral/tokenizer.model.v3"),
              ("stories-model", "stories/tok512.model", "stories/tok512.model"), ("llama2-gguf", "llamacpp-vectors/ggml-vocab-llama-spm.gguf", "llama2/tokenizer.model")]
    for name, mine, original in models:
        yield name, file(mine), file(original), SentencePiece
    yield "stories-bin", file("stories/tok512.bin"), lambda: keeping_spaces(at / "stories/tok512.model", folder), SentencePiece
    yield "gpt2-gguf", file("llamacpp-vectors/ggml-vocab-gpt-2.gguf.zst"), file("gpt2/tokenizer.json.zst"), HuggingFace


# ---- texts ----


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


def lines_of(path, most):
    """Lines of a file, or of all strings of a file of JSON lines; of .inp files the vectors."""
    if path.suffix == ".zst":
        raw = subprocess.run(["zstd", "-dqc", str(path)], capture_output=True, check=True).stdout
    else:
        raw = path.read_bytes()
    text = raw.decode("utf-8", errors="ignore")
    if path.suffix == ".inp":
        yield from text.split("\n__ggml_vocab_test__\n")
        return
    n = 0
    for line in text.split("\n"):
        for part in strings_in(json.loads(line)) if ".jsonl" in path.name and line else [line]:
            for piece in part.split("\n"):
                yield piece
                n += len(piece)
        if most and n > most:
            return


def batches(data, most, n_random):
    """Pairs of a name and up to BATCH strings."""
    yield "random", random_text.strings(n_random)
    files = [*sorted(data.glob("tokenizer/llamacpp-vectors/*.inp")), *sorted(data.glob("eval/*")), *sorted(data.glob("train/*"))]
    for path in files:
        held = []
        for line in lines_of(path, most):
            held.append(line)
            if len(held) == BATCH:
                yield path.name, held
                held = []
        yield path.name, held


# ---- comparing ----


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


class Report:
    def __init__(self, name):
        self.name, self.texts, self.bytes, self.wrong, self.theirs, self.ours = name, 0, 0, 0, 0.0, 0.0

    def differ(self, what, source, text, theirs, ours):
        self.wrong += 1
        if self.wrong > 5:
            return
        at = first_difference(theirs, ours)
        print(f"  {self.name} {what} of {source}: {text[:300]!r}\n    from place {at}: theirs {theirs[at : at + 12]!r}"
              f"\n    from place {at}: ours   {ours[at : at + 12]!r}", flush=True)


def compare(report, theirs, ours, source, texts):
    """In all modes where special tokens stand in the text: in random strings and vectors."""
    for flags in theirs.modes if source == "random" or source.endswith(".inp") else theirs.modes[:1]:
        expected, their_time = theirs.encode(texts, flags)
        found, our_time = ours.encode(texts, flags)
        if flags == theirs.modes[0]:
            report.texts += len(texts)
            report.bytes += sum(len(text.encode()) for text in texts)
            report.theirs += their_time
            report.ours += our_time
        for text, a, b in zip(texts, expected, found, strict=True):
            if a != b:
                report.differ(f"tokens ({MODES[flags]})", source, text, a, b)
    for text, ids in zip(texts[:2000], expected):
        a, b = theirs.decode(ids), ours.decode(ids)
        if a != b:
            report.differ("text", source, text, a, b)


def run(name, make_ours, make_theirs, kind, library, options):
    report = Report(name)
    try:
        theirs, ours = kind(make_theirs()), Ours(library, make_ours())
    except RuntimeError as problem:
        print(f"REFUSED {name}: {problem}", flush=True)
        return False
    for source, texts in batches(options.data, options.bytes, options.random):
        compare(report, theirs, ours, source, [text.replace("\0", "") for text in texts])
    ours.close()
    rate = f"theirs {report.bytes / 1e6 / report.theirs:.2f} MB/s, ours {report.bytes / 1e6 / report.ours:.2f} MB/s"
    print(f"{'DIFFERS' if report.wrong else 'equal  '} {name}: {report.texts} texts, {report.bytes} bytes, {report.wrong} differences; {rate}", flush=True)
    return report.wrong == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(os.environ.get("SOFTPICK_DATA", ROOT.parent / "shared" / "data")))
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--random", type=int, default=100000)
    options = parser.parse_args()
    library = open_library(options.build)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [case for case in cases(options.data, pathlib.Path(folder)) if not options.only or case[0] in options.only]
        equal = [run(*case, library, options) for case in chosen]
    print(f"{sum(equal)} of {len(equal)} tokenizers are equal")
    return 0 if equal and all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
