/* Liveness words of the softmaxes, whose weights are never 0: a block lives if a query of it sees a key of it. */
#include "attention/cuda/sm90_launch.cuh"
#include "device/cuda_check.cuh"

enum { THREADS = 256, ROW_BLOCKS = SP_LIVENESS_QUERIES / SP_LIVENESS_BLOCK };

/* Bits of the word's blocks of 16 keys, from `key` on, that hold a key of the range. */
static __device__ uint32_t blocks_of(weigh_range keys, int key) {
    int first = max(keys.first - key, 0) / SP_LIVENESS_BLOCK;
    int end = min((keys.end - key + SP_LIVENESS_BLOCK - 1) / SP_LIVENESS_BLOCK, SP_LIVENESS_KEYS / SP_LIVENESS_BLOCK);
    return keys.end > key && first < end ? (1u << end) - (1u << first) : 0;
}

/* One thread for each word. */
static __global__ void __launch_bounds__(THREADS)
    liveness_kernel(const __grid_constant__ gpu_view view, uint32_t *words, int n_query_words, int n_key_words,
                    int64_t n_words) {
    int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= n_words) return;
    int key = (int)(index % n_key_words) * SP_LIVENESS_KEYS;
    int row = (int)(index / n_key_words % n_query_words) * SP_LIVENESS_QUERIES;
    gpu_sequence sequence = view_sequence(view, (int)(index / n_key_words / n_query_words / view.H));
    int moved = sequence.n_k - sequence.n_q;
    uint32_t word = 0;
    for (int i = 0; i < ROW_BLOCKS; i++) {
        int first = row + i * SP_LIVENESS_BLOCK, last = min(first + SP_LIVENESS_BLOCK, sequence.n_q) - 1;
        if (first > last) break;
        /* what neighbouring queries see meets */
        weigh_range keys = {view_visible(view, sequence, first + moved).first,
                            view_visible(view, sequence, last + moved).end};
        word |= blocks_of(keys, key) << 8 * i;
    }
    words[index] = word;
}

extern "C" sp_status sp_sm90_liveness_seen(const hopper_forward *job, cudaStream_t stream) {
    int64_t n_words = (int64_t)job->view.n_sequences * job->view.H * job->n_query_words * job->n_key_words;
    if (n_words == 0) return SP_OK;
    liveness_kernel<<<(unsigned)((n_words + THREADS - 1) / THREADS), THREADS, 0, stream>>>(
        job->view, job->liveness, job->n_query_words, job->n_key_words, n_words);
    SP_CUDA_LAUNCHED("liveness words");
    return SP_OK;
}
