/* How backward on Hopper is cut: sizes, blocks of keys, the tiles of queries that a block walks over, and what its threads
 * tell each other by in shared memory:
 *
 *   | k | v | q and dout a stage | ds a stage | dq, f32 | facts a stage | barriers | blocks | steps | */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_PLAN_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_PLAN_CUH

#include "attention/cuda/sm80_backward_task.cuh"
#include "attention/cuda/sm90_backward_product.cuh"

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

/* WORDS: there may be liveness words. */
template <int WIDTH_, bool WORDS_> struct hopper_backward_shape {
    enum {
        WORDS = WORDS_,
        WIDTH = WIDTH_, /* channels that are computed */
        GROUPS = 2,
        WARPS = GROUPS * GROUP_THREADS / LANES,
        THREADS = (GROUPS + 1) * GROUP_THREADS,
        KEYS = GROUPS * GROUP_KEYS,
        PASSES = 128 / WIDTH, /* of 64 queries in a tile */
        QUERIES = PASSES * PASS_QUERIES,
        HELD = (WIDTH < 128),                /* keys stay in registers too */
        HELD_VALUES = WIDTH == 64 && !WORDS, /* and values */
        DQ_LAST = WIDTH == 64 && !WORDS,     /* dq of an earlier tile is queued behind the scores, not before them */
        READS_UNIT = WIDTH == 64, /* 1/D of a row is read, not computed: the exponential unit has no time left */
        RISING = (WIDTH > 64),    /* blocks of a head begin with the first keys */
        STAGES = 2,               /* of tiles under way, and of their ds */
        PANELS = (WIDTH + TILE_ROW - 1) / TILE_ROW,       /* of 64 channels: a tile is one after the other */
        SUMS = WIDTH / 2,                                 /* numbers of dk or dv of a thread */
        SUM_BYTES = PASS_QUERIES * PANELS * TILE_ROW * 4, /* of dq of 64 queries */
        K_PANEL_BYTES = KEYS * TILE_ROW_BYTES,
        K_BYTES = PANELS * K_PANEL_BYTES,
        Q_PANEL_BYTES = QUERIES * TILE_ROW_BYTES,
        Q_BYTES = PANELS * Q_PANEL_BYTES,
        PASS_BYTES = PASS_QUERIES * TILE_ROW_BYTES, /* of a panel of q */
        DS_PASS_BYTES = KEYS * TILE_ROW_BYTES,
        DQ_BYTES = PASSES * SUM_BYTES,
        FACTS_BYTES = QUERIES / 2 * (int)sizeof(backward_row_pair),
        V_FIRST = K_BYTES,
        STAGES_FIRST = 2 * K_BYTES,
        DS_FIRST = STAGES_FIRST + STAGES * 2 * Q_BYTES,
        DQ_FIRST = DS_FIRST + STAGES * PASSES * DS_PASS_BYTES,
        FACTS_FIRST = DQ_FIRST + DQ_BYTES,
        ITEM_PLACES = 2,
        STEP_PLACES = 8,
        STAGE_BARRIERS = FACTS_FIRST + STAGES * FACTS_BYTES,
        ITEM_BARRIERS = STAGE_BARRIERS + 16 * STAGES,
        KEY_BARRIERS = ITEM_BARRIERS + 16 * ITEM_PLACES,
        DQ_BARRIERS = KEY_BARRIERS + 16,
        DS_BARRIERS = DQ_BARRIERS + 16,
        NEXT_BARRIERS = DS_BARRIERS + 16 * STAGES,
        STEP_BARRIERS = NEXT_BARRIERS + 16,
        ITEMS_FIRST = STEP_BARRIERS + 16 * STEP_PLACES,
        REGISTERS_COPY = WORDS ? 40 : 24,
        REGISTERS_COMPUTE = WORDS ? 232 : 240,
    };
    static_assert((int)KEYS == SP_LIVENESS_KEYS, "a liveness word tells of a block");
};

/* A block of keys of one sequence and key head, and the tiles of queries that see any of them. */
struct hopper_block {
    backward_sequence sequence;
    int key_head, index;
    int tile_first, tile_end;
    int h_first, h_end; /* query heads; none where there are no tiles */
    bool works;         /* some tile has something to say to it */
    bool none;          /* there is no such block: the end */
};

/* What is told of a tile of queries. */
struct hopper_step {
    int h, tile;
    int before;        /* blocks that add to its dq before this one */
    bool adds_last;    /* none does after it */
    bool last;         /* of the block */
    uint32_t words[2]; /* liveness of the block's keys and the queries of a pass; all bits where it is not known */
};

template <typename shape> constexpr int hopper_backward_bytes() {
    return shape::ITEMS_FIRST + shape::ITEM_PLACES * (int)sizeof(hopper_block) +
           shape::STEP_PLACES * (int)sizeof(hopper_step);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- blocks and tiles --------------------------------------------------------------------------------------------- */

/* Blocks of keys that have something to say to a tile. */
template <typename shape>
__device__ __forceinline__ key_range hopper_tile_blocks(const backward_task &task, const backward_sequence &sequence,
                                                        int h, int tile) {
    if (shape::WORDS && task.liveness) {
        const key_range *passes = task.tile_blocks + tile_index(task, sequence, h, tile * shape::PASSES);
        key_range blocks = passes[0];
        if (shape::PASSES > 1) {
            const key_range second = passes[shape::PASSES - 1];
            if (second.first < second.end) blocks = {min(blocks.first, second.first), max(blocks.end, second.end)};
        }
        return blocks;
    }
    int t = tile * shape::QUERIES;
    return {visible_keys(task, sequence, t).first / shape::KEYS,
            (visible_keys(task, sequence, min(t + (int)shape::QUERIES, sequence.n_q) - 1).end + shape::KEYS - 1) /
                shape::KEYS};
}

/* Items: within a section the first (or last) block of each head, then those after (before). */
template <typename shape>
__device__ __forceinline__ void hopper_block_of(const hopper_backward &job, int item, hopper_block &block) {
    const backward_task &task = job.task;
    int per_section = job.section * job.n_blocks, first_head = item / per_section * job.section;
    int rest = item % per_section, heads = min(job.section, job.n_heads - first_head);
    int head = first_head + rest % heads, i = head / task.Hkv;
    block.key_head = head - i * task.Hkv;
    block.index = shape::RISING ? rest / heads : job.n_blocks - 1 - rest / heads;
    asm volatile("" ::: "memory"); /* this thread has few registers: what is stored leaves them */
    block.sequence = task.sequences ? task.sequences[i] : alike_sequence(task, i);
    asm volatile("" ::: "memory");
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
    block.h_first = block.h_end = block.key_head * (task.H / task.Hkv);
    if (block.tile_end > block.tile_first) block.h_end += task.H / task.Hkv;
}

/* The walk over the tiles of a block, of one query head after another. */
template <typename shape> struct hopper_walk {
    int h, tile;

    __device__ __forceinline__ hopper_walk(const hopper_block &block) : h(block.h_first), tile(begin(block)) {}
    static __device__ __forceinline__ int begin(const hopper_block &block) {
        return shape::RISING ? block.tile_end - 1 : block.tile_first;
    }
    __device__ __forceinline__ bool ends(const hopper_block &block) const { return h == block.h_end; }
    __device__ __forceinline__ void advance(const hopper_block &block) {
        tile += shape::RISING ? -1 : 1;
        if (tile < block.tile_first || tile == block.tile_end) tile = begin(block), h++;
    }
};

/* How many of a tile's blocks add to its dq before this one. */
template <typename shape> __device__ __forceinline__ int hopper_before(key_range blocks, int index) {
    return shape::RISING ? index - blocks.first : blocks.end - 1 - index;
}

/* The liveness word of a block and a tile's pass. */
template <typename shape>
__device__ __forceinline__ uint32_t hopper_word(const backward_task &task, const hopper_block &block,
                                                const hopper_walk<shape> &at, int pass) {
    const int tile = at.tile * shape::PASSES + pass;
    if (!shape::WORDS || !task.liveness) return ~0u;
    return tile * TILE_QUERIES < block.sequence.n_q ? tile_words(task, block.sequence, at.h, tile)[block.index] : 0;
}

/* Whether a tile, for which there are these blocks, is left out: no product of it with this one could be but 0. */
template <typename shape>
__device__ __forceinline__ bool hopper_is_silent(const backward_task &task, const hopper_block &block,
                                                 const hopper_walk<shape> &at) {
    if (!shape::WORDS || !task.liveness || task.lambda != 0) return false;
    return !(hopper_word<shape>(task, block, at, 0) | hopper_word<shape>(task, block, at, shape::PASSES - 1));
}

/* ---- rings ---------------------------------------------------------------------------------------------------------- */

template <typename shape> struct hopper_backward_rings {
    enum { STAGES = shape::STAGES, ITEM_PLACES = shape::ITEM_PLACES };
    uint32_t shared;
    ring_barriers<STAGES> stage;            /* q, dout and the facts of a tile */
    ring_barriers<ITEM_PLACES> item;        /* numbers of a block */
    ring_barriers<1> keys;                  /* k and v of a block */
    ring_barriers<1> dq;                    /* a tile of dq */
    ring_barriers<STAGES> ds;               /* ds of a tile */
    ring_barriers<1> next;                  /* `empty` alone: no block has been taken that is still to begin */
    ring_barriers<shape::STEP_PLACES> step; /* what is told of a tile */

    __device__ __forceinline__ hopper_backward_rings(uint32_t address) : shared(address) {
        stage.address = address + shape::STAGE_BARRIERS, item.address = address + shape::ITEM_BARRIERS;
        keys.address = address + shape::KEY_BARRIERS, dq.address = address + shape::DQ_BARRIERS;
        ds.address = address + shape::DS_BARRIERS, next.address = address + shape::NEXT_BARRIERS;
        step.address = address + shape::STEP_BARRIERS;
    }
    __device__ __forceinline__ void begin() {
        stage.begin(shape::WARPS);
        item.begin(shape::WARPS, 2);
        keys.begin(shape::WARPS);
        for (int i = 0; i < STAGES; i++)
            barrier_begin(ds.full(i), shape::WARPS * WARP_ARRIVALS),
                barrier_begin(ds.empty(i), shape::WARPS * WARP_ARRIVALS);
        step.begin(0, 1);
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
    __device__ __forceinline__ uint32_t ds_pass(int place, int i) {
        return shared + shape::DS_FIRST + (place * shape::PASSES + i) * shape::DS_PASS_BYTES;
    }
    __device__ __forceinline__ uint32_t dq_tile() { return shared + shape::DQ_FIRST; }
};

#endif

#endif
