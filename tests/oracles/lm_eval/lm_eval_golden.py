#!/usr/bin/env python3
"""Keeps the answers to the first questions of what lm_eval_run.py wrote: tests/vectors/lm_eval_stories.json.

usage: lm_eval_golden.py NEW.json OLD.json OUT.json [N]

NEW and OLD are runs of stories260K (converted, with tok512.bin) by lm-eval 0.4.13 and 0.4.8, without examples; N: questions of
each task, default 30.  test_evaluate_lm_eval.c asks them again.  Needs Python alone."""
import json
import sys

TASKS = ("arc_easy", "arc_challenge", "hellaswag", "piqa", "sciq", "lambada_openai", "winogrande", "openbookqa", "boolq")


def keep(path, n):
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    tasks = {}
    for name in TASKS:
        tasks[name] = [[[round(sum_, 3), int(greedy)] for sum_, greedy in sample["answers"]]
                       for sample in run["samples"][name][:n]]
    return {"lm_eval": run["version"], "answers": tasks}


new, old, out = sys.argv[1:4]
count = int(sys.argv[4]) if len(sys.argv) > 4 else 30
made = {"0.4.10": keep(new, count), "0.4.8": keep(old, count)}
with open(out, "w", encoding="utf-8") as file:
    json.dump(made, file, separators=(",", ":"))
    file.write("\n")
