/* Turns of work on a GPU, timed by marks in its stream. */
#ifndef SP_CLI_BENCH_TURN_H
#define SP_CLI_BENCH_TURN_H

#include <stdbool.h>

#include "cli/bench.h"
#include "device/device.h"

/* Each turn: a rest, without which the GPU's limit of power slows whoever comes next; work of another kind, behind which
 * calls queue up, so that the GPU never waits for the host; calls that are not timed; timed calls. */
enum { BENCH_TURN_REST_MS = 60, BENCH_TURN_WARM_UPS = 5, BENCH_TURN_CALLS = 10, BENCH_TURNS = 3 };

typedef struct bench_turns {
    sp_device *device;
    bool once; /* a turn is one call, without all else */
    void *ahead;
    void *marks[BENCH_TURN_CALLS + 1];
} bench_turns;

SP_MUST_CHECK sp_status bench_turns_open(bench_turns *out, sp_device *device, bool once);
void bench_turns_close(bench_turns *turns);

/* Queues the work once. */
typedef sp_status (*bench_work)(void *user);
SP_MUST_CHECK sp_status bench_turn(bench_turns *turns, bench_times *times, bench_work work, void *user);

#endif
