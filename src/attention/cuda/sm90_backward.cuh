/* Backward on Hopper, the main kernel.  A block of threads stays on its multiprocessor and takes one block of 128 keys
 * after another; it keeps the keys and walks over the tiles of queries that see them, for every query head of the key
 * head:
 *
 *   s = k q'   g = v dout'                       keys x queries, 64 keys a group, 64 queries at a time
 *   w, ds from s, g and the rows' facts          docs/softpick.md; in registers
 *   dv += w dout    dk += ds q                   w and ds are in registers what these take
 *   dq_sum += ds' k                              all keys of the block: ds goes through shared memory
 *
 *   group 0         one thread takes blocks; one lets the copy engine fill the ring of query tiles, as far ahead as there
 *                   is room; one lets it add finished tiles of dq to dq_sum
 *   groups 1, 2     64 keys each; dk and dv stay in registers
 *
 *   shared memory   | k | v | q and dout a stage | ds | dq, f32 | facts a stage | barriers | numbers of blocks |
 *
 * Heads of 64 channels leave registers free: there the products for dv and dk are queued one pass late, behind the s and
 * g of the next pass, so that they run while that is weighed, and the keys stay in registers.  With 128 channels dv is
 * computed while ds is, and dk while ds goes through shared memory.
 *
 * dq is summed over the blocks in global memory.  The blocks of a head add to a tile in the order of falling keys, each
 * after the one before has said so in dq_turn: the sum is the same each time.  The first one stores; the last one, which
 * nobody comes after, adds what there is to its own share and writes dq.  Blocks begin in that order too (by tickets),
 * heads side by side: under a causal mask each begins at its diagonal, a tile before the block that has begun before it,
 * so that it comes to every tile after that one, and none waits for one that has not begun.  Else it is the adding thread
 * that waits.  With any_order nobody waits, dq_sum begins as 0, and dq is narrowed by a kernel of its own. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_CUH

#include "attention/cuda/sm80_backward_task.cuh"
#include "attention/cuda/sm90_backward_product.cuh"

extern "C" {
#include "attention/normalizer.h"
}

/* Everything a launch gets. */
struct hopper_backward {
    backward_task task;
    int n_heads;  /* sequences times key heads */
    int section;  /* of these are worked through together */
    int n_blocks; /* of the longest sequence */
    CUtensorMap q, dout, k, v;
};

enum { GROUP_THREADS = 128, GROUP_KEYS = 64, PASS_QUERIES = 64, PASS_SCORES = 32 /* of a thread */ };
enum { LONG_WINDOW = 1 << 29 /* no sequence has as many keys */ };

template <int WIDTH_> struct hopper_backward_shape {
    enum {
        WIDTH = WIDTH_, /* channels, padded */
        GROUPS = 2,
        WARPS = GROUPS * GROUP_THREADS / LANES,
        THREADS = (GROUPS + 1) * GROUP_THREADS,
        KEYS = GROUPS * GROUP_KEYS,
        PASSES = 128 / WIDTH, /* of 64 queries in a tile */
        QUERIES = PASSES * PASS_QUERIES,
        LATE = PASSES > 1, /* products for dv and dk are queued behind the s and g of the next pass */
        HELD = PASSES > 1, /* keys stay in registers too */
        STAGES = 3,
        PANELS = WIDTH / TILE_ROW, /* of 64 channels: a tile is one after the other */
        SUMS = WIDTH / 2,          /* numbers of dk or dv of a thread */
        K_PANEL_BYTES = KEYS * TILE_ROW_BYTES,
        K_BYTES = PANELS * K_PANEL_BYTES,
        Q_PANEL_BYTES = QUERIES * TILE_ROW_BYTES,
        Q_BYTES = PANELS * Q_PANEL_BYTES,
        PASS_BYTES = PASS_QUERIES * TILE_ROW_BYTES, /* of a panel of q */
        DS_PASS_BYTES = KEYS * TILE_ROW_BYTES,
        DQ_BYTES = QUERIES * WIDTH * 4,
        FACTS_BYTES = QUERIES * (int)sizeof(backward_row),
        V_FIRST = K_BYTES,
        STAGES_FIRST = 2 * K_BYTES,
        DS_FIRST = STAGES_FIRST + STAGES * 2 * Q_BYTES,
        DQ_FIRST = DS_FIRST + PASSES * DS_PASS_BYTES,
        FACTS_FIRST = DQ_FIRST + DQ_BYTES,
        ITEM_PLACES = 2,
        STAGE_BARRIERS = FACTS_FIRST + STAGES * FACTS_BYTES,
        ITEM_BARRIERS = STAGE_BARRIERS + 16 * STAGES,
        KEY_BARRIERS = ITEM_BARRIERS + 16 * ITEM_PLACES,
        DQ_BARRIERS = KEY_BARRIERS + 16,
        DS_BARRIERS = DQ_BARRIERS + 16,
        NEXT_BARRIERS = DS_BARRIERS + 16,
        ITEMS_FIRST = NEXT_BARRIERS + 16,
        REGISTERS_COPY = 24,
        REGISTERS_COMPUTE = 240,
    };
};

/* A block of keys of one sequence and key head, and the tiles of queries that see any of them. */
struct hopper_block {
    backward_sequence sequence;
    int key_head, index;
    int tile_first, tile_end;
    int n_steps; /* tiles, of all query heads of the key head */
    bool none;   /* there is no such block: the end */
};

template <typename shape> constexpr int hopper_backward_bytes() {
    return shape::ITEMS_FIRST + shape::ITEM_PLACES * (int)sizeof(hopper_block);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- blocks and tiles --------------------------------------------------------------------------------------------- */

/* Keys that the queries of a tile see between them. */
template <typename shape>
__device__ __forceinline__ key_range hopper_tile_keys(const backward_task &task, const backward_sequence &sequence,
                                                      int tile) {
    int t = tile * shape::QUERIES;
    return {visible_keys(task, sequence, t).first,
            visible_keys(task, sequence, min(t + (int)shape::QUERIES, sequence.n_q) - 1).end};
}

/* Items: within a section the last block of each head, then those before. */
template <typename shape>
__device__ __forceinline__ void hopper_block_of(const hopper_backward &job, int item, hopper_block &block) {
    const backward_task &task = job.task;
    int per_section = job.section * job.n_blocks, first_head = item / per_section * job.section;
    int rest = item % per_section, heads = min(job.section, job.n_heads - first_head);
    int head = first_head + rest % heads, i = head / task.Hkv;
    block.none = false;
    block.sequence = task.sequences ? task.sequences[i] : alike_sequence(task, i);
    block.key_head = head % task.Hkv;
    block.index = job.n_blocks - 1 - rest / heads;
    const backward_sequence &sequence = block.sequence;
    const int first = block.index * shape::KEYS, n_tiles = (sequence.n_q + shape::QUERIES - 1) / shape::QUERIES;
    const int since = first - (sequence.n_k - sequence.n_q); /* the query that stands at the first key */
    block.tile_first = first >= sequence.n_k        ? n_tiles
                       : task.causal || task.window ? max(since, 0) / shape::QUERIES
                                                    : 0;
    block.tile_end = n_tiles;
    if (task.window)
        block.tile_end = min(
            max(since + shape::KEYS + min(task.window, LONG_WINDOW) + shape::QUERIES - 2, 0) / shape::QUERIES, n_tiles);
    block.n_steps = task.H / task.Hkv * max(block.tile_end - block.tile_first, 0);
}

/* The walk over the tiles of a block. */
struct hopper_walk {
    int h, tile;

    __device__ __forceinline__ hopper_walk(const backward_task &task, const hopper_block &block)
        : h(block.key_head * (task.H / task.Hkv)), tile(block.tile_first) {}
    __device__ __forceinline__ void advance(const hopper_block &block) {
        if (++tile == block.tile_end) tile = block.tile_first, h++;
    }
    /* Index of the tile's first 64 queries among those of all. */
    template <typename shape>
    __device__ __forceinline__ int64_t index(const backward_task &task, const hopper_block &block) const {
        return tile_index(task, block.sequence, h, tile * shape::PASSES);
    }
};

/* ---- rings ---------------------------------------------------------------------------------------------------------- */

template <typename shape> struct hopper_backward_rings {
    enum { STAGES = shape::STAGES, ITEM_PLACES = shape::ITEM_PLACES };
    uint32_t shared;
    ring_barriers<STAGES> stage;     /* q, dout and the facts of a tile */
    ring_barriers<ITEM_PLACES> item; /* numbers of a block */
    ring_barriers<1> keys;           /* k and v of a block */
    ring_barriers<1> dq;             /* a tile of dq */
    ring_barriers<1> ds;             /* `empty` alone */
    ring_barriers<1> next;           /* `empty` alone: no block has been taken that is still to begin */

    __device__ __forceinline__ hopper_backward_rings(uint32_t address) : shared(address) {
        stage.address = address + shape::STAGE_BARRIERS, item.address = address + shape::ITEM_BARRIERS;
        keys.address = address + shape::KEY_BARRIERS, dq.address = address + shape::DQ_BARRIERS;
        ds.address = address + shape::DS_BARRIERS, next.address = address + shape::NEXT_BARRIERS;
    }
    __device__ __forceinline__ void begin() {
        stage.begin(shape::WARPS);
        item.begin(shape::WARPS, 2);
        keys.begin(shape::WARPS);
        ds.begin(shape::WARPS);
        next.begin(0, 1);
        barrier_begin(dq.full(0), shape::WARPS * WARP_ARRIVALS);
        barrier_begin(dq.empty(0), 1);
        barriers_publish();
    }
    __device__ __forceinline__ uint32_t k() { return shared; }
    __device__ __forceinline__ uint32_t v() { return shared + shape::V_FIRST; }
    __device__ __forceinline__ uint32_t q(int i) { return shared + shape::STAGES_FIRST + i * 2 * shape::Q_BYTES; }
    __device__ __forceinline__ uint32_t dout(int i) { return q(i) + shape::Q_BYTES; }
    __device__ __forceinline__ uint32_t facts(int i) { return shared + shape::FACTS_FIRST + i * shape::FACTS_BYTES; }
    __device__ __forceinline__ uint32_t ds_pass(int i) { return shared + shape::DS_FIRST + i * shape::DS_PASS_BYTES; }
    __device__ __forceinline__ uint32_t dq_tile() { return shared + shape::DQ_FIRST; }
};

/* ---- the thread that takes blocks ------------------------------------------------------------------------------------- */

/* Tells the others what comes next, until there is no more. */
template <typename shape>
__device__ __forceinline__ void hopper_backward_take(const hopper_backward &job, uint32_t shared,
                                                     hopper_block *blocks) {
    hopper_backward_rings<shape> rings(shared);
    const int n_items = job.n_heads * job.n_blocks;
    static_assert(shape::ITEM_PLACES == 2, "parities of the n-th block's phases");
    for (int n = 0, item = 0; item < n_items; n++) {
        hopper_block &block = blocks[n % 2];
        barrier_wait(rings.item.empty(n % 2), n / 2 % 2 ^ 1);
        barrier_wait(rings.next.empty(0), n % 2 ^ 1);
        item = atomicAdd(job.task.ticket, 1);
        if (item < n_items)
            hopper_block_of<shape>(job, item, block);
        else
            block.none = true;
        barrier_arrive(rings.item.full(n % 2));
    }
}

/* ---- the thread that has tiles copied in ------------------------------------------------------------------------------ */

template <typename shape> struct hopper_backward_copier {
    const hopper_backward &job;
    hopper_backward_rings<shape> rings;
    const hopper_block *blocks;
    ring_place<shape::STAGES> place;
    ring_place<shape::ITEM_PLACES> item_place;
    ring_place<1> key_place;

    __device__ __forceinline__ hopper_backward_copier(const hopper_backward &all, uint32_t shared,
                                                      const hopper_block *places)
        : job(all), rings(shared), blocks(places) {}

    __device__ __forceinline__ void copy_keys(const hopper_block &block) {
        const backward_sequence &sequence = block.sequence;
        rings.keys.wait_empty(key_place);
        barrier_arrive_expecting(rings.keys.full(0), 2 * shape::K_BYTES);
        for (int panel = 0; panel < shape::PANELS; panel++) {
            int row = sequence.k_first + block.index * shape::KEYS, to = panel * shape::K_PANEL_BYTES;
            copy_box(rings.k() + to, &job.k, rings.keys.full(0), sequence.b, row, block.key_head, panel * TILE_ROW);
            copy_box(rings.v() + to, &job.v, rings.keys.full(0), sequence.b, row, block.key_head, panel * TILE_ROW);
        }
        key_place.advance();
    }

    __device__ __forceinline__ void copy_tile(const hopper_block &block, const hopper_walk &at) {
        const backward_sequence &sequence = block.sequence;
        const int i = place.index, row = sequence.q_first + at.tile * shape::QUERIES;
        rings.stage.wait_empty(place);
        uint32_t full = rings.stage.full(i);
        barrier_arrive_expecting(full, 2 * shape::Q_BYTES + shape::FACTS_BYTES);
        for (int panel = 0; panel < shape::PANELS; panel++)
            copy_box(rings.q(i) + panel * shape::Q_PANEL_BYTES, &job.q, full, sequence.b, row, at.h, panel * TILE_ROW);
        copy_bytes(rings.facts(i), job.task.row_facts + at.index<shape>(job.task, block) * TILE_QUERIES,
                   shape::FACTS_BYTES, full);
        for (int panel = 0; panel < shape::PANELS; panel++)
            copy_box(rings.dout(i) + panel * shape::Q_PANEL_BYTES, &job.dout, full, sequence.b, row, at.h,
                     panel * TILE_ROW);
        place.advance();
    }

    __device__ __forceinline__ void run() {
        for (;; item_place.advance()) {
            rings.item.wait_full(item_place);
            const hopper_block &block = blocks[item_place.index];
            if (block.none) break;
            hopper_walk at(job.task, block);
            for (int step = 0; step < block.n_steps; step++, at.advance(block)) {
                copy_tile(block, at);
                if (step == 0) copy_keys(block);
            }
            barrier_arrive(rings.item.empty(item_place.index));
            barrier_arrive(rings.next.empty(0));
        }
    }
};

/* Whose turn it is to add to a tile's dq: blocks add in the order of falling keys. */
__device__ __forceinline__ void hopper_turn_wait(const int *counter, int wanted) {
    int value;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    } while (value < wanted);
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* How many blocks add to the tile before this one, and whether it is the last one to. */
template <typename shape>
__device__ __forceinline__ int hopper_blocks_before(const backward_task &task, const hopper_block &block, int tile) {
    return (hopper_tile_keys<shape>(task, block.sequence, tile).end - 1) / shape::KEYS - block.index;
}
template <typename shape>
__device__ __forceinline__ bool hopper_is_last(const backward_task &task, const hopper_block &block, int tile) {
    return !task.any_order && block.index == hopper_tile_keys<shape>(task, block.sequence, tile).first / shape::KEYS;
}

/* ---- the thread that has dq added --------------------------------------------------------------------------------------- */

template <typename shape> struct hopper_backward_adder {
    const backward_task &task;
    hopper_backward_rings<shape> rings;
    const hopper_block *blocks;
    ring_place<shape::ITEM_PLACES> item_place;
    ring_place<1> place;

    __device__ __forceinline__ hopper_backward_adder(const hopper_backward &job, uint32_t shared,
                                                     const hopper_block *places)
        : task(job.task), rings(shared), blocks(places) {}

    /* The next block may add: what this thread has copied out is in place first. */
    static __device__ __forceinline__ void turn_pass(int *counter) {
        copies_out_wait();
        asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
    }

    __device__ __forceinline__ void add_tile(const hopper_block &block, const hopper_walk &at) {
        const int64_t index = at.index<shape>(task, block);
        int before = hopper_blocks_before<shape>(task, block, at.tile);
        if (hopper_is_last<shape>(task, block, at.tile)) return;
        if (!task.any_order) hopper_turn_wait(task.dq_turn + index, before);
        rings.dq.wait_full(place);
        copy_out(task.dq_sum + index * (TILE_QUERIES * shape::WIDTH), rings.dq_tile(), shape::DQ_BYTES,
                 task.any_order || before > 0);
        copies_out_wait_read();
        barrier_arrive(rings.dq.empty(0));
        place.advance();
        if (!task.any_order) turn_pass(task.dq_turn + index);
    }

    __device__ __forceinline__ void run() {
        for (;; item_place.advance()) {
            rings.item.wait_full(item_place);
            const hopper_block &block = blocks[item_place.index];
            if (block.none) break;
            hopper_walk at(task, block);
            for (int step = 0; step < block.n_steps; step++, at.advance(block)) add_tile(block, at);
            barrier_arrive(rings.item.empty(item_place.index));
        }
        copies_out_wait();
    }
};

/* ---- scores to weights and gradients ------------------------------------------------------------------------------------ */

/* Gradients of scores near 0 may exceed what f16 holds: where all scores of a row are, weights rise by 1/eps. */
template <typename half_t> __device__ __forceinline__ float hopper_within_range(float x) { return x; }
template <> __device__ __forceinline__ float hopper_within_range<__half>(float x) {
    asm("min.NaN.f32 %0, %0, 0f477FE000;" : "+f"(x));
    asm("max.NaN.f32 %0, %0, 0fC77FE000;" : "+f"(x));
    return x;
}

/* From the score x in log2 units, less the row's log2_d: the weight in the exponential family; 0 where the score counts as
 * not positive, but in softpick, which needs it for the gradient. */
template <bool SOFTPICK> __device__ __forceinline__ float hopper_power(float x, float unit) {
    float u = power_of_two_near(x);
    return !SOFTPICK && u <= unit ? 0 : u;
}

/* The gradient of a score from that and its value's gradient; i: which of the pair's queries. */
template <typename half_t, bool SOFTPICK>
__device__ __forceinline__ float hopper_gradient(float u, float g, const backward_row_pair &rows, int i) {
    if (!SOFTPICK) return u * (g - rows.delta[i]);
    float slope = u <= rows.unit[i] ? rows.dead_gradient[i] : g - rows.delta[i]; /* NaN is not dead */
    return hopper_within_range<half_t>(u * slope);
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
    ring_place<shape::STAGES> place;
    ring_place<1> key_place, dq_place, ds_place;
    int place_before; /* stage of the tile before */
    float scale;      /* dot product to score in log2 units */
    float dk[shape::SUMS], dv[shape::SUMS];
    float s[PASS_SCORES], g[PASS_SCORES];
    held k_rows;

    __device__ __forceinline__ hopper_backward_group(const hopper_backward &job, const char *memory, int number)
        : task(job.task), rings(shared_address(memory)), shared(memory), group(number), place_before(0),
          scale(job.task.scale * LOG2_E) {}

    __device__ __forceinline__ void arrive(uint32_t barrier) { barrier_arrive_warp(barrier); }
    __device__ __forceinline__ int warp() { return threadIdx.x % GROUP_THREADS / LANES; }
    /* This lane's keys within the block are this and the one 8 further. */
    __device__ __forceinline__ int own_key() { return group * GROUP_KEYS + warp() * 16 + threadIdx.x % LANES / 4; }

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
        queue_rows(g, rings.v(), rings.dout(stage) + pass * shape::PASS_BYTES);
    }
    /* This group's keys into registers. */
    __device__ __forceinline__ void hold_keys() {
        const int lane = threadIdx.x % LANES;
        const uint32_t from = rings.k() + (group * GROUP_KEYS + warp() * 16 + lane % 16) * TILE_ROW_BYTES;
#pragma unroll
        for (int i = 0; i < shape::WIDTH / 16; i++)
            load_matrices(k_rows + 4 * i,
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
    __device__ __forceinline__ void queue_dq(float (&dq)[PASS_SCORES]) {
        uint64_t a = operand_descriptor(rings.ds_pass(shape::PASSES > 1 ? group : 0), 16);
        uint64_t b = operand_descriptor(rings.k() + (shape::PANELS > 1 ? group * shape::K_PANEL_BYTES : 0), 16);
#pragma unroll
        for (int i = 0; i < shape::KEYS / 16; i++)
            product_across<half_t>::queue(dq, operand_at(a, i * 16 * TILE_ROW_BYTES),
                                          operand_at(b, i * 16 * TILE_ROW_BYTES), i > 0);
    }

    /* ---- weighing ---- */

    /* s becomes weights of the exponential family, w those that count. */
    template <bool MASKED>
    __device__ __forceinline__ void weigh_scores(packed &w, const backward_row_pair *rows,
                                                 const hopper_queries (&seen)[2]) {
#pragma unroll
        for (int j = 0; j < PASS_QUERIES / 8; j++) {
            const backward_row_pair row = rows[4 * j];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float *x = s + 4 * j + 2 * half;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    x[i] = fmaf(x[i], scale, -row.log2_d[i]);
                    if (MASKED && (8 * j + i < seen[half].first || 8 * j + i >= seen[half].end)) x[i] = -INFINITY;
                    x[i] = hopper_power<SOFTPICK>(x[i], row.unit[i]);
                }
                w[j / 2 * 4 + j % 2 * 2 + half] =
                    SOFTPICK ? pack_positive_pair<half_t>(x[0] - row.unit[0], x[1] - row.unit[1])
                             : pack_pair<half_t>(x[0], x[1]);
            }
        }
    }

    /* The same for 64 queries from `query` of the sequence on, with what the rows do not see. */
    __device__ __forceinline__ void weigh_pass(packed &w, const hopper_block &block, int query,
                                               const backward_row_pair *rows) {
        const backward_sequence &sequence = block.sequence;
        const int first = block.index * shape::KEYS + group * GROUP_KEYS;
        hopper_queries seen[2];
        if (visible_keys(task, sequence, query).end >= first + GROUP_KEYS &&
            visible_keys(task, sequence, query + PASS_QUERIES - 1).first <= first)
            return weigh_scores<false>(w, rows, seen);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int key = block.index * shape::KEYS + own_key() + 8 * half, here = query + threadIdx.x % 4 * 2;
            int since = key - (sequence.n_k - sequence.n_q) - here; /* the query that stands at this key */
            seen[half].first = task.causal || task.window ? since : 0;
            seen[half].end = key >= sequence.n_k ? -1 : task.window ? since + min(task.window, LONG_WINDOW) : 1 << 30;
        }
        weigh_scores<true>(w, rows, seen);
    }

    __device__ __forceinline__ void differentiate(packed &ds, const backward_row_pair *rows) {
#pragma unroll
        for (int j = 0; j < PASS_QUERIES / 8; j++) {
            const backward_row_pair row = rows[4 * j];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int at = 4 * j + 2 * half;
                ds[j / 2 * 4 + j % 2 * 2 + half] =
                    pack_pair<half_t>(hopper_gradient<half_t, SOFTPICK>(s[at], g[at], row, 0),
                                      hopper_gradient<half_t, SOFTPICK>(s[at + 1], g[at + 1], row, 1));
            }
        }
    }

    /* ds to shared memory, keys x queries. */
    __device__ __forceinline__ void store_ds(const packed &ds, int pass) {
        const int lane = threadIdx.x % LANES;
        const uint32_t row = rings.ds_pass(pass) + (group * GROUP_KEYS + warp() * 16 + lane % 16) * TILE_ROW_BYTES;
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
        publish_to_engines();
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
            half_t *at = (half_t *)to.at(b, row, h) + channel + threadIdx.x % 4 * 8;
#pragma unroll
            for (int j = 0; j < N / 4; j += 4) {
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    words[i] = pack_pair<half_t>(sums[4 * (j + i) + 2 * half] * factor,
                                                 sums[4 * (j + i) + 2 * half + 1] * factor);
                transpose_words(words);
                if (row < end) *(uint4 *)(at + 8 * j) = make_uint4(words[0], words[1], words[2], words[3]);
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
                                             const hopper_walk &at) {
        const backward_sequence &sequence = block.sequence;
        const int64_t index = at.index<shape>(task, block);
        const int before = hopper_blocks_before<shape>(task, block, at.tile);
        if (before > 0) {
            hopper_turn_wait(task.dq_turn + index, before);
            const float4 *sum = (const float4 *)(task.dq_sum + index * (TILE_QUERIES * shape::WIDTH)) +
                                group * (shape::DQ_BYTES / 32) + threadIdx.x % GROUP_THREADS;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float4 four = __ldcg(sum + j * GROUP_THREADS);
                dq[4 * j] += four.x, dq[4 * j + 1] += four.y, dq[4 * j + 2] += four.z, dq[4 * j + 3] += four.w;
            }
        }
        const int query = at.tile * shape::QUERIES + (shape::PASSES > 1 ? group * PASS_QUERIES : 0);
        write(task.dq, sequence.b, at.h, sequence.q_first + query, sequence.q_first + sequence.n_q,
              shape::PASSES > 1 ? 0 : group * 64, dq, task.scale);
    }

    /* ---- steps ---- */

    /* One pass: w, ds become those of its 64 queries; those of the pass before go into the sums, or its own. */
    template <int PASS>
    __device__ __forceinline__ void run_pass(packed &w, packed &ds, const packed &w_before, const packed &ds_before,
                                             const hopper_block &block, int tile) {
        const int stage_before = PASS > 0 ? place.index : place_before;
        const int query = tile * shape::QUERIES + PASS * PASS_QUERIES;
        const int pass_before = (PASS + shape::PASSES - 1) % shape::PASSES;
        const backward_row_pair *rows =
            (const backward_row_pair *)(shared + shape::FACTS_FIRST + place.index * shape::FACTS_BYTES) +
            PASS * PASS_QUERIES / 2 + threadIdx.x % 4;
        products_begin();
        queue_scores(place.index, PASS);
        products_commit();
        queue_value_gradients(place.index, PASS);
        products_commit();
        if (shape::LATE) {
            products_begin();
            queue_value_sums(w_before, stage_before, pass_before);
            queue_key_sums(ds_before, stage_before, pass_before);
            products_commit();
        }
        products_wait<shape::LATE ? 2 : 1>();
        registers_settle(s);
        weigh_pass(w, block, query, rows);
        registers_settle(w);
        if (!shape::LATE) {
            products_begin();
            queue_value_sums(w, place.index, PASS);
            products_commit();
        }
        products_wait<1>();
        registers_settle(g);
        differentiate(ds, rows);
        registers_settle(ds);
        if (!shape::LATE) {
            products_begin();
            queue_key_sums(ds, place.index, PASS);
            products_commit();
        }
        if (PASS == 0) {
            rings.ds.wait_empty(ds_place);
            ds_place.advance();
        }
        store_ds(ds, PASS);
    }

    /* After the passes of a tile: dq of it, from what both groups have put into shared memory. */
    __device__ __forceinline__ void finish_tile(const hopper_block &block, const hopper_walk &at, bool first) {
        float dq[PASS_SCORES];
        publish_to_engines();
        role_sleep();
        asm volatile("bar.sync 1, %0;" ::"n"(shape::GROUPS * GROUP_THREADS) : "memory");
        products_begin();
        queue_dq(dq);
        products_commit();
        products_wait<0>();
        registers_settle(dq);
        registers_settle(dk);
        registers_settle(dv);
        arrive(rings.ds.empty(0));
        if (!shape::LATE)
            arrive(rings.stage.empty(place.index));
        else if (!first)
            arrive(rings.stage.empty(place_before));
        place_before = place.index;
        place.advance();
        if (hopper_is_last<shape>(task, block, at.tile))
            write_dq(dq, block, at);
        else
            store_dq(dq);
    }

    /* ---- a block ---- */

    __device__ __forceinline__ void run_steps(const hopper_block &block) {
        packed w[2], ds[2]; /* of the two passes of a tile */
        hopper_walk at(task, block);
        if (shape::LATE) {
#pragma unroll
            for (int i = 0; i < PASS_SCORES / 2; i++) w[1][i] = ds[1][i] = 0;
            registers_settle(w[1]);
            registers_settle(ds[1]);
        }
        rings.keys.wait_full(key_place);
        key_place.advance();
        if (shape::HELD) hold_keys();
        place_before = place.index;
#pragma unroll 1
        for (int step = 0; step < block.n_steps; step++, at.advance(block)) {
            rings.stage.wait_full(place);
            run_pass<0>(w[0], ds[0], w[1], ds[1], block, at.tile);
            if (shape::PASSES == 2) run_pass<shape::PASSES - 1>(w[1], ds[1], w[0], ds[0], block, at.tile);
            finish_tile(block, at, step == 0);
        }
        arrive(rings.keys.empty(0));
        if (!shape::LATE) return;
        products_begin();
        queue_value_sums(w[1], place_before, 1);
        queue_key_sums(ds[1], place_before, 1);
        products_commit();
        products_wait<0>();
        registers_settle(dk);
        registers_settle(dv);
        arrive(rings.stage.empty(place_before));
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
            if (block.n_steps > 0) run_steps(block);
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
        if (threadIdx.x == 0) hopper_backward_take<shape>(job, shared_address(shared), blocks);
        if (threadIdx.x == LANES) hopper_backward_copier<shape>(job, shared_address(shared), blocks).run();
        if (threadIdx.x == 2 * LANES) hopper_backward_adder<shape>(job, shared_address(shared), blocks).run();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((int)shape::REGISTERS_COMPUTE));
        hopper_backward_group<half_t, SOFTPICK, shape>(job, shared, group - 1).run(blocks);
    }
#endif
}

#endif
