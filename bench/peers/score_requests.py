"""The requests of six multiple-choice and completion tasks as tokens, for bench_score and score_transformers.py.

    python3 bench/peers/score_requests.py --data FOLDER --tokenizer tokenizer.model --out requests.bin [--limit N]

FOLDER holds hellaswag_val.jsonl.zst, arc_easy_test.jsonl, piqa_valid.jsonl, sciq_test.jsonl, lambada_openai_test.jsonl and
winogrande_xl_validation.jsonl; the prompts are lm-eval's, without examples.  Needs sentencepiece from PyPI and the program zstd.

The file is int32, little-endian: the number of requests, then for each the number of its tokens, of those to be scored (the
last ones), and the tokens, BOS first.
"""
import argparse
import json
import subprocess

import numpy
import sentencepiece


def lines(path):
    if path.endswith(".zst"):
        text = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout.decode()
    else:
        text = open(path, encoding="utf-8").read()
    return [json.loads(line) for line in text.split("\n") if line]


def choices(context, endings):
    return [(context, " " + ending) for ending in endings]


def hellaswag(row):
    return choices(f"{row['activity_label']}: {row['ctx']}", row["endings"])


def arc_easy(row):
    return choices(f"Question: {row['question']}\nAnswer:", row["choices"])


def piqa(row):
    return choices(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]])


def sciq(row):
    endings = [row[k] for k in ("distractor1", "distractor2", "distractor3", "correct_answer")]
    return choices(f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:", endings)


def lambada(row):
    context, last = row["text"].rsplit(" ", 1)
    return choices(context, [last])


def winogrande(row):
    before, after = row["sentence"].split("_", 1)
    return [(before + row[k], " " + after.strip()) for k in ("option1", "option2")]


TASKS = {
    "hellaswag_val.jsonl.zst": hellaswag,
    "arc_easy_test.jsonl": arc_easy,
    "piqa_valid.jsonl": piqa,
    "sciq_test.jsonl": sciq,
    "lambada_openai_test.jsonl": lambada,
    "winogrande_xl_validation.jsonl": winogrande,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--limit", type=int, help="questions of each task")
    options = parser.parse_args()
    encode = sentencepiece.SentencePieceProcessor(model_file=options.tokenizer).encode
    numbers, n = [], 0
    for file, requests_of in TASKS.items():
        for row in lines(f"{options.data}/{file}")[: options.limit]:
            for context, ending in requests_of(row):
                context_tokens, whole = encode(context), encode(context + ending)
                numbers += [len(whole) + 1, len(whole) - len(context_tokens), 1, *whole]
                n += 1
    numpy.array([n, *numbers], dtype="<i4").tofile(options.out)
    print(f"{n} requests, {len(numbers) - 2 * n} tokens")


main()
