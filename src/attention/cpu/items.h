/* Items: the parts that a pass is cut into, each computed by one thread, and how forward cuts its own. */
#ifndef SP_ATTENTION_ITEMS_H
#define SP_ATTENTION_ITEMS_H

#include "attention/problem.h"

typedef struct sp_cpu_item {
    int64_t sequence;
    int64_t head;     /* backward: the key/value head */
    int64_t first, n; /* queries; backward: keys */
    int64_t chunk;    /* backward: which of the sequence's */
    int64_t work;     /* scores to compute */
} sp_cpu_item;

/* For qsort: longest first.  The rest decides ties, so that the order is always the same. */
int sp_items_compare(const void *left, const void *right);

/* Items of up to n_queries queries of each query head: how many there are, and the list of them, not sorted. */
int64_t sp_items_count_queries(const sp_attention *problem, int64_t n_queries);
void sp_items_list_queries(const sp_attention *problem, int64_t n_queries, sp_cpu_item *items);
/* How many queries an item gets: `highest`, or fewer, at least `lowest`, where there would be too few items to go
 * round. */
int64_t sp_items_choose_queries(const sp_attention *problem, int64_t highest, int64_t lowest, int n_threads);

/* Clears the problem's liveness words, if it has any: items set those of the blocks that they come by. */
void sp_items_clear_liveness(const sp_attention *problem);

#endif
