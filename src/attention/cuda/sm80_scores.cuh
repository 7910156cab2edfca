/* Tiles of queries against blocks of keys on GPUs from SM 8.0: sizes, loading, and the product S = Q K^T.  What becomes of
 * the scores: sm80_forward.cuh, sm80_statistics.cuh.
 *
 * A block of threads works on one tile of queries of one head, each warp of it on 16 PARTS rows of its own.  In shared
 * memory channels beyond D and Dv, queries beyond T and keys beyond S are zeros; global memory outside of the tensors'
 * rows is never touched. */
#ifndef SP_ATTENTION_CUDA_SM80_SCORES_CUH
#define SP_ATTENTION_CUDA_SM80_SCORES_CUH

#include "attention/cuda/view.cuh"

/* ---- sizes, one set for each padded width of a head --------------------------------------------------------------- */

template <int WIDTH> struct tile_sizes;
template <> struct tile_sizes<64> {
    enum {
        KEYS = 64,   /* of a block */
        WARPS = 4,   /* of a block of threads */
        PARTS = 2,   /* of 16 rows in a warp */
        STAGES = 2,  /* blocks of keys in shared memory */
        BLOCKS = 2,  /* of threads on a multiprocessor */
        Q_STAYS = 1, /* in registers */
    };
};
template <> struct tile_sizes<128> {
    enum { KEYS = 32, WARPS = 4, PARTS = 2, STAGES = 2, BLOCKS = 2, Q_STAYS = 0 };
};
template <> struct tile_sizes<256> {
    enum { KEYS = 32, WARPS = 4, PARTS = 1, STAGES = 2, BLOCKS = 2, Q_STAYS = 0 };
};

template <int WIDTH> struct tile_shape : tile_sizes<WIDTH> {
    typedef tile_sizes<WIDTH> sizes;
    enum {
        THREADS = sizes::WARPS * LANES,
        WARP_ROWS = 16 * sizes::PARTS,
        ROWS = sizes::WARPS * WARP_ROWS,
        STEPS = WIDTH / 16,          /* of 16 channels */
        KEY_TILES = sizes::KEYS / 8, /* of 8 keys */
        WIDTH_TILES = WIDTH / 8,     /* of 8 channels */
        Q_BYTES = ROWS * WIDTH * 2,
        KEYS_BYTES = sizes::KEYS * WIDTH * 2,
    };
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* Copies tiles of N rows, one after the other, from a tensor into shared memory; each thread has the same chunks of each
 * tile. */
template <int WIDTH, int N, int THREADS> struct tile_loader {
    enum { CHUNKS = WIDTH / CHUNK, ROWS = THREADS / CHUNKS };
    static_assert(N % ROWS == 0, "every thread copies as many chunks");

    const char *from; /* this thread's first chunk of the next tile */
    int64_t stride;   /* from one of its rows to the next, in bytes */
    int row, chunk, bytes;

    /* `rows`: the first row of the first tile. */
    __device__ __forceinline__ tile_loader(const char *rows, int64_t row_stride, int width)
        : stride(ROWS * row_stride * 2), row(threadIdx.x / CHUNKS), chunk(threadIdx.x % CHUNKS) {
        from = rows + row * row_stride * 2 + chunk * CHUNK_BYTES;
        bytes = min(max(2 * (width - chunk * CHUNK), 0), (int)CHUNK_BYTES);
    }

    /* Rows move on by a multiple of 8 where there are 8 of them or more, and a chunk keeps its place. */
    __device__ __forceinline__ uint32_t place(int i) const {
        return ROWS % 8 == 0 ? chunk_offset<WIDTH>(row, chunk) + i * ROWS * WIDTH * 2
                             : chunk_offset<WIDTH>(row + i * ROWS, chunk);
    }

    /* Begins to copy a tile of which n rows are there, the others become zeros. */
    __device__ __forceinline__ void load(uint32_t tile, int n) const {
        const char *next = from;
        if (n >= N && bytes == CHUNK_BYTES) {
#pragma unroll
            for (int i = 0; i < N / ROWS; i++, next += stride) copy_whole_chunk(tile + place(i), next);
        } else {
#pragma unroll
            for (int i = 0; i < N / ROWS; i++, next += stride) {
                bool inside = row + i * ROWS < n;
                copy_chunk(tile + place(i), inside ? next : from, inside ? bytes : 0);
            }
        }
    }

    /* The next tile lies before this one. */
    __device__ __forceinline__ void step_back() { from -= N / ROWS * stride; }
};

/* What a block of threads works on. */
struct tile_job {
    gpu_sequence sequence;
    int h, first_row, n_rows; /* queries of the sequence */
    int offset;               /* position of a query less its number */
    int key_begin, key_end;   /* keys that some query of the tile sees */
};

__device__ __forceinline__ tile_job tile_job_of(const gpu_view &view, int rows) {
    tile_job job;
    gpu_item item = view_item(view, blockIdx.x);
    job.sequence = view_sequence(view, item.sequence);
    job.h = item.h;
    job.first_row = item.tile * rows;
    job.n_rows = min(rows, job.sequence.n_q - job.first_row);
    job.offset = job.sequence.n_k - job.sequence.n_q;
    job.key_begin = view_visible(view, job.sequence, job.first_row + job.offset).first;
    job.key_end = view_visible(view, job.sequence, job.first_row + job.n_rows - 1 + job.offset).end;
    return job;
}

/* The head's first query of the tile, and a key or value of the sequence. */
template <typename half_t>
__device__ __forceinline__ const char *job_queries(const gpu_view &view, const tile_job &job) {
    return (const char *)tensor_row<half_t>(view.q, job.sequence.b, job.sequence.q_first + job.first_row, job.h);
}
template <typename half_t>
__device__ __forceinline__ const char *job_keys(const gpu_view &view, const gpu_tensor &tensor, const tile_job &job,
                                                int key) {
    return (const char *)tensor_row<half_t>(tensor, job.sequence.b, job.sequence.k_first + key, job.h / view.group);
}

/* ---- the scores of one warp --------------------------------------------------------------------------------------- */

/* A loop over what a lane holds of its warp's rows: 16 rows a part, of which it has row lane / 4 and that 8 further on;
 * of each the columns 2 (lane % 4) and the next of every 8. */
#define EACH_ROW(part, half, PARTS)                                                                                    \
    _Pragma("unroll") for (int part = 0; part < (PARTS); part++) _Pragma("unroll") for (int half = 0; half < 2; half++)

template <typename half_t, int WIDTH> struct score_warp {
    typedef tile_shape<WIDTH> shape;
    enum { PARTS = shape::PARTS, KEY_TILES = shape::KEY_TILES, Q_STEPS = shape::Q_STAYS ? shape::STEPS : 1 };

    uint32_t q_address; /* of this lane's row of A */
    uint32_t k_offset;  /* of this lane's row of B within a tile */
    uint32_t q[PARTS][Q_STEPS][4];
    float s[PARTS][KEY_TILES][4]; /* before they are scaled */
    int position;                 /* of this lane's first row; of the others: position_of */

    __device__ __forceinline__ void begin_scores(const tile_job &job, uint32_t q_tile) {
        int lane = threadIdx.x % LANES, warp_row = threadIdx.x / LANES * shape::WARP_ROWS;
        q_address = q_tile + chunk_offset<WIDTH>(warp_row + lane % 16, lane / 16);
        k_offset = chunk_offset<WIDTH>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
        position = job.first_row + warp_row + job.offset + lane / 4;
    }

    __device__ __forceinline__ int position_of(int part, int half) const { return position + 16 * part + 8 * half; }

    __device__ __forceinline__ void load_queries(uint32_t a[4], int part, int step) const {
        load_matrices(a, (q_address + part * 16 * WIDTH * 2) ^ (step * 2 * CHUNK_BYTES));
    }

    /* After the Q tile has arrived. */
    __device__ __forceinline__ void keep_queries() {
        if constexpr (shape::Q_STAYS) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int step = 0; step < Q_STEPS; step++) load_queries(q[part][step], part, step);
        }
    }

    __device__ __forceinline__ void compute_scores(uint32_t k_tile) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < KEY_TILES; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[part][j][i] = 0;
#pragma unroll
        for (int step = 0; step < shape::STEPS; step++) {
            uint32_t a[PARTS][4], b[4];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                if constexpr (shape::Q_STAYS) {
#pragma unroll
                    for (int i = 0; i < 4; i++) a[part][i] = q[part][step][i];
                } else {
                    load_queries(a[part], part, step);
                }
            }
            uint32_t address = k_tile + (k_offset ^ (step * 2 * CHUNK_BYTES));
#pragma unroll
            for (int j = 0; j < KEY_TILES; j += 2) {
                load_matrices(b, address + j * 8 * WIDTH * 2);
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    mma_16816<half_t>(s[part][j], a[part], b);
                    mma_16816<half_t>(s[part][j + 1], a[part], b + 2);
                }
            }
        }
    }

    /* Whether a row of the warp sees a key of the block that begins at `key`; *all: whether all rows see all of it. */
    __device__ __forceinline__ bool sees_block(const gpu_view &view, const tile_job &job, int key, bool *all) const {
        int first_position = job.first_row + threadIdx.x / LANES * shape::WARP_ROWS + job.offset;
        weigh_range first = view_visible(view, job.sequence, first_position);
        weigh_range last = view_visible(view, job.sequence, first_position + shape::WARP_ROWS - 1);
        *all = key >= last.first && key + shape::KEYS <= first.end;
        return key < last.end && key + shape::KEYS > first.first;
    }

    /* Key of this lane's first column, in the block that begins at `key`. */
    static __device__ __forceinline__ int first_column(int key) { return key + threadIdx.x % 4 * 2; }
};

/* Sum of the four lanes that hold a row. */
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

#endif
