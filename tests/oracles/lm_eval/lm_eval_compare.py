#!/usr/bin/env python3
"""Compares `softpick eval` with what lm_eval_run.py wrote: texts, log-probabilities, choices, metrics and their errors.

usage: lm_eval_compare.py SOFTPICK MODEL DATA REFERENCE.json WORK --compat 0.4.8|0.4.10 [--limit N] [--num-fewshot K]
                          [--tasks a,b,...] [--softpick-options "..."]

MODEL is the folder that lm-eval read, DATA a folder for `softpick eval --data`, WORK gets our results.  Limit and shots are
those of the reference run.  Exit code 0: every text and choice is the same, every log p within 1e-3 + 1e-5 of its size, acc and
acc_norm equal, errors within 1e-6 and perplexities within 1e-5 of their size.  Needs Python alone."""
import argparse
import glob
import hashlib
import json
import os
import shlex
import subprocess
import sys


def run_softpick(arguments, tasks):
    """Our results and, for each task, its samples."""
    command = [arguments.softpick, "eval", arguments.model, "--tasks", ",".join(task.removesuffix("-original") for task in tasks),
               "--data", arguments.data, "--lm-eval-compat", arguments.compat, "--json", "--samples", "--out", arguments.work]
    if arguments.limit:
        command += ["--limit", str(arguments.limit)]
    if arguments.num_fewshot:
        command += ["--num-fewshot", str(arguments.num_fewshot)]
    command += shlex.split(arguments.softpick_options)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}")
    samples = {}
    for task in tasks:
        name = task.removesuffix("-original")
        newest = max(glob.glob(os.path.join(arguments.work, "**", f"samples_{name}_*.jsonl"), recursive=True), key=os.path.getmtime)
        with open(newest, encoding="utf-8") as file:
            samples[task] = [json.loads(line) for line in file]
    return json.loads(done.stdout)["results"], samples


def texts_of(sample):
    """Our arguments as lists of texts."""
    requests = sorted(sample["arguments"].items(), key=lambda item: int(item[0].rsplit("_", 1)[1]))
    return [[text for _, text in sorted(request.items())] for _, request in requests]


def answers_of(sample):
    """Our answers as lm_eval_run.py writes lm-eval's."""
    out = []
    for reply in sample["resps"]:
        reply = reply[0]
        out.append([float(reply)] if isinstance(reply, str) else [float(reply[0]), reply[1] == "True"])
    return out


def digest(texts):
    """Stands for the texts of a question in files of golden numbers."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


class Report:
    def __init__(self):
        self.differences = 0

    def differ(self, sentence):
        self.differences += 1
        if self.differences <= 40:
            print("  " + sentence)


def best(values):
    return max(range(len(values)), key=lambda i: values[i])  # the first of equals


def compare_sample(report, task, index, reference, sample):
    """Returns the largest difference of log p; reports what differs."""
    texts, ours, theirs = texts_of(sample), answers_of(sample), reference["answers"]
    if "digest" in reference:
        if digest(texts) != reference["digest"]:
            report.differ(f"{task} {index}: other texts, {texts!r:.300}")
    elif texts != reference["texts"]:
        report.differ(f"{task} {index}: texts {texts!r:.300} but {reference['texts']!r:.300}")
    if len(ours) != len(theirs):
        report.differ(f"{task} {index}: {len(ours)} answers but {len(theirs)}")
        return 0
    if best([answer[0] for answer in ours]) != best([answer[0] for answer in theirs]):
        report.differ(f"{task} {index}: choice differs, {ours} but {theirs}")
    largest = 0
    for our, their in zip(ours, theirs):
        difference = abs(our[0] - their[0])
        largest = max(largest, difference)
        if difference > 1e-3 + 1e-5 * abs(their[0]):
            report.differ(f"{task} {index}: log p {our[0]} but {their[0]}")
        if our[1:] != their[1:]:
            report.differ(f"{task} {index}: greedy {our[1:]} but {their[1:]} at log p {our[0]}")
    return largest


def compare_metric(report, task, name, our, their):
    if isinstance(their, str) or their is None:
        if our != their:
            report.differ(f"{task}: {name} is {our} but {their}")
        return
    if name.startswith("acc"):
        tolerance = 1e-6 if "stderr" in name else 1e-12
    else:
        tolerance = 1e-5 * abs(their)
    if not isinstance(our, (int, float)) or not abs(our - their) <= tolerance:
        report.differ(f"{task}: {name} is {our} but {their}")


def compare_task(report, task, reference, results, samples):
    before = report.differences
    theirs, name = reference["samples"][task], task.removesuffix("-original")
    if len(samples) != len(theirs):
        report.differ(f"{task}: {len(samples)} questions but {len(theirs)}")
    largest = max((compare_sample(report, task, i, theirs[i], samples[i]) for i in range(min(len(samples), len(theirs)))),
                  default=0)
    metrics = {key: value for key, value in reference["results"][task].items() if "," in key}
    for key, value in metrics.items():
        compare_metric(report, task, key, results[name].get(key), value)
    shown = ", ".join(f"{key.split(',')[0]} {value:.6g}" for key, value in metrics.items() if isinstance(value, float))
    print(f"{task}: {len(theirs)} questions, {report.differences - before} differences, log p within {largest:.2e}; {shown}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    for name in ("softpick", "model", "data", "reference", "work"):
        parser.add_argument(name)
    parser.add_argument("--compat", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--tasks")
    parser.add_argument("--softpick-options", default="")
    arguments = parser.parse_args()
    with open(arguments.reference, encoding="utf-8") as file:
        reference = json.load(file)
    tasks = [task for task in (arguments.tasks.split(",") if arguments.tasks else reference["samples"])]
    results, samples = run_softpick(arguments, tasks)
    report = Report()
    print(f"lm-eval {reference['version']}, compat {arguments.compat}, {arguments.model}")
    for task in tasks:
        compare_task(report, task, reference, results, samples[task])
    print(f"{report.differences} differences")
    sys.exit(report.differences > 0)


if __name__ == "__main__":
    main()
