/* Reads observations, one a line, and writes the policy's actions. */
#include <stdint.h>
#include <stdio.h>
#include "policy.h"

#ifndef ACTION_TYPE
#define ACTION_TYPE int32_t
#endif

/* 1: one was read; 0: no more; -1: what is there isn't a number. */
static int read_observation(float *observation) {
  int i, found = 1;
  for (i = 0; i < POLICY_OBS_SIZE; i++) {
    found = scanf("%f", &observation[i]);
    if (found != 1) break;
  }
  return found == 1 ? 1 : found == EOF && i == 0 ? 0 : -1;
}

int main(void) {
  float observation[POLICY_OBS_SIZE];
  ACTION_TYPE action[POLICY_ACTION_SIZE];
  policy_workspace workspace; /* one for each thread */
  int i, read;
  while ((read = read_observation(observation)) == 1) {
    if (policy_act_in(&workspace, observation, action, NULL)) {
      fputs("The observation makes no action: it holds a NaN.\n", stderr);
      return 1;
    }
    for (i = 0; i < POLICY_ACTION_SIZE; i++) printf(i ? " %g" : "%g", (double)action[i]);
    putchar('\n');
  }
  if (read < 0) {
    fprintf(stderr, "An observation is %d numbers.\n", POLICY_OBS_SIZE);
    return 2;
  }
  return 0;
}
