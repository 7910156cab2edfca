/* The order of the tensors in llama2.c's model files. */
#include "checkpoint/llama2c_model.h"

#include "base/memory.h"

enum part { EMBEDDING, NORM_IN, Q, K, V, OUT, NORM_MID, GATE, DOWN, UP, NORM, COSINES, SINES, HEAD, N_PARTS };
_Static_assert((int)N_PARTS == (int)SP_LLAMA2C_PARTS, "the header says how many");

static const int order_old[] = {EMBEDDING, NORM_IN, Q, K, V, OUT, NORM_MID, GATE, DOWN, UP, NORM, COSINES, SINES, HEAD};
static const int order_new[] = {NORM_IN, NORM_MID, NORM, EMBEDDING, Q, K, V, OUT, GATE, DOWN, UP, HEAD};

int sp_llama2c_list_parts(sp_llama2c_part parts[SP_LLAMA2C_PARTS], const sp_llama2c_shape *s) {
    int64_t D = s->width / s->n_heads, kv = D * s->n_kv_heads, table = s->max_positions * (D / 2);
    const sp_llama2c_part all[N_PARTS] = {
        [EMBEDDING] = {"model.embed_tokens.weight", false, false, s->vocabulary, s->width, 0},
        [NORM_IN] = {"input_layernorm.weight", true, true, 0, s->width, 0},
        [Q] = {"self_attn.q_proj.weight", true, false, s->width, s->width, s->n_heads},
        [K] = {"self_attn.k_proj.weight", true, false, kv, s->width, s->n_kv_heads},
        [V] = {"self_attn.v_proj.weight", true, false, kv, s->width, 0},
        [OUT] = {"self_attn.o_proj.weight", true, false, s->width, s->width, 0},
        [NORM_MID] = {"post_attention_layernorm.weight", true, true, 0, s->width, 0},
        [GATE] = {"mlp.gate_proj.weight", true, false, s->ffn_width, s->width, 0},
        [DOWN] = {"mlp.down_proj.weight", true, false, s->width, s->ffn_width, 0},
        [UP] = {"mlp.up_proj.weight", true, false, s->ffn_width, s->width, 0},
        [NORM] = {"model.norm.weight", false, true, 0, s->width, 0},
        [COSINES] = {NULL, false, true, 0, table, 0},
        [SINES] = {NULL, false, true, 0, table, 0},
        [HEAD] = {"lm_head.weight", false, false, s->vocabulary, s->width, 0},
    };
    const int *order = s->version == 0 ? order_old : order_new;
    int n = s->version == 0 ? (int)(sizeof order_old / sizeof *order_old) : (int)(sizeof order_new / sizeof *order_new);
    if (s->tied) n--; /* the head is the last */
    for (int i = 0; i < n; i++) parts[i] = all[order[i]];
    return n;
}

int64_t sp_llama2c_part_count(const sp_llama2c_part *part) { return (part->rows ? part->rows : 1) * part->columns; }

bool sp_llama2c_part_bytes(int64_t *n_bytes, const sp_llama2c_part *part, const sp_llama2c_shape *shape) {
    int64_t n = sp_llama2c_part_count(part), scales;
    if (shape->version < 2 || part->is_norm) return sp_multiply_sizes(n, 4, n_bytes);
    return n % shape->group == 0 && sp_multiply_sizes(n / shape->group, 4, &scales) && sp_add_sizes(n, scales, n_bytes);
}
