/* The threads of backward on Hopper that move blocks, tiles and sums (group 0, a thread each): one takes blocks and tells of
 * their tiles, one has tiles copied in, one has dq added up.  They have few registers. */
#ifndef SP_ATTENTION_CUDA_SM90_BACKWARD_ROLES_CUH
#define SP_ATTENTION_CUDA_SM90_BACKWARD_ROLES_CUH

#include "attention/cuda/sm90_backward_plan.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- the thread that takes blocks ------------------------------------------------------------------------------------- */

template <typename shape> struct hopper_backward_taker {
    const hopper_backward &job;
    hopper_backward_rings<shape> rings;
    hopper_block *blocks;
    hopper_step *steps;
    int turn = 0; /* tiles that have been told of */

    __device__ __forceinline__ hopper_backward_taker(const hopper_backward &all, uint32_t shared, hopper_block *places)
        : job(all), rings(shared), blocks(places), steps((hopper_step *)(places + shape::ITEM_PLACES)) {}

    /* Makes a step of the next tile from `at` on that has something to say to the block; false: there is none. */
    __device__ __forceinline__ bool find(const hopper_block &block, hopper_walk<shape> &at) {
        const int place = turn % shape::STEP_PLACES;
        hopper_step &step = steps[place];
        barrier_wait(rings.step.empty(place), turn / shape::STEP_PLACES % 2 ^ 1);
        for (; !at.ends(block); at.advance(block)) {
            const key_range range = hopper_tile_blocks<shape>(job.task, block.sequence, at.h, at.tile);
            step.before = hopper_before<shape>(range, block.index);
            step.adds_last = !job.task.any_order && step.before == range.end - range.first - 1;
            if (shape::WORDS && (block.index < range.first || block.index >= range.end)) continue;
            if (hopper_is_silent<shape>(job.task, block, at)) continue;
            for (int pass = 0; pass < shape::PASSES; pass++)
                step.words[pass] = hopper_word<shape>(job.task, block, at, pass);
            step.h = at.h, step.tile = at.tile;
            at.advance(block);
            return true;
        }
        return false;
    }

    /* Tells of a block, then of its tiles: of each when the next one is known. */
    __device__ __forceinline__ void tell(hopper_block &block, int number) {
        hopper_walk<shape> at(block);
        for (bool first = true, more = true; more; first = false) {
            more = find(block, at);
            if (first) {
                block.works = more;
                barrier_arrive(rings.item.full(number % 2));
            } else {
                const int place = (turn - 1) % shape::STEP_PLACES;
                steps[place].last = !more;
                barrier_arrive(rings.step.full(place));
            }
            turn += more;
        }
    }

    /* Tells the others what comes next, until there is no more. */
    __device__ __forceinline__ void run() {
        const int n_items = job.n_heads * job.n_blocks;
        static_assert(shape::ITEM_PLACES == 2, "parities of the n-th block's phases");
        for (int n = 0;; n++) {
            hopper_block &block = blocks[n % 2];
            barrier_wait(rings.item.empty(n % 2), n / 2 % 2 ^ 1);
            barrier_wait(rings.next.empty(0), n % 2 ^ 1);
            const int item = atomicAdd(job.task.ticket, 1);
            block.none = item >= n_items;
            if (block.none) return barrier_arrive(rings.item.full(n % 2));
            hopper_block_of<shape>(job, item, block);
            tell(block, n);
        }
    }
};

/* ---- the thread that has tiles copied in ------------------------------------------------------------------------------ */

template <typename shape> struct hopper_backward_copier {
    const hopper_backward &job;
    hopper_backward_rings<shape> rings;
    const hopper_block *blocks;
    const hopper_step *steps;
    int turn = 0; /* tiles that have been copied */
    ring_place<shape::ITEM_PLACES> item_place;
    ring_place<1> key_place;

    __device__ __forceinline__ hopper_backward_copier(const hopper_backward &all, uint32_t shared,
                                                      const hopper_block *places)
        : job(all), rings(shared), blocks(places), steps((const hopper_step *)(places + shape::ITEM_PLACES)) {}

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

    /* The groups still look at a step two tiles later: with a tile, that of four before becomes free. */
    __device__ __forceinline__ void wait_for_room() {
        barrier_wait(rings.stage.empty(turn % shape::STAGES), turn / shape::STAGES % 2 ^ 1);
        if (turn >= 4) barrier_arrive(rings.step.empty((turn - 4) % shape::STEP_PLACES));
    }

    __device__ __forceinline__ void copy_tile(const hopper_block &block, const hopper_step &step) {
        const backward_sequence &sequence = block.sequence;
        const int i = turn % shape::STAGES, row = sequence.q_first + step.tile * shape::QUERIES;
        uint32_t full = rings.stage.full(i);
        barrier_arrive_expecting(full, 2 * shape::Q_BYTES + shape::FACTS_BYTES);
        for (int panel = 0; panel < shape::PANELS; panel++)
            copy_box(rings.q(i) + panel * shape::Q_PANEL_BYTES, &job.q, full, sequence.b, row, step.h,
                     panel * TILE_ROW);
        copy_bytes(rings.facts(i),
                   (const backward_row_pair *)job.task.row_facts +
                       tile_index(job.task, sequence, step.h, step.tile * shape::PASSES) * (TILE_QUERIES / 2),
                   shape::FACTS_BYTES, full);
        for (int panel = 0; panel < shape::PANELS; panel++)
            copy_box(rings.dout(i) + panel * shape::Q_PANEL_BYTES, &job.dout, full, sequence.b, row, step.h,
                     panel * TILE_ROW);
    }

    __device__ __forceinline__ void copy_tiles(const hopper_block &block) {
        for (bool first = true, last = false; !last; first = false, turn++) {
            const hopper_step &step = steps[turn % shape::STEP_PLACES];
            barrier_wait(rings.step.full(turn % shape::STEP_PLACES), turn / shape::STEP_PLACES % 2);
            wait_for_room();
            copy_tile(block, step);
            if (first) copy_keys(block);
            last = step.last;
        }
    }

    __device__ __forceinline__ void run() {
        for (;; item_place.advance()) {
            rings.item.wait_full(item_place);
            const hopper_block &block = blocks[item_place.index];
            if (block.none) break;
            if (block.works) copy_tiles(block);
            barrier_arrive(rings.item.empty(item_place.index));
            barrier_arrive(rings.next.empty(0));
        }
    }
};

/* Until `wanted` blocks have added to a tile's dq. */
__device__ __forceinline__ void hopper_turn_wait(const int *counter, int wanted) {
    int value;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    } while (value < wanted);
    asm volatile("fence.proxy.async.global;" ::: "memory");
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

    __device__ __forceinline__ void add_tile(const hopper_block &block, const hopper_walk<shape> &at) {
        const int64_t index = tile_index(task, block.sequence, at.h, at.tile * shape::PASSES);
        const key_range blocks_here = hopper_tile_blocks<shape>(task, block.sequence, at.h, at.tile);
        const int n = blocks_here.end - blocks_here.first, before = hopper_before<shape>(blocks_here, block.index);
        if (before < 0 || before >= n) return;
        if (!task.any_order && before == n - 1) return; /* the groups write dq */
        if (!task.any_order) hopper_turn_wait(task.dq_turn + index, before);
        if (!hopper_is_silent<shape>(task, block, at)) {
            rings.dq.wait_full(place);
            publish_to_engines();
            copy_out(task.dq_sum + index * (shape::SUM_BYTES / 4), rings.dq_tile(), shape::DQ_BYTES,
                     task.any_order || before > 0);
            copies_out_wait_read();
            barrier_arrive(rings.dq.empty(0));
            place.advance();
        }
        if (!task.any_order) turn_pass(task.dq_turn + index);
    }

    __device__ __forceinline__ void run() {
        for (;; item_place.advance()) {
            rings.item.wait_full(item_place);
            const hopper_block &block = blocks[item_place.index];
            if (block.none) break;
            for (hopper_walk<shape> at(block); !at.ends(block); at.advance(block)) add_tile(block, at);
            barrier_arrive(rings.item.empty(item_place.index));
        }
        copies_out_wait();
    }
};

#endif

#endif
