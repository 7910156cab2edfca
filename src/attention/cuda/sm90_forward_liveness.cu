/* Liveness words: a block of 16 x 16 lives if a query of it sees a key of it and, where a weight may be 0, its warp has voted
 * for it. */
#include "attention/cuda/sm90_launch.cuh"
#include "device/cuda_check.cuh"

enum { THREADS = 256, ROW_BLOCKS = SP_LIVENESS_QUERIES / SP_LIVENESS_BLOCK };

/* Bits of the word's blocks of 16 keys, from `key` on, that hold a key of the range. */
static __device__ uint32_t blocks_of(weigh_range keys, int key) {
    int first = max(keys.first - key, 0) / SP_LIVENESS_BLOCK;
    int end = min((keys.end - key + SP_LIVENESS_BLOCK - 1) / SP_LIVENESS_BLOCK, SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK);
    return keys.end > key && first < end ? (1u << end) - (1u << first) : 0;
}

/* Of the word's blocks that are seen, those with votes; `row`: of votes, slabs counted from the row's begin. */
static __device__ uint32_t voted(uint32_t seen, const uint32_t *row, int slab, int slabs_a_vote) {
    uint32_t word = 0;
    for (int i = 0; i < SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK; i++) {
        uint32_t column = seen >> i & 0x01010101; /* where nothing is seen there may be no votes */
        if (column) word |= (row[(slab + i) / slabs_a_vote] >> (slab + i) % slabs_a_vote & column) << i;
    }
    return word;
}

/* One thread for each word. */
static __global__ void __launch_bounds__(THREADS)
    liveness_kernel(const __grid_constant__ hopper_forward job, int64_t n_words) {
    int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= n_words) return;
    int column = (int)(index % job.n_key_words), key = column * SP_LIVENESS_KEYS;
    int64_t row = index / job.n_key_words;
    int first_row = (int)(row % job.n_query_words) * SP_LIVENESS_QUERIES;
    gpu_sequence sequence = view_sequence(job.view, (int)(row / job.n_query_words / job.view.H));
    int moved = sequence.n_k - sequence.n_q;
    uint32_t word = 0;
    for (int i = 0; i < ROW_BLOCKS; i++) {
        int first = first_row + i * SP_LIVENESS_BLOCK, last = min(first + SP_LIVENESS_BLOCK, sequence.n_q) - 1;
        if (first > last) break;
        /* what neighbouring queries see meets */
        weigh_range keys = {view_visible(job.view, sequence, first + moved).first,
                            view_visible(job.view, sequence, last + moved).end};
        word |= blocks_of(keys, key) << 8 * i;
    }
    if (job.votes) word = voted(word, job.votes + row * job.n_vote_blocks, column * 8, job.vote_slabs);
    job.liveness[index] = word;
}

extern "C" sp_status sp_sm90_liveness(const hopper_forward *job, cudaStream_t stream) {
    int64_t n_words = (int64_t)job->view.n_sequences * job->view.H * job->n_query_words * job->n_key_words;
    if (!job->liveness || n_words == 0) return SP_OK;
    liveness_kernel<<<(unsigned)((n_words + THREADS - 1) / THREADS), THREADS, 0, stream>>>(*job, n_words);
    SP_CUDA_LAUNCHED("liveness words");
    return SP_OK;
}
