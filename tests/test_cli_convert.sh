#!/bin/sh
# softpick convert from the outside: each kind of file is written, opened and written again; guards; bad input.
# Usage: test_cli_convert.sh TOOL
set -u
# shellcheck source=cli_support.sh
. "$(dirname "$0")/cli_support.sh"
export OMP_NUM_THREADS=1 # small models, many calls

awk 'BEGIN { for (i = 0; i < 900; i++) printf "line %d says the %d and the %d%s", i, i % 7, i * i % 11, ".\n" }' >text.txt
expect 0 tokenize --text text.txt --out shards --vocabulary 300
tiny="--data shards --layers 2 --heads 4 --kv-heads 2 --width 64 --batch 4 --length 32 --steps 3 --warmup 1"
for attention in softpick softmax; do
    # shellcheck disable=SC2086
    expect 0 train $tiny --attention "$attention" --out "$attention"
done

same_text() { # MODEL...: all continue a prompt alike
    for one in "$@"; do
        expect 0 generate "$one" --prompt "line 7 says" --temperature 0 --tokens 40
        [ "$one" = "$1" ] && cp out first
        cmp -s out first || wrong "continues otherwise than $1"
    done
}

# usage
expect 2 convert softmax
says err "--out"
expect 2 convert --out there
says err "which model?"
expect 2 convert softmax --out there --to onnx
says err 'onnx'
expect 2 convert softmax --out there --dtype q8_0
says err "--dtype q8_0 is for GGUF and llama2.c"
one_line
[ ! -e there ] || wrong "something was written"

# folders
for model in softpick softmax; do
    expect 0 convert "$model" --out "$model-hf"
    silent out
    for file in config.json model.safetensors generation_config.json tokenizer.json tokenizer_config.json; do
        [ -s "$model-hf/$file" ] || wrong "$model-hf has no $file"
    done
    expect 0 convert "$model-hf" --out "$model-again"
    cmp -s "$model-hf/model.safetensors" "$model-again/model.safetensors" || wrong "the tensors differ"
    cmp -s "$model-hf/config.json" "$model-again/config.json" || wrong "the configs differ"
    same_text "$model" "$model-hf" "$model-again"
done
expect 2 convert softmax --out softmax-hf
says err "softmax-hf: exists already"
expect 0 convert softmax --out softmax-hf --force --dtype bf16 --shard-size 60k
says "softmax-hf/config.json" '"dtype": "bfloat16"'
[ -s softmax-hf/model.safetensors.index.json ] || wrong "no shards"
[ ! -e softmax-hf/model.safetensors ] || wrong "what was there before is still there"

# no other program runs softpick as softmax
says softpick-hf/config.json '"model_type": "softpick_llama"'
says softpick-hf/config.json '"auto_map"'
for file in configuration_softpick_llama.py modeling_softpick_llama.py; do
    cmp -s "softpick-hf/$file" "$here/../python/softpick_llama/$file" || wrong "$file is missing or another"
    [ ! -e "softmax-again/$file" ] || wrong "$file stands beside a softmax model"
done
says softmax-again/config.json '"model_type": "llama"'
for kind in llama fla llama2c; do
    expect 1 convert softpick --to "$kind" --out guarded
    one_line
    says err "softmax"
    [ ! -e guarded ] || wrong "something was written"
done
expect 0 convert softpick --to llama --as-softmax --out as-softmax
says err "will compute something else"
says as-softmax/config.json '"model_type": "llama"'
expect 0 convert softpick --to fla --for-fork --out fork
says err "for the softpick fork"
says fork/config.json '"attn_impl": "parallel_softpick_attn"'
expect 0 convert softmax --to fla --out fla
silent err
says fla/config.json '"attn_impl": "flash_attn"'
same_text softpick fork
same_text softmax fla
expect 3 convert softpick-hf --attention softmax --out other
says err "attention is softpick"

# GGUF
for model in softpick softmax; do
    expect 0 convert "$model" --to gguf --out "$model.gguf"
    expect 0 convert "$model.gguf" --tokenizer shards --out "$model-from-gguf"
    cmp -s "$model-from-gguf/model.safetensors" "$model-again/model.safetensors" || wrong "the tensors differ"
    same_text "$model" "$model-from-gguf" "$model.gguf"
    expect 0 convert "$model.gguf" --to gguf --out again.gguf --force
    cmp -s "$model.gguf" again.gguf || wrong "the second file is another"
    for dtype in f16 bf16 q8_0; do
        expect 0 convert "$model" --to gguf --dtype "$dtype" --out "$dtype.gguf" --force
        expect 0 generate "$dtype.gguf" --prompt "line 7 says" --temperature 0 --tokens 5
    done
done
for more in "--attention softmax_sink" "--row-factor"; do # numbers that LLaMA does not have
    # shellcheck disable=SC2086
    expect 0 train $tiny $more --out more
    expect 0 convert more --to gguf --out more.gguf --force
    expect 0 convert more.gguf --out more-back --force
    expect 0 convert more --out more-hf --force
    cmp -s more-hf/model.safetensors more-back/model.safetensors || wrong "the tensors differ ($more)"
    cmp -s more-hf/config.json more-back/config.json || wrong "the configs differ ($more)"
    expect 1 convert more --to llama --as-softmax --out guarded
    says err "has learned numbers in its attention"
    rm -r more
done
grep -q "softpick-llama" softpick.gguf || wrong "the architecture is not softpick-llama"
! grep -q "softpick" softmax.gguf || wrong "a softmax model names softpick"

# models of other kinds: through GGUF and back
for model in llama-biases llama-linear llama-llama3 mistral-window qwen2 qwen3; do
    expect 0 convert "$here/vectors/logits/$model" --out "$model"
    expect 0 convert "$model" --to gguf --out "$model.gguf"
    expect 0 convert "$model.gguf" --out "$model-back"
    cmp -s "$model/model.safetensors" "$model-back/model.safetensors" || wrong "the tensors differ"
    # what GGUF does not tell, or tells in other numbers
    for file in "$model/config.json" "$model-back/config.json"; do
        grep -vE "initializer_range|low_freq_factor|high_freq_factor|original_max" "$file" >"$file.part"
    done
    cmp -s "$model/config.json.part" "$model-back/config.json.part" || wrong "the configs differ"
done

# llama2.c, which knows one eps
expect 1 convert softmax --to llama2c --out no.bin
says err "rms_norm_eps is 1e-06"
[ ! -e no.bin ] || wrong "something was written"
mkdir eps
cp softmax-again/* eps
sed -i 's/"rms_norm_eps": 1e-06/"rms_norm_eps": 1e-05/; s/"rms_norm_eps": 1e-6/"rms_norm_eps": 1e-05/' eps/config.json
expect 0 convert eps --to llama2c --out eps.bin
[ -s eps.tokenizer.bin ] || wrong "no tokenizer"
expect 0 convert eps.bin --tokenizer eps.tokenizer.bin --out eps-again
cmp -s eps/model.safetensors eps-again/model.safetensors || wrong "the tensors differ"
same_text eps eps-again eps.bin
expect 0 convert eps-again --to llama2c --out again.bin
cmp -s eps.bin again.bin || wrong "the second file is another"
cmp -s eps.tokenizer.bin again.tokenizer.bin || wrong "the second tokenizer is another"
expect 0 convert eps --to llama2c --dtype q8_0 --out codes.bin
same_text codes.bin
expect 0 convert codes.bin --out codes
silent err
rm codes.tokenizer.bin
expect 0 convert codes.bin --out codes --force
says err "codes.bin: has no tokenizer"
expect 3 generate codes.bin
says err "codes.bin: has no tokenizer"
expect 0 generate codes.bin --tokenizer eps --tokens 3

# bad input: one line that names the file, and nothing written
bad() { # FILE WORDS
    expect 3 convert "$1" --out bad
    one_line
    says err "$2"
    [ ! -e bad ] || wrong "something was written"
}
head -c 3000 softmax.gguf >short.gguf
bad short.gguf "short.gguf: "
head -c 3000 eps.bin >short.bin
bad short.bin "short.bin: a llama2.c model of these sizes has"
echo "a letter to nobody in particular, longer than a head" >letter.txt
bad letter.txt "letter.txt: not a model of llama2.c (nor GGUF)"
bad nowhere "nowhere: no such folder or file"
printf 'PK\003\004 and so on, and so on, and so on' >model.pth
expect 1 convert model.pth --out bad
says err "model.pth: a pickle"
one_line
expect 1 convert softmax-again/model.safetensors --out bad
says err "model.safetensors: tensors alone are no model"
expect 3 convert softmax --tokenizer letter.txt --out bad
[ ! -e bad ] || wrong "something was written"
for file in *.swap-* *.tmp.*; do
    [ ! -e "$file" ] || wrong "$file was left"
done

# the real model, where it is
data=${SOFTPICK_DATA:-$here/../../shared/data}
if [ -e "$data/ckpt/stories260K.bin" ]; then
    expect 0 convert "$data/ckpt/stories260K.bin" --tokenizer "$data/tokenizer/stories/tok512.bin" --out stories
    expect 0 generate stories --temperature 0
    cmp -s out "$data/ckpt/stories260K.golden.txt" || wrong "is not the golden text"
    expect 0 convert stories --to gguf --out stories.gguf
    expect 0 generate stories.gguf --temperature 0
    cmp -s out "$data/ckpt/stories260K.golden.txt" || wrong "is not the golden text"
    expect 0 generate "$data/ckpt/llama-2-tiny-random.gguf" --tokens 5
fi
finish
