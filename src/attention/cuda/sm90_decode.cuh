/* Attention of few queries against a long cache on Hopper (decode_rows.cuh tells how the work is cut).
 *
 *   shared memory   | warp 0: ring of K tiles | ring of V tiles | warp 1: ... | queries, if wide | barriers and pages |
 *
 * Each warp takes every WARPS-th step of 16 or 32 keys of the split, and waits for no other.  Tiles are panels of 64
 * channels, as the copy engine lays them: chunk c of row r at place c ^ (r % 8) of its 128 bytes.
 *
 * The copy engine fetches keys several steps ahead; in the softmaxes, values too.  In softpick a step's scores tell which
 * of its values some row gives weight: lanes begin to copy those, and zeros in place of the others, and the step's weights
 * wait in registers until WAITING steps later.  They are relative to the shift: before it is raised, what waits is added.
 *
 * Where the keys are split, a second kernel joins the splits in order; it is launched while the first still runs. */
#ifndef SP_ATTENTION_CUDA_SM90_DECODE_CUH
#define SP_ATTENTION_CUDA_SM90_DECODE_CUH

#include "attention/cuda/decode_rows.cuh"
#include "attention/cuda/sm90_copy.cuh"
#include "attention/cuda/sm90_decode_launch.cuh"
#include "device/cuda_check.cuh"

/* PICKS: values on demand. */
template <bool PICKS_, int WIDTH_, int KEYS_, int WARPS_, int RESIDENT_, int K_TILES_, int V_TILES_>
struct hopper_decode_shape {
    enum {
        PICKS = PICKS_,
        WIDTH = WIDTH_,
        KEYS = KEYS_, /* of a step */
        WARPS = WARPS_,
        RESIDENT = RESIDENT_, /* blocks of threads a multiprocessor */
        K_TILES = K_TILES_,
        V_TILES = PICKS ? V_TILES_ : K_TILES,
        WAITING = PICKS ? V_TILES - 1 : 1, /* steps whose weights wait for values; softpick alone */
        THREADS = WARPS * LANES,
        STEPS = WIDTH / 16,
        PANELS = WIDTH / 64,
        BOXES = KEYS / DECODE_KEYS, /* of a panel: keys lie together by 16 at least */
        BOX_BYTES = DECODE_KEYS * 128,
        PANEL_BYTES = KEYS * 128,
        TILE_BYTES = PANELS * PANEL_BYTES,
        WARP_BYTES = (K_TILES + V_TILES) * TILE_BYTES,
        Q_STAYS = WIDTH < 256, /* in registers; else in shared memory, as each lane holds it */
        Q_FIRST = WARPS * WARP_BYTES,
        Q_BYTES = Q_STAYS ? 0 : STEPS * LANES * 16, /* of a warp */
        BARRIERS_FIRST = Q_FIRST + WARPS * Q_BYTES,
        PLACES = K_TILES * 8, /* of a warp, from its barriers on */
        BARRIER_BYTES = PLACES + K_TILES * BOXES * 8,
        SHARED_BYTES = BARRIERS_FIRST + WARPS * BARRIER_BYTES,
    };
    static_assert((int)WARP_BYTES >= DECODE_ROWS * (WIDTH + PARTIAL_HEAD) * 4, "a warp's partial rows take its tiles");
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Lets the next kernel of the stream begin, if it was launched so; and waits, in such a kernel, for all that the one
 * before has written. */
__device__ __forceinline__ void next_kernel_may_begin() { asm volatile("griddepcontrol.launch_dependents;"); }
__device__ __forceinline__ void wait_for_kernel_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/* What the copy engine wrote may be overwritten by threads, and the other way round, in this order. */
__device__ __forceinline__ void fence_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
    uint32_t value;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

__device__ __forceinline__ void load_four(uint32_t r[4], uint32_t address) {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void store_four(uint32_t address, const uint32_t r[4]) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/* ---- where a step's keys lie -------------------------------------------------------------------------------------- */

/* A run of 16 keys: a page and a row of it; a linear cache is one page a sequence. */
struct key_place {
    int page, slot;
};

/* Pages of 32 runs of a warp's steps, one a lane, and of the 32 after those. */
template <typename shape> struct page_list {
    int now, next;

    static __device__ __forceinline__ int key_of(const decode_job &job, int run) {
        int step = run / shape::BOXES * shape::WARPS + (int)threadIdx.x / LANES;
        return job.begin + step * shape::KEYS + run % shape::BOXES * DECODE_KEYS;
    }
    static __device__ __forceinline__ int of_lane(const gpu_view &view, const decode_job &job, int first_run) {
        int key = key_of(job, first_run + (int)threadIdx.x % LANES);
        if (key >= job.end) return 0;
        return (int)view.page_table[job.sequence.b * view.pages_per_sequence + key / view.page_size];
    }
    __device__ __forceinline__ void begin(const gpu_view &view, const decode_job &job) {
        now = of_lane(view, job, 0);
        next = of_lane(view, job, LANES);
    }
    /* Runs are asked for in turn, by the whole warp. */
    __device__ __forceinline__ key_place place_of_run(const gpu_view &view, const decode_job &job, int run) {
        int key = key_of(job, run);
        if (!view.page_table) return {job.sequence.b, key};
        if (run > 0 && run % LANES == 0) {
            now = next;
            next = of_lane(view, job, run + LANES);
        }
        return {__shfl_sync(~0u, now, run % LANES), key % view.page_size};
    }
};

/* ---- one warp ------------------------------------------------------------------------------------------------------- */

template <typename half_t, typename shape>
struct hopper_decode_warp : decode_rows<half_t, shape::PICKS, shape::WIDTH, shape::KEYS> {
    enum { PICKS = shape::PICKS, WIDTH = shape::WIDTH, KEYS = shape::KEYS, BLOCKS = KEYS / 16 };
    typedef decode_rows<half_t, PICKS, WIDTH, KEYS> rows;
    using rows::s, rows::q, rows::p, rows::out, rows::row, rows::special;

    uint32_t k_tiles, barriers;  /* of this warp, in shared memory; V tiles after K tiles, places after barriers */
    uint32_t k_offset, v_offset; /* of this lane's rows of B within a tile */
    uint32_t q_kept;             /* this lane's queries, unless they stay in registers */
    uint32_t copy_offset;        /* of the first chunk that this lane copies, and its bytes */
    int copy_bytes;
    page_list<shape> pages;
    uint32_t waiting[shape::WAITING][BLOCKS][4]; /* weights of the last steps, the oldest first; softpick alone */
    uint32_t waiting_live[shape::WAITING];       /* keys of theirs that have weight */

    enum {
        CHUNKS = WIDTH / CHUNK,
        EVERY = CHUNKS < LANES ? LANES / CHUNKS : 1 /* rows that a warp copies at a time */
    };

    static __device__ __forceinline__ int copy_row() { return threadIdx.x % LANES / CHUNKS; }
    __device__ __forceinline__ uint32_t v_tile(int i) const {
        return k_tiles + (shape::K_TILES + i) * shape::TILE_BYTES;
    }
    /* Page and slot of run i of the keys in a tile. */
    __device__ __forceinline__ uint32_t kept_place(int tile, int i) const {
        return barriers + shape::PLACES + 8 * (shape::BOXES * tile + i);
    }

    __device__ __forceinline__ void begin(const gpu_view &view, uint32_t shared) {
        int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, k_row = lane / 16 * 8 + lane % 8;
        int chunk = lane % CHUNKS, row = copy_row();
        k_tiles = shared + warp * shape::WARP_BYTES;
        barriers = shared + shape::BARRIERS_FIRST + warp * shape::BARRIER_BYTES;
        k_offset = k_row * 128 + ((lane / 8 % 2) ^ (k_row & 7)) * CHUNK_BYTES;
        v_offset = lane % 16 * 128 + ((lane / 16) ^ (lane & 7)) * CHUNK_BYTES;
        copy_bytes = min(max(2 * (view.Dv - chunk * CHUNK), 0), (int)CHUNK_BYTES);
        copy_offset = chunk / 8 * shape::PANEL_BYTES + row * 128 + ((chunk & 7) ^ row) * CHUNK_BYTES;
#pragma unroll
        for (int i = 0; i < shape::WAITING; i++) waiting_live[i] = 0;
        if (lane < shape::K_TILES) barrier_begin(barriers + 8 * lane, 1);
        barriers_publish();
        __syncwarp();
    }

    /* Lets the copy engine fetch the keys of a step, in softmax the values too. */
    __device__ __forceinline__ void load_keys(const hopper_decode &to, const decode_job &job, int tile, int step) {
        key_place place[shape::BOXES];
#pragma unroll
        for (int i = 0; i < shape::BOXES; i++) place[i] = pages.place_of_run(to.view, job, step * shape::BOXES + i);
        if (threadIdx.x % LANES != 0) return;
        uint32_t barrier = barriers + 8 * tile;
        if (PICKS && to.view.page_table) {
#pragma unroll
            for (int i = 0; i < shape::BOXES; i++) {
                store_shared(kept_place(tile, i), place[i].page);
                store_shared(kept_place(tile, i) + 4, place[i].slot);
            }
        }
        barrier_arrive_expecting(barrier, (PICKS ? 1 : 2) * shape::TILE_BYTES);
#pragma unroll
        for (int i = 0; i < shape::PANELS * shape::BOXES; i++) {
            uint32_t at = k_tiles + tile * shape::TILE_BYTES + i * shape::BOX_BYTES;
            key_place from = place[i % shape::BOXES];
            int channel = i / shape::BOXES * 64;
            copy_box(at, &to.k, barrier, from.page, from.slot, job.key_head, channel);
            at += v_tile(0) - k_tiles;
            if (!PICKS) copy_box(at, &to.v, barrier, from.page, from.slot, job.key_head, channel);
        }
    }

    /* Begins to copy those values of 16 keys that are live, and zeros in place of the others. */
    __device__ __forceinline__ void load_values(const gpu_view &view, const decode_job &job, uint32_t to,
                                                key_place place, uint32_t live) {
        const half_t *from = tensor_row<half_t>(view.v, place.page, place.slot + copy_row(), job.key_head);
        from += copy_bytes ? threadIdx.x % CHUNKS * CHUNK : 0;
        to += copy_offset;
        int64_t stride = view.v.row * EVERY;
        live >>= copy_row();
#pragma unroll
        for (int i = 0; i < DECODE_KEYS / EVERY; i++) {
            int row = i * EVERY; /* and copy_row(), which has none of its bits */
            copy_chunk((to ^ (row & 7) * CHUNK_BYTES) + row * 128, from, live >> row & 1 ? copy_bytes : 0);
            from += stride;
        }
    }

    __device__ __forceinline__ void keep_queries(uint32_t shared) {
        if constexpr (!shape::Q_STAYS) {
            q_kept = shared + shape::Q_FIRST + threadIdx.x / LANES * shape::Q_BYTES + threadIdx.x % LANES * 16;
#pragma unroll
            for (int step = 0; step < shape::STEPS; step++) store_four(q_kept + step * LANES * 16, q[step]);
        }
    }

    __device__ __forceinline__ void compute_scores(uint32_t tile) {
#pragma unroll
        for (int j = 0; j < rows::KEY_TILES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) s[j][i] = 0;
#pragma unroll
        for (int step = 0; step < shape::STEPS; step++) {
            uint32_t a[4] = {q[step][0], q[step][1], q[step][2], q[step][3]};
            if (!shape::Q_STAYS) load_four(a, q_kept + step * LANES * 16);
#pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                uint32_t b[4], at = tile + step / 4 * shape::PANEL_BYTES + j * 16 * 128;
                load_matrices(b, at + (k_offset ^ (step % 4 * 2 * CHUNK_BYTES)));
                mma_16816<half_t>(s[2 * j], a, b);
                mma_16816<half_t>(s[2 * j + 1], a, b + 2);
            }
        }
    }

    __device__ __forceinline__ void add_values(const uint32_t weights[BLOCKS][4], uint32_t tile) {
#pragma unroll
        for (int k = 0; k < BLOCKS; k++)
#pragma unroll
            for (int j = 0; j < rows::WIDTH_TILES; j += 2) {
                uint32_t b[4], at = tile + j / 8 * shape::PANEL_BYTES + k * 16 * 128;
                load_matrices_transposed(b, at + (v_offset ^ (j % 8 * CHUNK_BYTES)));
                mma_16816<half_t>(out[j], weights[k], b);
                mma_16816<half_t>(out[j + 1], weights[k], b + 2);
            }
    }

    /* Adds what waits at place `i` of the list, which was weighed in step `from`. */
    __device__ __forceinline__ void add_waiting(int i, int from) {
        if (!waiting_live[i]) return;
        add_values(waiting[i], v_tile((uint32_t)from % shape::V_TILES));
        waiting_live[i] = 0;
    }

    /* Before the weights of `step` are made. */
    __device__ __forceinline__ void add_all_waiting(int step) {
        copies_wait<0>();
        __syncwarp();
#pragma unroll
        for (int i = 0; i < shape::WAITING; i++) add_waiting(i, step - shape::WAITING + i);
    }

    /* The weights of the keys from `key` on. */
    __device__ __forceinline__ void weigh_step(const decode_job &job, int key, int step) {
        int column = key + threadIdx.x % 4 * 2;
        bool any = special || key < job.all.first || key + KEYS > job.all.end;
        float sums[2];
        for (bool again = step == 0;; again = true) {
            if (again) {
                if (PICKS) add_all_waiting(step);
                rows::measure(column);
            }
            if (any)
                rows::template weigh<true>(column, sums);
            else
                rows::template weigh<false>(column, sums);
            if (again || !__any_sync(~0u, sums[0] > HIGH_SUM || sums[1] > HIGH_SUM)) break;
        }
        row[0].sum += sums[0], row[1].sum += sums[1];
    }

    /* Which keys of the step have weight in some row, one bit each. */
    __device__ __forceinline__ uint32_t live_keys() {
        uint32_t live = 0;
#pragma unroll
        for (int i = 0; i < BLOCKS; i++) {
            uint32_t low = p[i][0] | p[i][1], high = p[i][2] | p[i][3];
            live |=
                ((low & 0xffff ? 1 : 0) | (low >> 16 ? 2 : 0) | (high & 0xffff ? 0x100 : 0) | (high >> 16 ? 0x200 : 0))
                << 16 * i;
        }
        return __reduce_or_sync(~0u, live << threadIdx.x % 4 * 2);
    }

    /* Of the step from `key` on, the keys that some row sees, one bit each. */
    static __device__ __forceinline__ uint32_t seen_keys(const decode_job &job, int key) {
        int first = max(job.some.first - key, 0), end = min(job.some.end - key, (int)KEYS);
        return end > first ? (uint32_t)(((uint64_t)1 << end) - ((uint64_t)1 << first)) : 0;
    }

    /* Values that no row sees are made zeros: they may be anything. */
    __device__ __forceinline__ void clean_values(const decode_job &job, int key, uint32_t tile) {
        uint32_t seen = seen_keys(job, key);
        if (seen == (uint32_t)(((uint64_t)1 << KEYS) - 1)) return;
        for (int i = threadIdx.x % LANES; i < shape::TILE_BYTES / 4; i += LANES)
            if (!(seen >> (i / 32 % KEYS) & 1)) store_shared(tile + 4 * i, 0);
        fence_copies();
        __syncwarp();
    }

    /* Weights of the last step join those that wait; the oldest have been added. */
    __device__ __forceinline__ void let_wait(uint32_t live) {
#pragma unroll
        for (int i = 0; i < shape::WAITING; i++) {
            const bool last = i + 1 == shape::WAITING;
            waiting_live[i] = last ? live : waiting_live[last ? i : i + 1];
#pragma unroll
            for (int j = 0; j < 4 * BLOCKS; j++)
                waiting[i][j / 4][j % 4] = last ? p[j / 4][j % 4] : waiting[last ? i : i + 1][j / 4][j % 4];
        }
    }

    /* Values on demand. */
    __device__ __forceinline__ void add_step_picking(const hopper_decode &to, const decode_job &job, int step,
                                                     int n_steps, int key) {
        const int index = (uint32_t)step % shape::K_TILES, next = step + shape::K_TILES;
        key_place place[shape::BOXES];
#pragma unroll
        for (int i = 0; i < shape::BOXES; i++) {
            place[i] = {job.sequence.b, key + i * DECODE_KEYS};
            uint32_t kept = kept_place(index, i);
            if (to.view.page_table) place[i] = {(int)load_shared(kept), (int)load_shared(kept + 4)};
        }
        __syncwarp(); /* all lanes are done with this step's keys, and with the values that come next in the ring */
        if (next < n_steps) load_keys(to, job, index, next);
        weigh_step(job, key, step);
        uint32_t live = to.compute_dead ? seen_keys(job, key) : live_keys();
        uint32_t tile = v_tile((uint32_t)step % shape::V_TILES);
        if (live)
#pragma unroll
            for (int i = 0; i < shape::BOXES; i++)
                load_values(to.view, job, tile + i * shape::BOX_BYTES, place[i], live >> 16 * i);
        copies_commit();
        copies_wait<shape::WAITING>();
        __syncwarp(); /* the oldest values are there for all lanes */
        add_waiting(0, step - shape::WAITING);
        let_wait(live);
    }

    /* Values have come with the keys. */
    __device__ __forceinline__ void add_step_whole(const hopper_decode &to, const decode_job &job, int step,
                                                   int n_steps, int key) {
        const int index = (uint32_t)step % shape::K_TILES, next = step + shape::K_TILES;
        weigh_step(job, key, step);
        clean_values(job, key, v_tile(index));
        add_values(p, v_tile(index));
        __syncwarp(); /* all lanes are done with this step's keys and values */
        if (next < n_steps) load_keys(to, job, index, next);
    }

    __device__ __forceinline__ void add_step(const hopper_decode &to, const decode_job &job, int step, int n_steps) {
        const int index = (uint32_t)step % shape::K_TILES;
        const int key = job.begin + (step * shape::WARPS + (int)threadIdx.x / LANES) * KEYS;
        barrier_wait(barriers + 8 * index, (uint32_t)step / shape::K_TILES & 1);
        compute_scores(k_tiles + index * shape::TILE_BYTES);
        if constexpr (PICKS)
            add_step_picking(to, job, step, n_steps, key);
        else
            add_step_whole(to, job, step, n_steps, key);
    }
};

/* ---- joining --------------------------------------------------------------------------------------------------------- */

/* 2^n for a whole n <= 0; 0 below 2^-126. */
__device__ __forceinline__ float small_power(float n) { return n < -126 ? 0 : __int_as_float((127 + (int)n) << 23); }

/* Four outputs of a row beside its shift and sum. */
struct four_outs {
    float shift, sum;
    float4 out;

    __device__ __forceinline__ void raise(float to) {
        float factor = small_power(shift - to);
        shift = to;
        sum *= factor, out.x *= factor, out.y *= factor, out.z *= factor, out.w *= factor;
    }

    /* Adds a partial row that is relative to a shift not above this one's. */
    __device__ __forceinline__ void add(float its_shift, float its_sum, float4 its_out) {
        float factor = small_power(its_shift - shift);
        sum += factor * its_sum;
        out.x += factor * its_out.x, out.y += factor * its_out.y;
        out.z += factor * its_out.z, out.w += factor * its_out.w;
    }
};

/* Sums four outputs of n partial rows, `stride` floats apart, in order; AT_ONCE of them are on their way at a time. */
template <int AT_ONCE>
__device__ __forceinline__ four_outs join_rows(const float *rows, int64_t stride, int n, int column) {
    four_outs sums = {-INFINITY, 0, {0, 0, 0, 0}};
    for (int first = 0; first < n; first += AT_ONCE) {
        float2 head[AT_ONCE];
        float4 out[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const float *row = rows + min(first + i, n - 1) * stride;
            head[i] = *(const float2 *)row;
            out[i] = *(const float4 *)(row + PARTIAL_HEAD + 4 * column);
        }
        float highest = sums.shift;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) highest = fmaxf(highest, head[i].x);
        sums.raise(highest);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (first + i < n) sums.add(head[i].x, head[i].y, out[i]);
    }
    return sums;
}

/* Ends a row whose outputs 4 column to 4 column + 3 these are. */
template <typename half_t>
__device__ __forceinline__ void finish_row(const gpu_view &view, const gpu_sequence &sequence, int t, int h, int column,
                                           const four_outs &sums) {
    row_rule life = view_rule(view, h);
    weigh_range seen = view_visible(view, sequence, t + sequence.n_k - view.T);
    float factor = 0, lse = INFINITY;
    if (seen.first < seen.end) factor = row_finish(&life, sums.shift, sums.sum, &lse);
    half_t *out = tensor_row<half_t>(view.out, sequence.b, t, h) + 4 * column;
    uint32_t pairs[2] = {
        pack_pair<half_t>(fmaf(sums.out.x, factor, 0.0f), fmaf(sums.out.y, factor, 0.0f)),
        pack_pair<half_t>(fmaf(sums.out.z, factor, 0.0f), fmaf(sums.out.w, factor, 0.0f)),
    };
    if (4 * column + 4 <= view.Dv)
        *(uint2 *)out = {pairs[0], pairs[1]};
    else
#pragma unroll
        for (int i = 0; i < 3; i++)
            if (4 * column + i < view.Dv) *(uint16_t *)(out + i) = (uint16_t)(pairs[i / 2] >> i % 2 * 16);
    if (view.lse && column == 0) view.lse[view_row_index(view, sequence, h, t)] = lse;
}

/* Joins the rows that the warps have left: outputs, or partial rows of the split. */
template <typename half_t, typename shape>
__device__ __forceinline__ void leave_block(const hopper_decode &to, const decode_job &job, const float *left) {
    constexpr int COLUMNS = shape::WIDTH / 4, PITCH = shape::WIDTH + PARTIAL_HEAD;
    const gpu_view &view = to.view;
    const int n_rows = min(view.T * view.group - job.first_row, (int)DECODE_ROWS);
    for (int i = threadIdx.x; i < n_rows * COLUMNS; i += shape::THREADS) {
        const int column = i % COLUMNS;
        if (4 * column >= view.Dv) continue;
        const decode_row at = decode_row_of(view, job, i / COLUMNS);
        const four_outs sums =
            join_rows<shape::WARPS>(left + i / COLUMNS * PITCH, shape::WARP_BYTES / 4, shape::WARPS, column);
        if (to.splits.n == 1) {
            finish_row<half_t>(view, job.sequence, at.t, at.h, column, sums);
            continue;
        }
        float *partial = partial_of(view, to.splits, job.sequence.b, at.h, at.t) + job.split * to.splits.stride;
        if (column == 0) *(float2 *)partial = {sums.shift, sums.sum};
        *(float4 *)(partial + PARTIAL_HEAD + 4 * column) = sums.out;
    }
}

/* ---- the kernels -------------------------------------------------------------------------------------------------- */

/* Heads come fastest, since those of a token lie side by side in most caches.  Each call works it out again, so that a
 * kernel need not keep in registers what it uses at its end alone. */
__device__ __forceinline__ decode_job hopper_decode_job(const gpu_view &view, const gpu_splits &splits) {
    int x, split, sequence;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(split));
    asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(sequence));
    return decode_job_at(view, splits, sequence, x / splits.n_tiles, x % splits.n_tiles, split);
}

#endif

template <typename half_t, typename shape>
__global__ void __launch_bounds__(shape::THREADS, shape::RESIDENT)
    hopper_decode_kernel(const __grid_constant__ hopper_decode to) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) char shared[];
    hopper_decode_warp<half_t, shape> warp;
    warp.begin(to.view, shared_address(shared));
    if (threadIdx.x == 0) prefetch_map(&to.k);
    if (threadIdx.x == 0 && !shape::PICKS) prefetch_map(&to.v);
    wait_for_kernel_before();
    next_kernel_may_begin();
    decode_job job = hopper_decode_job(to.view, to.splits);
    const int index = threadIdx.x / LANES;
    const int n_all = job.end > job.begin ? (job.end - job.begin + shape::KEYS - 1) / shape::KEYS : 0;
    const int n_steps = (n_all - index + shape::WARPS - 1) / shape::WARPS;

    warp.begin_rows(to.view, job); /* before the keys, which would be in its way */
    if (to.view.page_table) warp.pages.begin(to.view, job);
#pragma unroll 1
    for (int i = 0; i < shape::K_TILES && i < n_steps; i++) warp.load_keys(to, job, i, i);
    warp.keep_queries(shared_address(shared));
    for (int i = 0; i < n_steps; i++) warp.add_step(to, job, i, n_steps);
    if (shape::PICKS) warp.add_all_waiting(n_steps);
    __syncwarp();
    warp.leave((float *)(shared + index * shape::WARP_BYTES));
    __syncthreads();
    leave_block<half_t, shape>(to, hopper_decode_job(to.view, to.splits), (const float *)shared);
#endif
}

enum { JOIN_THREADS = 256, JOIN_RESIDENT = 5 /* by their registers: they must fit beside the first kernel */ };

/* One block of threads for each row: WIDTH / 4 lanes with four outputs each, and as many groups of them as there is room
 * for; each group sums a part of the splits, and then the first the groups. */
template <typename half_t, int WIDTH>
__global__ void __launch_bounds__(JOIN_THREADS, JOIN_RESIDENT)
    hopper_join_kernel(const __grid_constant__ hopper_decode to) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    enum { COLUMNS = WIDTH / 4, GROUPS = JOIN_THREADS / COLUMNS };
    __shared__ four_outs parts[GROUPS][COLUMNS];
    const gpu_view &view = to.view;
    const int t = blockIdx.x % view.T, h = blockIdx.x / view.T % view.H, b = blockIdx.x / view.T / view.H;
    const int column = threadIdx.x % COLUMNS, group = threadIdx.x / COLUMNS, n = to.splits.n;
    const int first = group * n / GROUPS, end = (group + 1) * n / GROUPS;
    const bool there = 4 * column < view.Dv;
    const float *partial = partial_of(view, to.splits, b, h, t) + first * to.splits.stride;
    wait_for_kernel_before();
    four_outs sums = join_rows < WIDTH == 64 ? 3 : 4 > (partial, to.splits.stride, there ? end - first : 0, column);
    parts[group][column] = sums;
    __syncthreads();
    if (group > 0 || !there) return;
    float highest = sums.shift;
#pragma unroll 3
    for (int i = 1; i < GROUPS; i++) highest = fmaxf(highest, parts[i][column].shift);
    sums.raise(highest);
#pragma unroll 3
    for (int i = 1; i < GROUPS; i++) sums.add(parts[i][column].shift, parts[i][column].sum, parts[i][column].out);
    finish_row<half_t>(view, view_sequence(view, b), t, h, column, sums);
#endif
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

template <typename half_t, typename shape>
static sp_status hopper_decode_launch(const hopper_decode *job, cudaStream_t stream) {
    const gpu_view *view = &job->view;
    int64_t rows = (int64_t)view->n_sequences * view->H * view->T;
    auto kernel = hopper_decode_kernel<half_t, shape>;
    SP_REQUIRE(rows < INT32_MAX, SP_UNSUPPORTED, "decode of %lld rows is more than a GPU takes at once",
               (long long)rows);
    SP_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::SHARED_BYTES));
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(view->Hkv * job->splits.n_tiles, job->splits.n, view->n_sequences);
    config.blockDim = dim3(shape::THREADS), config.stream = stream;
    config.dynamicSmemBytes = shape::SHARED_BYTES;
    config.attrs = &early, config.numAttrs = 1;
    SP_CUDA_TRY(cudaLaunchKernelEx(&config, kernel, *job));
    if (job->splits.n == 1) return SP_OK;
    config.gridDim = dim3((unsigned)rows), config.blockDim = dim3(JOIN_THREADS), config.dynamicSmemBytes = 0;
    SP_CUDA_TRY(cudaLaunchKernelEx(&config, hopper_join_kernel<half_t, shape::WIDTH>, *job));
    return SP_OK;
}

/* picking: of softpick; plain: of the others. */
template <typename picking, typename plain>
static sp_status hopper_decode_dispatch(const hopper_decode *job, sp_dtype dtype, cudaStream_t stream) {
    bool picks = job->view.normalizer == SP_NORMALIZER_SOFTPICK;
    if (dtype == SP_DTYPE_BF16)
        return picks ? hopper_decode_launch<__nv_bfloat16, picking>(job, stream)
                     : hopper_decode_launch<__nv_bfloat16, plain>(job, stream);
    return picks ? hopper_decode_launch<__half, picking>(job, stream)
                 : hopper_decode_launch<__half, plain>(job, stream);
}

#endif
