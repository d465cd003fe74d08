/*
 * A control loop that watches its deadline: each period it reads, acts and writes, and what comes
 * too late, or is made of a NaN, is replaced by a safe action. For Linux and other POSIX systems.
 *
 *   ./loop [SECONDS [PERIOD_US [DEADLINE_US]]]     default: 10 s of 1000 us, and half of a period
 *
 * It asks for a real-time priority and for memory that stays where it is, and says so where it gets
 * neither: then any other program may make it late. Ends with 1 if a deadline was missed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "policy.h"

#ifndef ACTION_TYPE
#define ACTION_TYPE int32_t
#endif
#define SECOND 1000000000LL
#define BINS 4096 /* of a microsecond each; the last holds all that is longer */

typedef struct {
  long periods, late, skipped, odd;
  long long longest;
  long bins[BINS];
} tally;

static policy_workspace workspace;

/* The plant: yours reads sensors and drives motors. */
static void read_sensors(long period, float *observation) {
  int i;
  for (i = 0; i < POLICY_OBS_SIZE; i++) observation[i] = 0.01f * (float)((period + i) % 7 - 3);
}
static volatile ACTION_TYPE motors[POLICY_ACTION_SIZE];
static void write_motors(const ACTION_TYPE *action) {
  int i;
  for (i = 0; i < POLICY_ACTION_SIZE; i++) motors[i] = action[i];
}
/* What is done when there is no action in time: here zeros; yours may brake. */
static void safe_action(ACTION_TYPE *action) {
  memset(action, 0, POLICY_ACTION_SIZE * sizeof *action);
}

static long long now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * SECOND + at.tv_nsec;
}

static void wait_until(long long when) {
  struct timespec at = {.tv_sec = (time_t)(when / SECOND), .tv_nsec = (long)(when % SECOND)};
  /* An absolute time: a wait that is interrupted doesn't shift the next. */
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
  }
}

static void become_real_time(void) {
  struct sched_param priority = {.sched_priority = 80};
  if (sched_setscheduler(0, SCHED_FIFO, &priority))
    fprintf(stderr, "No real-time priority (%s): other programs may make it late.\n", strerror(errno));
  if (mlockall(MCL_CURRENT | MCL_FUTURE))
    fprintf(stderr, "Memory isn't locked (%s): a page fault may make it late.\n", strerror(errno));
}

static void one_period(tally *seen, long long due, long long deadline) {
  float observation[POLICY_OBS_SIZE];
  ACTION_TYPE action[POLICY_ACTION_SIZE];
  long long took;
  int odd;
  read_sensors(seen->periods, observation);
  odd = policy_act_in(&workspace, observation, action, NULL);
  took = now() - due; /* with the time that it was woken late */
  seen->odd += odd;
  seen->late += took > deadline;
  if (odd || took > deadline) safe_action(action);
  write_motors(action);
  seen->periods++;
  if (took > seen->longest) seen->longest = took;
  seen->bins[took / 1000 < BINS ? took / 1000 : BINS - 1]++;
}

static long quantile(const tally *seen, double share) {
  long count = 0, bin = 0;
  while (bin < BINS - 1 && (count += seen->bins[bin]) < share * (double)seen->periods) bin++;
  return bin;
}

int main(int count, char **given) {
  double seconds = count > 1 ? atof(given[1]) : 10.0;
  long long period = 1000LL * (count > 2 ? atol(given[2]) : 1000);
  long long deadline = count > 3 ? 1000LL * atol(given[3]) : period / 2;
  long long due, end;
  static tally seen;
  if (seconds <= 0 || period <= 0 || deadline <= 0 || deadline > period) {
    fputs("loop [SECONDS [PERIOD_US [DEADLINE_US]]], above 0, the deadline within the period\n", stderr);
    return 2;
  }
  become_real_time();
  due = now() + period;
  end = due + (long long)(seconds * 1e9);
  for (; due < end; due += period) {
    wait_until(due);
    one_period(&seen, due, deadline);
    /* A period that is over already isn't made up for: an old observation helps nobody. */
    while (due + period < now() && due + period < end) {
      due += period;
      seen.skipped++;
    }
  }
  printf("%ld periods of %lld us: %ld later than %lld us, %ld skipped, %ld of a NaN; ready after %ld us "
         "(median), %ld us (99 %%), %lld us at most\n",
         seen.periods, period / 1000, seen.late, deadline / 1000, seen.skipped, seen.odd,
         quantile(&seen, 0.5), quantile(&seen, 0.99), seen.longest / 1000);
  return seen.late || seen.skipped;
}
