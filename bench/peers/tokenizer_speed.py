"""Speed of encoding on one thread: ours, Hugging Face's tokenizers and sentencepiece, on the same text.

    python3 bench/peers/tokenizer_speed.py BUILD [--data FOLDER] [--megabytes N] [--rounds N]

BUILD is a build folder with libsoftpick.so.  The text is the beginning of FOLDER/train/wiki-0.jsonl.zst (FOLDER: ../shared/data
beside the sources), document by document.  Each time is CPU time, the best of N rounds, and the tokens must be equal.  `fast` is
encode_batch_fast, which leaves out what we do not give either: places of tokens in the text.
Needs from PyPI tokenizers, sentencepiece, transformers, and the program zstd.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import sentencepiece
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracles"))
import tokenizer_ids as oracle


def documents(path, n_bytes):
    """Texts of JSON lines until n_bytes of them were read."""
    texts, n = [], 0
    with subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            texts.append(json.loads(line)["text"])
            n += len(texts[-1].encode())
            if n >= n_bytes:
                break
        process.kill()
    return texts, n


def best(rounds, work):
    """The result of the work, and the least CPU time that it took."""
    least = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        least = min(least, time.process_time() - start)
    return result, least


def unpack(path, folder):
    """A copy in a folder of its own, without the zst around it and without files beside it."""
    out = folder / path.parent.name / path.name.removesuffix(".zst")
    out.parent.mkdir(exist_ok=True)
    command = ["zstd", "-dc", path] if path.suffix == ".zst" else ["cat", path]
    out.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / ".." / "shared" / "data")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    texts, n_bytes = documents(options.data / "train" / "wiki-0.jsonl.zst", options.megabytes * 1e6)
    print(f"{len(texts)} documents, {n_bytes / 1e6:.1f} MB; MB/s of CPU time, best of {options.rounds}")
    library = oracle.open_library(options.build)
    folder = pathlib.Path(tempfile.mkdtemp())
    at = options.data / "tokenizer"
    paths = {
        "gpt2": unpack(at / "gpt2" / "tokenizer.json.zst", folder),
        "llama3": oracle.converted_ranks(unpack(at / "llama3" / "tokenizer.model.zst", folder), folder, "llama3"),
        "llama2": unpack(at / "llama2" / "tokenizer.json.zst", folder),
        "llama2.model": unpack(at / "llama2" / "tokenizer.model", folder),
    }
    for name, path in paths.items():
        ours = oracle.Ours(library, path)
        tokens, seconds = best(options.rounds, lambda: ours.encode(texts, oracle.PLAIN)[0])
        rates = {"ours": n_bytes / 1e6 / seconds}
        if name.endswith(".model"):
            theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
            works = {"sentencepiece": lambda: theirs.encode(texts, num_threads=1)}
        else:
            theirs = Tokenizer.from_file(str(path))
            theirs.no_truncation()
            theirs.no_padding()
            theirs.encode_special_tokens = True
            works = {
                "tokenizers": lambda: [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)],
                "fast": lambda: [e.ids for e in theirs.encode_batch_fast(texts, add_special_tokens=False)],
            }
        for other, work in works.items():
            expected, seconds = best(options.rounds, work)
            rates[other] = n_bytes / 1e6 / seconds
            if list(map(list, tokens)) != expected:
                sys.exit(f"{name}: the tokens differ from those of {other}")
        row = "  ".join(f"{other} {rate:.2f} (1/{rates['ours'] / rate:.2f})" for other, rate in rates.items())
        print(f"{name:14s}{row}", flush=True)


if __name__ == "__main__":
    main()
