#!/usr/bin/env python3
"""Writes prompts.json: made-up documents of lm-eval's tasks, and what lm-eval asks of them.

Needs lm_eval 0.4.13 from PyPI (no network, no data set, no model): python3 make_prompts.py
Documents have the fields of the data sets on the Hugging Face hub; texts hold what prompts can stumble over: white space of
all kinds at the ends, brackets, letters whose case is special.  test_evaluate_prompts.c reads the file.
"""
import json
import pathlib
import random

import datasets
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

SPLITS = {  # of each task: what lm-eval calls the split it asks, and the one of its examples
    "arc_easy": ("test", "train"),
    "arc_challenge": ("test", "train"),
    "hellaswag": ("validation", "train"),
    "piqa": ("validation", "train"),
    "sciq": ("test", "train"),
    "lambada_openai": ("test", None),
    "winogrande": ("validation", "train"),
    "openbookqa": ("test", "train"),
    "boolq": ("validation", "train"),
}
WORDS = ("a river stone moon seven über naïve Ωμέγα ΣΊΣΥΦΟΣ Straße İzmir ﬁre [step] [header] [title] don't 'quoted' "
         "x²  {brace} 100% 日本 emoji😀 ǆ line\u2028break tab\there end. What? No!").split(" ")
SPACES = ["", "", "", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\x1f", " \u3000"]

random_words = random.Random(7)


def text(low=2, high=9):
    words = [random_words.choice(WORDS) for _ in range(random_words.randint(low, high))]
    return random_words.choice(SPACES) + " ".join(words) + random_words.choice(SPACES)


def arc(i):
    n = random_words.choice([3, 4, 4, 5])
    labels = [str(k + 1) for k in range(n)] if i % 3 == 0 else list("ABCDE"[:n])
    return {"id": f"q{i}", "question": text(), "choices": {"text": [text(1, 5) for _ in range(n)], "label": labels},
            "answerKey": random_words.choice(labels)}


def openbookqa(i):
    made = arc(i)
    return {"id": made["id"], "question_stem": made["question"], "choices": made["choices"],
            "answerKey": " " * (i % 2) + made["answerKey"]}


def hellaswag(i):
    return {"ind": i, "activity_label": text(1, 3), "ctx_a": text(), "ctx_b": text(0, 4) if i % 4 else "",
            "endings": [text(1, 6) for _ in range(4)], "label": str(random_words.randrange(4))}


def piqa(i):
    return {"goal": text(), "sol1": text(), "sol2": text(), "label": random_words.randrange(2)}


def sciq(i):
    return {"question": text(), "distractor1": text(1, 3), "distractor2": text(1, 3), "distractor3": text(1, 3),
            "correct_answer": text(1, 3), "support": text(4, 20) if i % 3 else ""}


def lambada(i):
    return {"text": text(6, 12) if i else "word"}


def winogrande(i):
    return {"sentence": text(2, 5) + "_" + text(1, 6), "option1": text(1, 2), "option2": text(1, 2),
            "answer": random_words.choice("12")}


def boolq(i):
    return {"question": text(), "passage": text(5, 15), "idx": i, "label": random_words.randrange(2)}


MAKERS = {"arc_easy": arc, "arc_challenge": arc, "hellaswag": hellaswag, "piqa": piqa, "sciq": sciq,
          "lambada_openai": lambada, "winogrande": winogrande, "openbookqa": openbookqa, "boolq": boolq}


def open_task(name, entry, documents, examples):
    """lm-eval's own task on documents of ours."""
    config = dict(load_yaml(entry.yaml_path))
    config.pop("include", None)
    asked, shown = SPLITS[name]
    splits = {asked: datasets.Dataset.from_list(documents)}
    if shown:
        splits[shown] = datasets.Dataset.from_list(examples)
    if config.get("validation_split") and config["validation_split"] not in splits:
        splits[config["validation_split"]] = splits[asked]
    config["custom_dataset"] = lambda **_: splits
    return ConfigurableTask(config=config)


def describe(name, entry):
    make = MAKERS[name]
    documents = [make(i) for i in range(6)]
    examples = [make(100 + i) for i in range(9)]
    examples += documents[:2] + [documents[3]] * 2  # some are the question itself
    made = {"documents": documents, "examples": examples if SPLITS[name][1] else [], "shots": {}}
    for n_fewshot in (0, 1, 3):
        task = open_task(name, entry, documents, examples)
        task.set_config("num_fewshot", n_fewshot)
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        asked = [[] for _ in documents]
        for instance in task.instances:
            asked[instance.doc_id].append(list(instance.args))
        made["shots"][str(n_fewshot)] = asked
    gold = []
    for document in task.eval_docs:
        target = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        gold.append(0 if name == "lambada_openai" else int(target))
    made["gold"] = gold
    return made


def main():
    index = TaskManager().task_index
    made = {"lm_eval": lm_eval.__version__, "tasks": {name: describe(name, index[name]) for name in SPLITS}}
    path = pathlib.Path(__file__).parent / "prompts.json"
    path.write_text(json.dumps(made, ensure_ascii=True, indent=0) + "\n")


main()
