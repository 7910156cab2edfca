"""Checkpoint folders' tokenizers: what the library saves, transformers' AutoTokenizer reads, and gives the same tokens.

    python3 tests/oracles/tokenizer_folder.py BUILD [--data FOLDER] [--random N]

BUILD is a build folder with libsoftpick.so.  Each file of FOLDER/tokenizer (default ../shared/data beside the sources), of
every kind that is read, is opened, saved into an empty folder beside a small config.json, and compared there: the texts of
FOLDER's vectors, some documents, and N random Unicode strings (default 20000), with the tokens that stand around a text, and
back to text.  sentencepiece models are compared with sentencepiece as well.
Needs from PyPI tokenizers, transformers, sentencepiece, and the program zstd.  Exit code: 0 all is equal, 1 something differs.
"""

import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import tokenizer_ids as oracle  # sets the environment: first

import random_text
import sentencepiece
from transformers import AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_attention_heads": 2,
          "num_hidden_layers": 1, "intermediate_size": 32}
NAMES = ["llama2/tokenizer.model", "llama2/tokenizer.bin", "llama2/tokenizer.json.zst", "llama2/tokenizer.metaspace.json.zst",
         "mistral/tokenizer.model.v1", "mistral/tokenizer.model.v3", "stories/tok512.model", "stories/tok512.bin",
         "gpt2/tokenizer.json.zst", "gpt-neox/tokenizer.json.zst", "smollm2/tokenizer.json.zst",
         "llamacpp-vectors/ggml-vocab-llama-spm.gguf", "llamacpp-vectors/ggml-vocab-gpt-2.gguf.zst"]


def texts_of(data, n_random):
    texts = list(random_text.strings(n_random))
    for path in sorted((data / "tokenizer" / "llamacpp-vectors").glob("*.inp")):
        texts += path.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    with subprocess.Popen(["zstd", "-dc", data / "train" / "wiki-1.jsonl.zst"], stdout=subprocess.PIPE) as process:
        texts += [json.loads(next(process.stdout))["text"] for _ in range(40)]
        process.kill()
    texts += [" " * n for n in range(1, 60)] + ["a" + " " * n + "b" for n in range(1, 60)]
    return texts


def opened(path, folder):
    """A copy in a folder of its own, without what lies beside it, under a name that tells nothing."""
    copy = folder / "file"
    command = ["zstd", "-dc", path] if path.suffix == ".zst" else ["cat", path]
    copy.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return copy


def save(library, ours, folder):
    ours.check(library.sp_tokenizer_save(ours.handle, str(folder).encode()))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def differences(name, what, texts, a, b):
    wrong = [i for i in range(len(texts)) if list(a[i]) != list(b[i])]
    for i in wrong[:3]:
        print(f"  {name}, {what}: {texts[i]!r:.120}: {list(a[i])[:16]} is not {list(b[i])[:16]}")
    return len(wrong)


def check(library, path, texts):
    name, bad = f"{path.parent.name}/{path.name}", 0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as original:
        folder = pathlib.Path(folder)
        copy = opened(path, pathlib.Path(original))
        source = oracle.Ours(library, copy)
        save(library, source, folder)
        saved = oracle.Ours(library, folder)
        theirs = AutoTokenizer.from_pretrained(folder)
        template = oracle.SPECIAL | oracle.TEMPLATE
        tokens = saved.encode(texts, template)[0]
        bad += differences(name, "AutoTokenizer", texts, tokens, theirs(texts)["input_ids"])
        plain = saved.encode(texts, oracle.PLAIN)[0]
        bad += differences(name, "before saving", texts, plain, source.encode(texts, oracle.PLAIN)[0])
        for ids in tokens[:2000]:
            if saved.decode(ids).decode() != theirs.decode(ids, skip_special_tokens=True):
                bad += 1
        if ".model" in name:
            known = sentencepiece.SentencePieceProcessor(model_file=str(copy))
            clean = [i for i, text in enumerate(texts) if "[REFERENCE_DOC" not in text]
            bad += differences(name, "sentencepiece", [texts[i] for i in clean], [plain[i] for i in clean],
                               known.encode([texts[i] for i in clean]))
        saved.close()
        source.close()
    print(f"{name}: {len(texts)} texts, {bad} differ", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / ".." / "shared" / "data")
    parser.add_argument("--random", type=int, default=20000)
    options = parser.parse_args()
    library = oracle.open_library(options.build)
    library.sp_tokenizer_save.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    texts = [text for text in texts_of(options.data, options.random) if "\0" not in text]
    sys.exit(1 if sum(check(library, options.data / "tokenizer" / name, texts) for name in NAMES) else 0)


if __name__ == "__main__":
    main()
