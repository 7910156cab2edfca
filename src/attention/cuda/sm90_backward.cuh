/* Backward on Hopper, the main kernel.  A block of threads stays on its multiprocessor and takes one block of 128 keys
 * after another; it keeps the keys and walks over the tiles of queries that see them, for every query head of the key
 * head:
 *
 *   s = k q'   g = v dout'                       keys x queries, 64 keys a group, 64 queries at a time
 *   w, ds from s, g and the rows' facts          docs/softpick.md; in registers
 *   dv += w dout    dk += ds q                   w and ds are in registers what these take
 *   dq_sum += ds' k                              all keys of the block: ds goes through shared memory
 *
 *   group 0         threads that move things (sm90_backward_roles.cuh)
 *   groups 1, 2     64 keys each; dk and dv stay in registers
 *
 * The groups do not wait for each other: dq of a tile is computed two tiles later, when the other group's ds has long been
 * there, and added up by a thread of group 0.  Heads of 64 channels leave registers free, for the group's keys and values.
 *
 * With liveness words a group leaves out g and dv of 64 keys x 64 queries among which no weight is positive: there
 * ds = lambda delta u, whatever the values are; and whole tiles are left out that have nothing to say to the block's keys.
 *
 * dq is summed over the blocks in global memory.  The blocks of a head add to a tile in order, each after the one before
 * has said so in dq_turn: the sum is the same each time.  The first one stores; the last one, which nobody comes after,
 * adds what there is to its own share and writes dq.  Blocks begin in that order too (by tickets), heads side by side, so
 * that none waits for one that has not begun:
 *
 *   falling keys    each walks up from its diagonal, a tile before the block that has begun before it: under a causal mask
 *                   none waits at all, but the longest blocks come last
 *   rising keys     each walks down from the last tile, behind the block that has begun before it; the longest come first.
 *                   Pays where a step is long beside the handing over of a tile: for wide heads
 *
 * With any_order nobody waits, dq_sum begins as 0, and dq is narrowed by a kernel of its own. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_CUH

#include "attention/cuda/sm90_backward_roles.cuh"

extern "C" {
#include "attention/normalizer.h"
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- scores to weights and gradients ------------------------------------------------------------------------------------ */

/* Gradients of scores near 0 may exceed what f16 holds: where all scores of a row are, weights rise by 1/eps. */
template <typename half_t> __device__ __forceinline__ float hopper_within_range(float x) { return x; }
template <> __device__ __forceinline__ float hopper_within_range<__half>(float x) {
    asm("min.NaN.f32 %0, %0, 0f477FE000;" : "+f"(x));
    asm("max.NaN.f32 %0, %0, 0fC77FE000;" : "+f"(x));
    return x;
}

/* x, which is not negative, with the sign of y. */
__device__ __forceinline__ float hopper_signed(float x, float y) {
    return __uint_as_float(__float_as_uint(x) | (__float_as_uint(y) & 0x80000000u));
}

/* The gradient of a score from the weight in the exponential family, in softpick with a sign where the score is not
 * positive, and its value's gradient g. */
template <typename half_t, bool SOFTPICK>
__device__ __forceinline__ float hopper_gradient(float u, float g, float delta, float dead) {
    if (!SOFTPICK) return u * (g - delta);
    float slope = __float_as_int(u) < 0 ? dead : g - delta;
    return hopper_within_range<half_t>(fabsf(u) * slope);
}

/* Queries [first, end) that see a key, counted from this lane's first column. */
struct hopper_queries {
    int first, end;
};

/* ---- a group that computes ------------------------------------------------------------------------------------------------ */

template <typename half_t, bool SOFTPICK, typename shape> struct hopper_backward_group {
    typedef uint32_t held[shape::WIDTH / 4];
    typedef uint32_t packed[PASS_SCORES / 2]; /* 64 keys x 64 queries of the group, rounded: the A of a product */

    const backward_task &task;
    hopper_backward_rings<shape> rings;
    const char *const shared;
    const int group;
    const hopper_step *const steps;
    int turn = 0; /* tiles that this group has begun */
    ring_place<1> key_place, dq_place;
    float scale; /* dot product to score in log2 units */
    float dk[shape::SUMS], dv[shape::SUMS];
    float s[PASS_SCORES], g[PASS_SCORES];
    held k_rows, v_rows;

    __device__ __forceinline__ hopper_backward_group(const hopper_backward &job, const char *memory, int number)
        : task(job.task), rings(shared_address(memory)), shared(memory), group(number),
          steps((const hopper_step *)(memory + shape::ITEMS_FIRST + shape::ITEM_PLACES * sizeof(hopper_block))),
          scale(job.task.scale * LOG2_E) {}

    __device__ __forceinline__ void arrive(uint32_t barrier) { barrier_arrive_warp(barrier); }
    /* Where the tile that has begun last lies, and its ds; and which time round that is. */
    __device__ __forceinline__ int stage() { return turn % shape::STAGES; }
    __device__ __forceinline__ uint32_t parity() { return turn / shape::STAGES % 2; }
    __device__ __forceinline__ const hopper_step &step_of(int number) { return steps[number % shape::STEP_PLACES]; }
    __device__ __forceinline__ int warp() { return threadIdx.x % GROUP_THREADS / LANES; }
    /* This lane's keys within the block are this and the one 8 further. */
    __device__ __forceinline__ int own_key() { return group * GROUP_KEYS + warp() * 16 + threadIdx.x % LANES / 4; }

    /* ---- what is not there ---- */

    /* Rows [first, end) of an operand in shared memory become zeros.  Every group writes them for itself, the same to the
     * same places. */
    __device__ __forceinline__ void clear_rows(uint32_t operand, int panel_bytes, int first, int end) {
        for (int panel = 0; panel < shape::PANELS; panel++)
            for (int i = first * 8 + threadIdx.x % GROUP_THREADS; i < end * 8; i += GROUP_THREADS)
                asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(operand + panel * panel_bytes + i * 16),
                             "r"(0)
                             : "memory");
    }
    __device__ __forceinline__ void finish_clearing() {
        publish_to_engines();
        role_sleep();
        asm volatile("bar.sync %0, %1;" ::"r"(2 + group), "n"((int)GROUP_THREADS) : "memory");
    }

    /* What follows a sequence in memory may be anything. */
    __device__ __forceinline__ void clear_keys(const hopper_block &block) {
        int n = max(block.sequence.n_k - block.index * shape::KEYS, 0);
        if (n >= shape::KEYS || !task.sequences) return;
        clear_rows(rings.k(), shape::K_PANEL_BYTES, n, shape::KEYS);
        clear_rows(rings.v(), shape::K_PANEL_BYTES, n, shape::KEYS);
        finish_clearing();
    }
    __device__ __forceinline__ void clear_queries(const hopper_block &block, int tile) {
        int n = block.sequence.n_q - tile * shape::QUERIES;
        if (n >= shape::QUERIES || !task.sequences) return;
        clear_rows(rings.q(stage()), shape::Q_PANEL_BYTES, n, shape::QUERIES);
        clear_rows(rings.dout(stage()), shape::Q_PANEL_BYTES, n, shape::QUERIES);
        finish_clearing();
    }

    /* ---- products ---- */

    __device__ __forceinline__ void queue_rows(float (&c)[PASS_SCORES], uint32_t keys, uint32_t queries) {
        uint64_t a = operand_descriptor(keys + group * (GROUP_KEYS * TILE_ROW_BYTES), 16);
        uint64_t b = operand_descriptor(queries, 16);
#pragma unroll
        for (int i = 0; i < shape::WIDTH / 16; i++)
            product<half_t, PASS_QUERIES>::along_k(c, operand_at(a, i / 4 * shape::K_PANEL_BYTES + i % 4 * 32),
                                                   operand_at(b, i / 4 * shape::Q_PANEL_BYTES + i % 4 * 32), i > 0);
    }
    __device__ __forceinline__ void queue_held_rows(float (&c)[PASS_SCORES], const held &keys, uint32_t queries) {
        uint64_t b = operand_descriptor(queries, 16);
#pragma unroll
        for (int i = 0; i < shape::WIDTH / 16; i++)
            product_along<half_t>::queue(c, keys + 4 * i, operand_at(b, i / 4 * shape::Q_PANEL_BYTES + i % 4 * 32),
                                         i > 0);
    }
    __device__ __forceinline__ void queue_scores(int stage, int pass) {
        uint32_t q = rings.q(stage) + pass * shape::PASS_BYTES;
        if (shape::HELD)
            queue_held_rows(s, k_rows, q);
        else
            queue_rows(s, rings.k(), q);
    }
    __device__ __forceinline__ void queue_value_gradients(int stage, int pass) {
        uint32_t dout = rings.dout(stage) + pass * shape::PASS_BYTES;
        if (shape::HELD_VALUES)
            queue_held_rows(g, v_rows, dout);
        else
            queue_rows(g, rings.v(), dout);
    }
    /* This group's rows of keys, or of values, into registers. */
    __device__ __forceinline__ void hold_rows(held &rows, uint32_t operand) {
        const int lane = threadIdx.x % LANES;
        const uint32_t from = operand + (group * GROUP_KEYS + warp() * 16 + lane % 16) * TILE_ROW_BYTES;
#pragma unroll
        for (int i = 0; i < shape::WIDTH / 16; i++)
            load_matrices(rows + 4 * i,
                          from + i / 4 * shape::K_PANEL_BYTES + ((i % 4 * 2 + lane / 16) ^ lane % 8) * CHUNK_BYTES);
    }

    __device__ __forceinline__ void queue_sums(float (&c)[shape::SUMS], const packed &a, uint32_t queries) {
        uint64_t b = operand_descriptor(queries, shape::Q_PANEL_BYTES);
#pragma unroll
        for (int i = 0; i < PASS_QUERIES / 16; i++)
            product<half_t, shape::WIDTH>::across_k(c, a + 4 * i, operand_at(b, i * 16 * TILE_ROW_BYTES), true);
    }
    __device__ __forceinline__ void queue_value_sums(const packed &w, int stage, int pass) {
        queue_sums(dv, w, rings.dout(stage) + pass * shape::PASS_BYTES);
    }
    __device__ __forceinline__ void queue_key_sums(const packed &ds, int stage, int pass) {
        queue_sums(dk, ds, rings.q(stage) + pass * shape::PASS_BYTES);
    }

    /* 64 queries x 64 channels of dq: of a tile with two passes this group's, else this group's channels. */
    __device__ __forceinline__ void queue_dq(float (&dq)[PASS_SCORES], int from) {
        uint64_t a = operand_descriptor(rings.ds_pass(from, shape::PASSES > 1 ? group : 0), 16);
        uint64_t b = operand_descriptor(rings.k() + (shape::PANELS > 1 ? group * shape::K_PANEL_BYTES : 0), 16);
#pragma unroll
        for (int i = 0; i < shape::KEYS / 16; i++)
            product_across<half_t>::queue(dq, operand_at(a, i * 16 * TILE_ROW_BYTES),
                                          operand_at(b, i * 16 * TILE_ROW_BYTES), i > 0);
    }

    /* ---- weighing ---- */

    /* The score of element i of the accumulators' pair x in log2 units, less its row's log2_d. */
    template <bool MASKED>
    __device__ __forceinline__ float score_of(const float *x, int i, float log2_d, int column, hopper_queries seen) {
        float score = fmaf(x[i], scale, -log2_d);
        return MASKED && (column + i < seen.first || column + i >= seen.end) ? -INFINITY : score;
    }

    /* s becomes weights of the exponential family, w those that count; in softpick those of scores that are not positive get
     * a sign.  They are no larger than 1/D, by the same rounding. */
    template <bool MASKED>
    __device__ __forceinline__ void weigh_scores(packed &w, const backward_row_pair *rows,
                                                 const hopper_queries (&seen)[2]) {
#pragma unroll
        for (int j = 0; j < PASS_QUERIES / 8; j++) {
            const float4 four = *(const float4 *)rows[4 * j].log2_d;
            const float log2_d[2] = {four.x, four.y}, given[2] = {four.z, four.w};
            float least[2]; /* what counts: numbers from this on, or scores above it */
#pragma unroll
            for (int i = 0; i < 2; i++)
                least[i] = !SOFTPICK           ? task.rectifies ? -log2_d[i] : -INFINITY
                           : shape::READS_UNIT ? given[i]
                                               : __int_as_float(__float_as_int(power_of_two_near(-log2_d[i])) + 1);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float *x = s + 4 * j + 2 * half, more[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float score = score_of<MASKED>(x, i, log2_d[i], 8 * j, seen[half]);
                    x[i] = power_of_two_near(!SOFTPICK && score <= least[i] ? -INFINITY : score);
                    more[i] = SOFTPICK ? x[i] - least[i] : x[i];
                    if (SOFTPICK) x[i] = hopper_signed(x[i], more[i]);
                }
                w[j / 2 * 4 + j % 2 * 2 + half] =
                    SOFTPICK ? pack_positive_pair<half_t>(more[0], more[1]) : pack_pair<half_t>(more[0], more[1]);
            }
        }
    }

    /* Which of 64 queries from `query` of the sequence on see this lane's keys; false: all of them see all of the group's. */
    __device__ __forceinline__ bool find_unseen(hopper_queries (&seen)[2], const hopper_block &block, int query) {
        const backward_sequence &sequence = block.sequence;
        const int first = block.index * shape::KEYS + group * GROUP_KEYS;
        if (visible_keys(task, sequence, query).end >= first + GROUP_KEYS &&
            visible_keys(task, sequence, query + PASS_QUERIES - 1).first <= first)
            return false;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int key = block.index * shape::KEYS + own_key() + 8 * half, here = query + threadIdx.x % 4 * 2;
            int since = key - (sequence.n_k - sequence.n_q) - here; /* the query that stands at this key */
            seen[half].first = task.causal || task.window ? since : 0;
            seen[half].end = key >= sequence.n_k ? -1 : task.window ? since + min(task.window, LONG_WINDOW) : 1 << 30;
        }
        return true;
    }

    __device__ __forceinline__ void weigh_pass(packed &w, const hopper_block &block, int query,
                                               const backward_row_pair *rows) {
        hopper_queries seen[2];
        if (find_unseen(seen, block, query))
            weigh_scores<true>(w, rows, seen);
        else
            weigh_scores<false>(w, rows, seen);
    }

    __device__ __forceinline__ void differentiate(packed &ds, const backward_row_pair *rows) {
#pragma unroll
        for (int j = 0; j < PASS_QUERIES / 8; j++) {
            const float2 delta = *(const float2 *)rows[4 * j].delta;
            const float dead[2] = {task.lambda * delta.x, task.lambda * delta.y};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int at = 4 * j + 2 * half;
                ds[j / 2 * 4 + j % 2 * 2 + half] =
                    pack_pair<half_t>(hopper_gradient<half_t, SOFTPICK>(s[at], g[at], delta.x, dead[0]),
                                      hopper_gradient<half_t, SOFTPICK>(s[at + 1], g[at + 1], delta.y, dead[1]));
            }
        }
    }

    /* ds where no key of the group weighs: s becomes weights of the exponential family. */
    template <bool MASKED>
    __device__ __forceinline__ void differentiate_dead(packed &ds, const backward_row_pair *rows,
                                                       const hopper_queries (&seen)[2]) {
#pragma unroll
        for (int j = 0; j < PASS_QUERIES / 8; j++) {
            const backward_row_pair row = rows[4 * j];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float *x = s + 4 * j + 2 * half;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float score = score_of<MASKED>(x, i, row.log2_d[i], 8 * j, seen[half]);
                    x[i] = hopper_within_range<half_t>(power_of_two_near(score) * (task.lambda * row.delta[i]));
                }
                ds[j / 2 * 4 + j % 2 * 2 + half] = pack_pair<half_t>(x[0], x[1]);
            }
        }
    }

    __device__ __forceinline__ void differentiate_dead_pass(packed &ds, const hopper_block &block, int query,
                                                            const backward_row_pair *rows) {
        hopper_queries seen[2];
        if (find_unseen(seen, block, query))
            differentiate_dead<true>(ds, rows, seen);
        else
            differentiate_dead<false>(ds, rows, seen);
    }

    /* ds to shared memory, keys x queries. */
    __device__ __forceinline__ void store_ds(const packed &ds, int pass) {
        const int lane = threadIdx.x % LANES;
        const uint32_t row =
            rings.ds_pass(stage(), pass) + (group * GROUP_KEYS + warp() * 16 + lane % 16) * TILE_ROW_BYTES;
#pragma unroll
        for (int i = 0; i < PASS_QUERIES / 16; i++)
            store_matrices(row + ((2 * i + lane / 16) ^ lane % 8) * CHUNK_BYTES, ds + 4 * i);
    }

    /* dq to shared memory for the thread that adds, in the order of dq_sum: that of the registers of 8 channels. */
    __device__ __forceinline__ void store_dq(const float (&dq)[PASS_SCORES]) {
        rings.dq.wait_empty(dq_place);
        dq_place.advance();
        uint32_t to = rings.dq_tile() + group * (shape::DQ_BYTES / 2) + threadIdx.x % GROUP_THREADS * 16;
#pragma unroll
        for (int j = 0; j < 8; j++)
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to + j * (GROUP_THREADS * 16)),
                         "f"(dq[4 * j]), "f"(dq[4 * j + 1]), "f"(dq[4 * j + 2]), "f"(dq[4 * j + 3])
                         : "memory");
        __syncwarp();
        arrive(rings.dq.full(0));
    }

    /* ---- results ---- */

    /* 64 rows x 2 N channels of sums, as products have them, times `factor`, narrowed: rows [first, end) of a tensor from
     * its channel `channel` on. */
    template <int N>
    static __device__ __forceinline__ void write(const backward_tensor &to, int b, int h, int first, int end,
                                                 int channel, const float (&sums)[N], float factor) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + threadIdx.x % GROUP_THREADS / LANES * 16 + threadIdx.x % LANES / 4 + 8 * half;
            const int here = channel + threadIdx.x % 4 * 8;
            half_t *at = (half_t *)to.at(b, row, h) + here;
#pragma unroll
            for (int j = 0; j < N / 4; j += 4) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    words[i] = pack_pair<half_t>(sums[4 * (j + i) + 2 * half] * factor,
                                                 sums[4 * (j + i) + 2 * half + 1] * factor);
                transpose_words(words);
                if (row < end && here + 8 * j < to.width)
                    *(uint4 *)(at + 8 * j) = make_uint4(words[0], words[1], words[2], words[3]);
            }
        }
    }

    /* dk or dv of the block. */
    __device__ __forceinline__ void write_keys(const backward_tensor &to, const float (&sums)[shape::SUMS],
                                               float factor, const hopper_block &block) {
        const backward_sequence &sequence = block.sequence;
        write(to, sequence.b, block.key_head, sequence.k_first + block.index * shape::KEYS + group * GROUP_KEYS,
              sequence.k_first + sequence.n_k_rows, 0, sums, factor);
    }

    /* dq of a tile to which this block is the last one to add: with what the others have added, to where it belongs. */
    __device__ __forceinline__ void write_dq(float (&dq)[PASS_SCORES], const hopper_block &block,
                                             const hopper_step &step) {
        const backward_sequence &sequence = block.sequence;
        if (step.before > 0) {
            const int64_t index = tile_index(task, sequence, step.h, step.tile * shape::PASSES);
            hopper_turn_wait(task.dq_turn + index, step.before);
            const float4 *sum = (const float4 *)(task.dq_sum + index * (shape::SUM_BYTES / 4)) +
                                group * (shape::DQ_BYTES / 32) + threadIdx.x % GROUP_THREADS;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float4 four = __ldcg(sum + j * GROUP_THREADS);
                dq[4 * j] += four.x, dq[4 * j + 1] += four.y, dq[4 * j + 2] += four.z, dq[4 * j + 3] += four.w;
            }
        }
        const int query = step.tile * shape::QUERIES + (shape::PASSES > 1 ? group * PASS_QUERIES : 0);
        write(task.dq, sequence.b, step.h, sequence.q_first + query, sequence.q_first + sequence.n_q,
              shape::PASSES > 1 ? 0 : group * 64, dq, task.scale);
    }

    /* dq of a tile, of which the product is done, to where it is added up. */
    __device__ __forceinline__ void leave_dq(const hopper_block &block, int number) {
        const hopper_step &step = step_of(number);
        arrive(rings.ds.empty(number % shape::STAGES));
        if (step.adds_last)
            write_dq(g, block, step);
        else
            store_dq(g);
    }

    /* This group's ds of a tile may be read.  It was stored long before: the fence does not wait. */
    __device__ __forceinline__ void publish_ds(int number) {
        publish_to_engines();
        role_sleep();
        __syncwarp();
        arrive(rings.ds.full(number % shape::STAGES));
    }

    /* ---- steps ---- */

    /* Queues scores and, with LATER_DQ, dq of the tile before the one before, which is waited for here, or is computed
     * behind the scores while those are weighed. */
    template <int PASS, bool LATER_DQ> __device__ __forceinline__ void run_scores(const hopper_block &block) {
        constexpr bool DQ = PASS == 0 && LATER_DQ;
        if (DQ) barrier_wait(rings.ds.full(stage()), parity() ^ 1);
        products_begin();
        if (DQ && !shape::DQ_LAST) {
            queue_dq(g, stage());
            products_commit();
        }
        queue_scores(stage(), PASS);
        products_commit();
        if (DQ && shape::DQ_LAST) {
            queue_dq(g, stage());
            products_commit();
        }
        if (!DQ || shape::DQ_LAST) return;
        products_wait<1>();
        registers_settle(g);
        leave_dq(block, turn - 2);
    }

    /* w and ds of 64 queries and dv; with words the scores have been waited for. */
    template <int PASS, bool LATER_DQ>
    __device__ __forceinline__ void run_live(packed &ds, const hopper_block &block, int query,
                                             const backward_row_pair *rows, bool first) {
        constexpr bool DQ = PASS == 0 && LATER_DQ && shape::DQ_LAST;
        packed w;
        if (!DQ) {
            products_begin();
            queue_value_gradients(stage(), PASS);
            products_commit();
        }
        if (!shape::WORDS) {
            products_wait<1>();
            registers_settle(s);
            after_scores<PASS>(first);
        }
        weigh_pass(w, block, query, rows);
        registers_settle(w);
        if (DQ) {
            products_wait<0>();
            registers_settle(g);
            leave_dq(block, turn - 2);
        }
        products_begin();
        if (DQ) {
            queue_value_gradients(stage(), PASS);
            products_commit();
        }
        queue_value_sums(w, stage(), PASS);
        products_commit();
        products_wait<1>();
        registers_settle(g);
        differentiate(ds, rows);
        registers_settle(ds);
        if (shape::WORDS) products_wait<0>();
    }

    template <int PASS> __device__ __forceinline__ void after_scores(bool first) {
        if (PASS == 0 && !first) {
            arrive(rings.stage.empty(stage() ^ 1));
            publish_ds(turn - 1);
        }
    }

    /* 64 queries of a tile. */
    template <int PASS, bool LATER_DQ>
    __device__ __forceinline__ void run_pass(packed &ds, const hopper_block &block, int tile, uint32_t words,
                                             bool first) {
        const int query = tile * shape::QUERIES + PASS * PASS_QUERIES;
        const backward_row_pair *rows =
            (const backward_row_pair *)(shared + shape::FACTS_FIRST + stage() * shape::FACTS_BYTES) +
            PASS * PASS_QUERIES / 2 + threadIdx.x % 4;
        run_scores<PASS, LATER_DQ>(block);
        if (shape::WORDS) {
            products_wait<0>();
            registers_settle(s);
            after_scores<PASS>(first);
        }
        if (!shape::WORDS || (words & 0x0f0f0f0fu << 4 * group)) {
            run_live<PASS, LATER_DQ>(ds, block, query, rows, first);
        } else {
            differentiate_dead_pass(ds, block, query, rows);
            registers_settle(ds);
        }
        products_begin();
        queue_key_sums(ds, stage(), PASS);
        products_commit();
        if (PASS == 0) barrier_wait(rings.ds.empty(stage()), parity() ^ 1);
        store_ds(ds, PASS);
    }

    /* True: it was the block's last one. */
    template <bool LATER_DQ> __device__ __forceinline__ bool run_tile(const hopper_block &block, bool first) {
        packed ds[2];
        barrier_wait(rings.stage.full(stage()), parity());
        const hopper_step &step = step_of(turn);
        const int tile = step.tile;
        clear_queries(block, tile);
        run_pass<0, LATER_DQ>(ds[0], block, tile, __shfl_sync(~0u, step.words[0], 0), first);
        if (shape::PASSES == 2)
            run_pass<shape::PASSES - 1, LATER_DQ>(ds[1], block, tile, __shfl_sync(~0u, step.words[1], 0), first);
        products_wait<0>();
        turn++;
        return step.last;
    }

    /* The tiles of a block.  dq of a tile is computed two tiles later, when the other group has surely come as far. */
    __device__ __forceinline__ void run_steps(const hopper_block &block) {
        const int begin = turn;
        bool last;
        rings.keys.wait_full(key_place);
        key_place.advance();
        clear_keys(block);
        if (shape::HELD) hold_rows(k_rows, rings.k());
        if (shape::HELD_VALUES) hold_rows(v_rows, rings.v());
#pragma unroll 1
        do last = run_tile<false>(block, turn == begin);
        while (!last && turn < begin + 2);
#pragma unroll 1
        while (!last) last = run_tile<true>(block, false);
        registers_settle(dk);
        registers_settle(dv);
        arrive(rings.stage.empty(stage() ^ 1));
        publish_ds(turn - 1);
#pragma unroll 1
        for (int number = max(turn - 2, begin); number < turn; number++) {
            barrier_wait(rings.ds.full(number % shape::STAGES), number / shape::STAGES % 2);
            products_begin();
            queue_dq(g, number % shape::STAGES);
            products_commit();
            products_wait<0>();
            registers_settle(g);
            leave_dq(block, number);
        }
        arrive(rings.keys.empty(0));
    }

    __device__ __forceinline__ void run(const hopper_block *blocks) {
        ring_place<shape::ITEM_PLACES> item_place;
        for (;; item_place.advance()) {
            rings.item.wait_full(item_place);
            const hopper_block &block = blocks[item_place.index];
            if (block.none) break;
#pragma unroll
            for (int i = 0; i < shape::SUMS; i++) dk[i] = dv[i] = 0;
            registers_settle(dk);
            registers_settle(dv);
            if (block.works) run_steps(block);
            write_keys(task.dk, dk, task.scale, block);
            write_keys(task.dv, dv, 1, block);
            __syncwarp();
            arrive(rings.item.empty(item_place.index));
        }
    }
};

#endif

/* ---- the kernel --------------------------------------------------------------------------------------------------------- */

template <typename half_t, bool SOFTPICK, typename shape>
__global__ void __launch_bounds__(shape::THREADS, 1)
    hopper_backward_kernel(const __grid_constant__ hopper_backward job) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char shared[];
    hopper_block *blocks = (hopper_block *)(shared + shape::ITEMS_FIRST);
    const int group = __shfl_sync(~0u, threadIdx.x / GROUP_THREADS, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&job.q), prefetch_map(&job.dout), prefetch_map(&job.k), prefetch_map(&job.v);
        hopper_backward_rings<shape>(shared_address(shared)).begin();
    }
    __syncthreads();
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"((int)shape::REGISTERS_COPY));
        if (threadIdx.x == 0) hopper_backward_taker<shape>(job, shared_address(shared), blocks).run();
        if (threadIdx.x == LANES) hopper_backward_copier<shape>(job, shared_address(shared), blocks).run();
        if (threadIdx.x == 2 * LANES) hopper_backward_adder<shape>(job, shared_address(shared), blocks).run();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((int)shape::REGISTERS_COMPUTE));
        hopper_backward_group<half_t, SOFTPICK, shape>(job, shared, group - 1).run(blocks);
    }
#endif
}

#endif
