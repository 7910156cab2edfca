#!/usr/bin/env python3
"""The time of EleutherAI's lm-eval with transformers, beside `softpick eval`; bench/eval_gpu.sh runs it.

    lm_eval_speed.py make MODEL TOKENIZER.json          a random LLaMA of the paper's 340M shape, in bf16
    lm_eval_speed.py run MODEL DATA OUT.json --tasks a,b,... [--batch-sizes 64,256,512,auto] [--trial N] [--device NAME]
    lm_eval_speed.py table OUT.json OURS.json...        OURS: documents of softpick eval --json

DATA is the folder hf/ of tests/oracles/lm_eval/lm_eval_data.py.  `run` opens the model once, tries each batch size on the first N
documents of each task (--trial, default 300), and times all documents with the fastest.  No standard errors by bootstrap, which
alone would take it minutes.  Needs lm_eval, transformers and torch."""
import argparse
import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "oracles", "lm_eval"))


def make(arguments):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(vocab_size=32000, hidden_size=arguments.width, intermediate_size=arguments.ffn,
                         num_hidden_layers=arguments.layers, num_attention_heads=arguments.heads,
                         num_key_value_heads=arguments.heads, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
                         initializer_range=0.05, tie_word_embeddings=False)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(arguments.model)
    PreTrainedTokenizerFast(tokenizer_file=arguments.tokenizer, bos_token="<s>", eos_token="</s>",
                            unk_token="<unk>").save_pretrained(arguments.model)
    print(f"{sum(value.numel() for value in model.parameters())} parameters in {arguments.model}")


def evaluate(model, manager, tasks, limit):
    import lm_eval

    start = time.monotonic()
    found = lm_eval.simple_evaluate(model=model, tasks=tasks, task_manager=manager, limit=limit, log_samples=False,
                                    bootstrap_iters=0)
    return time.monotonic() - start, found


def set_batch_size(model, size):
    """As HFLM's constructor takes the argument."""
    if size == "auto":
        model.batch_size_per_gpu, model.batch_schedule, model.batch_sizes = "auto", 1.0, {}
    else:
        model.batch_size_per_gpu = int(size)


def run(arguments):
    start = time.monotonic()
    import lm_eval.tasks
    from lm_eval.models.huggingface import HFLM
    from lm_eval_run import write_task

    imported = time.monotonic()
    model = HFLM(pretrained=arguments.model, dtype="bfloat16", device=arguments.device, batch_size=64)
    loaded = time.monotonic()
    tasks = arguments.tasks.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name in tasks:
            write_task(folder, name, arguments.data)
        manager = lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)
        evaluate(model, manager, tasks, 8)  # data sets are prepared, kernels loaded
        trials = {}
        for size in arguments.batch_sizes.split(","):
            set_batch_size(model, size)
            try:
                trials[size], _ = evaluate(model, manager, tasks, arguments.trial)
            except RuntimeError as error:  # out of memory
                print(f"batch size {size}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            print(f"batch size {size}: {trials[size]:.1f} s for {arguments.trial} documents a task", file=sys.stderr, flush=True)
        best = min(trials, key=trials.get)
        set_batch_size(model, best)
        seconds, found = evaluate(model, manager, tasks, None)
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump({"results": found["results"], "n-samples": found["n-samples"], "batch_size": best, "trials": trials,
                   "seconds_evaluate": seconds, "seconds_import": imported - start, "seconds_load": loaded - imported}, file,
                  indent=1, default=str)


def table(arguments):
    with open(arguments.out, encoding="utf-8") as file:
        theirs = json.load(file)
    load = theirs["seconds_import"] + theirs["seconds_load"]
    print(f"lm-eval, transformers: {theirs['seconds_evaluate']:.1f} s, batch size {theirs['batch_size']}; "
          f"{load:.1f} s more to import and load")
    for path in arguments.ours:
        with open(path, encoding="utf-8") as file:
            ours = json.load(file)
        seconds = float(ours["total_evaluation_time_seconds"])
        print(f"{os.path.basename(path)}: {seconds:.2f} s, {theirs['seconds_evaluate'] / seconds:.1f} times as fast")
        for task, values in theirs["results"].items():
            pairs = [f"{key.split(',')[0]} {value:.4f} and {ours['results'][task][key]:.4f}" for key, value in values.items()
                     if "," in key and "stderr" not in key]
            share = ours["softpick"]["tasks"][task]
            print(f"  {task}: {share['seconds']:.2f} s; theirs and ours: {', '.join(pairs)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    command.set_defaults(function=make)
    command.add_argument("model")
    command.add_argument("tokenizer")
    for name, value in (("width", 1024), ("ffn", 2816), ("layers", 24), ("heads", 16)):
        command.add_argument("--" + name, type=int, default=value)
    command = commands.add_parser("run")
    command.set_defaults(function=run)
    for name in ("model", "data", "out"):
        command.add_argument(name)
    command.add_argument("--tasks", required=True)
    command.add_argument("--batch-sizes", default="64,256,512,auto")
    command.add_argument("--trial", type=int, default=300)
    command.add_argument("--device", default="cuda")
    command = commands.add_parser("table")
    command.set_defaults(function=table)
    command.add_argument("out")
    command.add_argument("ours", nargs="+")
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
