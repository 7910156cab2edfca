#!/usr/bin/env python3
"""EleutherAI's lm-eval on a model and data that lie on the disk: its own tasks, with nothing changed but where the data is.

usage: lm_eval_run.py MODEL DATA OUT.json --tasks a,b,... [--limit N] [--num-fewshot K] [--batch-size N] [--dtype NAME]
                      [--device NAME] [--max-length L] [--bootstrap N]

DATA is the folder hf/ of lm_eval_data.py.  OUT gets {"version", "results", "seconds", "samples": {task: [{"texts": [[context,
continuation], ...], "answers": [[log p, greedy], ...]}, ...]}}, the questions in their order.  A task NAME-original reads the data of that name by the task NAME.
Works with lm-eval 0.4.8 and 0.4.13 (pip install lm_eval transformers torch); no network is used."""
import argparse
import json
import os
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import lm_eval.tasks
from importlib.metadata import version

YAML = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "winogrande": "winogrande/default.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "wikitext": "wikitext/wikitext.yaml",
}

def write_task(folder, name, data):
    """A YAML file that includes lm-eval's own, says where the data is, and names the splits that are there."""
    base = name.removesuffix("-original")
    splits = {}
    for split in ("train", "validation", "test"):
        path = os.path.join(data, f"{name}_{split}.jsonl")
        if os.path.exists(path):
            splits[split] = path
    if not splits:
        raise SystemExit(f"{data}: has no file {name}_test.jsonl or {name}_validation.jsonl")
    task = {
        "include": os.path.join(os.path.dirname(lm_eval.tasks.__file__), YAML[base]),
        "task": name,
        "tag": [],
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": splits},
        "training_split": "train" if "train" in splits else None,
        "validation_split": "validation" if "validation" in splits else None,
        "test_split": "test" if "test" in splits else None,
    }
    with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as file:
        json.dump(task, file)  # JSON is YAML


def run(arguments):
    tasks = arguments.tasks.split(",")
    model_args = {"pretrained": arguments.model, "dtype": arguments.dtype}
    if arguments.max_length:
        model_args["max_length"] = arguments.max_length
    with tempfile.TemporaryDirectory() as folder:
        for name in tasks:
            write_task(folder, name, arguments.data)
        manager = lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)
        start = time.monotonic()
        return lm_eval.simple_evaluate(
            model="hf", model_args=model_args, tasks=tasks, task_manager=manager, num_fewshot=arguments.num_fewshot,
            limit=arguments.limit, batch_size=arguments.batch_size, device=arguments.device, log_samples=True,
            bootstrap_iters=arguments.bootstrap), time.monotonic() - start


def answers(samples):
    """What was asked and answered, question by question; rolling requests are one text, and have no greedy."""
    out = []
    for sample in sorted(samples, key=lambda each: each["doc_id"]):
        replies = [reply[0] if isinstance(reply, (list, tuple)) and isinstance(reply[0], (list, tuple)) else reply
                   for reply in sample["resps"]]
        out.append({"texts": [list(request) for request in sample["arguments"]],
                    "answers": [[float(reply[0])] + [bool(value) for value in reply[1:2]] for reply in replies]})
    return out


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--bootstrap", type=int, default=100000)
    arguments = parser.parse_args()
    found, seconds = run(arguments)
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({"version": version("lm_eval"), "results": found["results"], "n-samples": found["n-samples"],
                   "samples": {task: answers(samples) for task, samples in found["samples"].items()},
                   "seconds": seconds}, file, default=str)


if __name__ == "__main__":
    main()
