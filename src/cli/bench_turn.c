/* Turns on a GPU: rest, warm up, time. */
#define _GNU_SOURCE /* nanosleep */
#include "cli/bench_turn.h"

#include <time.h>

/* Cleared three times this takes a millisecond, in which a host queues a turn's calls. */
static const int64_t AHEAD_BYTES = (int64_t)1 << 30;
enum { AHEAD_TIMES = 3 };

sp_status bench_turns_open(bench_turns *turns, sp_device *device, bool once) {
    *turns = (bench_turns){.device = device, .once = once};
    SP_TRY(sp_device_allocate(device, &turns->ahead, AHEAD_BYTES, "memory to be cleared"));
    for (int i = 0; i <= BENCH_TURN_CALLS; i++) SP_TRY(sp_device_mark_new(device, &turns->marks[i]));
    return SP_OK;
}

void bench_turns_close(bench_turns *turns) {
    if (!turns->device) return;
    for (int i = 0; i <= BENCH_TURN_CALLS; i++)
        if (turns->marks[i]) sp_device_mark_free(turns->device, turns->marks[i]);
    sp_device_release(turns->device, turns->ahead);
    *turns = (bench_turns){0};
}

static sp_status warm_up(bench_turns *turns, bench_work work, void *user) {
    const struct timespec rest = {0, BENCH_TURN_REST_MS * 1000000L};
    SP_TRY(sp_device_wait(turns->device));
    nanosleep(&rest, NULL);
    for (int i = 0; i < AHEAD_TIMES; i++) SP_TRY(sp_device_zero(turns->device, turns->ahead, AHEAD_BYTES));
    for (int i = 0; i < BENCH_TURN_WARM_UPS; i++) SP_TRY(work(user));
    return SP_OK;
}

sp_status bench_turn(bench_turns *turns, bench_times *times, bench_work work, void *user) {
    const int n = turns->once ? 1 : BENCH_TURN_CALLS;
    double seconds;
    if (!turns->once) SP_TRY(warm_up(turns, work, user));
    SP_TRY(sp_device_mark(turns->device, turns->marks[0]));
    for (int i = 0; i < n; i++) {
        SP_TRY(work(user));
        SP_TRY(sp_device_mark(turns->device, turns->marks[i + 1]));
    }
    SP_TRY(sp_device_wait(turns->device));
    for (int i = 0; i < n; i++) {
        SP_TRY(sp_device_seconds_between(turns->device, turns->marks[i], turns->marks[i + 1], &seconds));
        bench_times_add(times, seconds);
    }
    return SP_OK;
}
