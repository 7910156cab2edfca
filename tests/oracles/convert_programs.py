#!/usr/bin/env python3
"""Gives GGUF and llama2.c files that `softpick convert` wrote to the programs they are for, and theirs to us.

Needs from PyPI: gguf (llama.cpp's own reader and writer), xllamacpp (llama.cpp, built), numpy.  Run:

    python3 tests/oracles/convert_programs.py build/release/softpick MODEL TOKENIZER [--run RUN] [--runq RUNQ]

MODEL is a small LLaMA of softmax attention that llama2.c can run (stories260K.bin, -hf), TOKENIZER its sentencepiece model
or tokenizer.bin.  RUN and RUNQ are llama2.c's programs (cc -O2 -o run run.c -lm, and runq.c).

 - tensors: gguf's reader sees in our files (f32, f16, bf16, q8_0) what we see; of files that gguf's writer made (F32, F16,
   BF16, Q8_0, Q4_0) we see what its dequantizer does, bit for bit;
 - llama.cpp continues prompts greedily as we do: the same text for F32 and F16; for BF16, Q8_0 and Q4_0, where it rounds
   activations too, at least half of the texts begin alike (--least
   letters);
 - run and runq write the same text from our files as we do;
 - llama.cpp refuses a file of a softpick model.

Exit status: 0 all agree, 1 not.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy
import xllamacpp

PROMPTS = ["", "Once upon a time", "Lily and Tom went to the", "The big dog was"]
TOKENS = 120


class Tool:
    def __init__(self, path):
        self.path = path

    def convert(self, *arguments):
        subprocess.run([self.path, "convert", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)

    def generate(self, model, prompt, n=TOKENS):
        command = [self.path, "generate", str(model), "--temperature", "0", "--tokens", str(n), "--prompt", prompt]
        return subprocess.run(command, check=True, capture_output=True).stdout.decode().removesuffix("\n")


# ---- tensors ---------------------------------------------------------------------------------------------------------


def read_safetensors(path):
    """Name to array of float32, for files of F32 alone."""
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + n]), {}
    for name, row in header.items():
        if name != "__metadata__":
            begin, end = (8 + n + offset for offset in row["data_offsets"])
            assert row["dtype"] == "F32", name
            tensors[name] = numpy.frombuffer(data[begin:end], numpy.float32).reshape(row["shape"])
    return tensors


NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama_name(name):
    parts = name.removesuffix(".weight").split(".")
    layer = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    return f"{layer}{NAMES[parts[-1]]}.weight"


def in_halves(array, heads):
    """Rows whose rotary pairs are neighbours, in LLaMA's order."""
    return array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)


def tensors_of_gguf(path):
    """What the gguf package sees, under LLaMA's names and in its order."""
    reader = gguf.GGUFReader(path)
    heads = int(reader.fields["llama.attention.head_count"].contents())
    kv_heads = int(reader.fields["llama.attention.head_count_kv"].contents())
    seen = {}
    for tensor in reader.tensors:
        array = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if "attn_q." in tensor.name or "attn_k." in tensor.name:
            array = in_halves(array, heads if "attn_q." in tensor.name else kv_heads)
        seen[llama_name(tensor.name)] = array
    return seen


def write_requantized(source, out, kind):
    """Our f32 file once more, by the gguf package, its matrices in another type."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], item)
    for tensor in reader.tensors:
        whole = tensor.data.shape[-1] % 32 == 0
        to = kind if tensor.data.ndim > 1 and whole else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(tensor.data, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def same_tensors(tool, path, folder):
    tool.convert(path, "--dtype", "f32", "--out", folder)
    ours, theirs = read_safetensors(folder / "model.safetensors"), tensors_of_gguf(path)
    return ours.keys() == theirs.keys() and all(numpy.array_equal(ours[name], theirs[name]) for name in ours)


# ---- texts -----------------------------------------------------------------------------------------------------------


def server(path):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 512
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    return xllamacpp.Server(parameters)


def llama_cpp_texts(path):
    running = server(path)
    for prompt in PROMPTS:
        request = {"prompt": prompt, "temperature": 0, "top_k": 1, "n_predict": TOKENS, "cache_prompt": False}
        answer = running.handle_completions(request)
        yield prompt + answer["choices"][0]["text"]


def common_letters(a, b):
    n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return n


def compare_texts(tool, path, exact, least):
    """Complaints about one file; llama.cpp keeps the space in front of a text's first word."""
    shared, near, others = [], 0, []
    for prompt, theirs in zip(PROMPTS, llama_cpp_texts(path)):
        ours, theirs = tool.generate(path, prompt), theirs.removeprefix(" ")
        n = common_letters(ours, theirs)
        shared.append(n / max(len(ours), 1))
        near += ours == theirs or n >= len(prompt) + least
        if ours != theirs:
            others.append(f"{prompt!r}: {ours!r} against {theirs!r}")
    print(f"    llama.cpp shares {', '.join(f'{100 * share:.0f}%' for share in shared)} of the texts' letters")
    if exact:
        yield from others
    elif 2 * near < len(PROMPTS):
        yield f"only {near} of {len(PROMPTS)} texts begin alike"


def program_text(program, model, tokenizer):
    command = [program, model, "-z", tokenizer, "-t", "0", "-n", str(TOKENS)]
    return subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout.decode().removesuffix("\n")


def refused(path):
    """In a process of its own, as llama.cpp may end it."""
    code = "import sys, xllamacpp; p = xllamacpp.CommonParams(); p.model.path = sys.argv[1]; xllamacpp.Server(p)"
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True).returncode != 0


# ---- the comparison --------------------------------------------------------------------------------------------------


def check_gguf(tool, base, work, least):
    kinds = {"F32": True, "F16": True, "BF16": False, "Q8_0": False, "Q4_0": False}
    for kind, exact in kinds.items():
        if kind != "Q4_0":
            tool.convert(base, "--to", "gguf", "--dtype", kind.lower(), "--out", work / f"ours-{kind}.gguf")
            ok = same_tensors(tool, work / f"ours-{kind}.gguf", work / f"ours-{kind}")
            yield f"{kind} written by us: tensors", [] if ok else ["differ"]
            yield f"{kind} written by us: texts", list(compare_texts(tool, work / f"ours-{kind}.gguf", exact, least))
        write_requantized(work / "ours-F32.gguf", work / f"theirs-{kind}.gguf", getattr(gguf.GGMLQuantizationType, kind))
        ok = same_tensors(tool, work / f"theirs-{kind}.gguf", work / f"theirs-{kind}")
        yield f"{kind} written by gguf: tensors", [] if ok else ["differ"]
        yield f"{kind} written by gguf: texts", list(compare_texts(tool, work / f"theirs-{kind}.gguf", exact, least))


def check_llama2c(tool, base, work, run, runq):
    for program, dtype in ((run, "f32"), (runq, "q8_0")):
        if not program:
            continue
        model, tokenizer = work / f"{dtype}.bin", work / f"{dtype}.tokenizer.bin"
        tool.convert(base, "--to", "llama2c", "--dtype", dtype, "--out", model)
        tool.convert(model, "--tokenizer", tokenizer, "--out", work / f"from-{dtype}")
        ours, theirs = tool.generate(work / f"from-{dtype}", ""), program_text(program, model, tokenizer)
        yield f"llama2.c, {dtype}", [] if ours == theirs else [f"{ours!r} against {theirs!r}"]


def check_guard(tool, base, work):
    """The same weights, said to be trained with softpick."""
    folder = work / "softpick"
    subprocess.run(["cp", "-r", base, folder], check=True)
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="softpick_llama", attention_function="softpick")
    (folder / "config.json").write_text(json.dumps(config))
    tool.convert(folder, "--to", "gguf", "--out", work / "softpick.gguf")
    ok = refused(work / "softpick.gguf") and not refused(work / "ours-F32.gguf")
    yield "softpick-llama is refused by llama.cpp", [] if ok else ["it is not"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("model")
    parser.add_argument("tokenizer")
    parser.add_argument("--run")
    parser.add_argument("--runq")
    parser.add_argument("--least", type=int, default=30, help="letters beyond the prompt (default 30)")
    arguments = parser.parse_args()
    tool, failed = Tool(arguments.tool), 0
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        base = work / "base"
        tool.convert(arguments.model, "--tokenizer", arguments.tokenizer, "--out", base)
        jobs = [
            check_gguf(tool, base, work, arguments.least),
            check_llama2c(tool, base, work, arguments.run, arguments.runq),
            check_guard(tool, base, work),
        ]
        for job in jobs:
            for name, complaints in job:
                failed += bool(complaints)
                print(f"{name}: {'; '.join(complaints) or 'agree'}", flush=True)
    print("all agree" if failed == 0 else f"{failed} comparisons FAILED")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
