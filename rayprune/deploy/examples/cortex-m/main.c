/*
 * A bare Cortex-M that acts at 1 kHz: SysTick ticks, the main loop acts, overruns are counted.
 *
 * What is printed goes by semihosting to a debugger or to QEMU; a board on its own has neither, and
 * `bkpt` is a fault there: compile it with -DQUIET.
 */
#include <stdint.h>
#include "policy.h"

#ifndef ACTION_TYPE
#define ACTION_TYPE int32_t
#endif
#ifndef CLOCK_HZ
#define CLOCK_HZ 25000000u /* of the processor: 25 MHz on QEMU's mps2 */
#endif
#define PERIODS 200
#define PERIOD (CLOCK_HZ / 1000u)

#define SYST_CSR (*(volatile uint32_t *)0xE000E010)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018)

static volatile uint32_t ticks;
static policy_workspace workspace;

void SysTick_Handler(void) { ticks++; }

/* Sleep until a tick has come after `due`. One that comes between the look and the sleep is not lost:
 * with interrupts held back it ends the sleep all the same. */
static void wait_after(uint32_t due) {
  for (;;) {
    __asm volatile("cpsid i" ::: "memory");
    if (ticks != due) break;
    __asm volatile("wfi\n cpsie i\n isb" ::: "memory");
  }
  __asm volatile("cpsie i" ::: "memory");
}

static void semihost(int what, const void *with) {
#ifndef QUIET
  register int r0 __asm("r0") = what;
  register const void *r1 __asm("r1") = with;
  __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
#else
  (void)what, (void)with;
#endif
}

static void say(const char *text) { semihost(0x04, text); }

static void say_number(const char *before, uint32_t number) {
  char text[12], *at = text + 11;
  *at = 0;
  do *--at = (char)('0' + number % 10);
  while (number /= 10);
  say(before);
  say(at);
}

static void leave(int failed) {
  semihost(0x18, (const void *)(uintptr_t)(failed ? 0x20023 : 0x20026));
  for (;;) {
  }
}

void HardFault_Handler(void) {
  say("fault\n");
  leave(1);
}

/* The plant: yours reads sensors and drives motors. */
static void read_sensors(uint32_t period, float *observation) {
  int i;
  for (i = 0; i < POLICY_OBS_SIZE; i++) observation[i] = 0.01f * (float)((int)(period + (uint32_t)i) % 7 - 3);
}
static volatile ACTION_TYPE motors[POLICY_ACTION_SIZE];
static void write_motors(const ACTION_TYPE *action) {
  int i;
  for (i = 0; i < POLICY_ACTION_SIZE; i++) motors[i] = action[i];
}
/* What is done when an action can't be made or comes too late: yours may brake. */
static void safe_action(ACTION_TYPE *action) {
  int i;
  for (i = 0; i < POLICY_ACTION_SIZE; i++) action[i] = 0;
}

int main(void) {
  float observation[POLICY_OBS_SIZE];
  ACTION_TYPE action[POLICY_ACTION_SIZE];
  uint32_t period, longest = 0, late = 0, odd = 0;
  SYST_RVR = PERIOD - 1;
  SYST_CVR = 0;
  SYST_CSR = 7; /* on, with its interrupt, by the processor's clock */
  for (period = 0; period < PERIODS; period++) {
    uint32_t due = ticks, took;
    int nothing, overrun;
    wait_after(due);
    due = ticks;
    read_sensors(period, observation);
    nothing = policy_act_in(&workspace, observation, action, 0);
    took = PERIOD - 1 - SYST_CVR;
    overrun = ticks != due; /* the next period has begun */
    if (nothing || overrun) safe_action(action);
    write_motors(action);
    odd += (uint32_t)nothing;
    late += (uint32_t)overrun;
    if (!overrun && took > longest) longest = took;
  }
  say_number("periods ", PERIODS);
  say_number(", late ", late);
  say_number(", of a NaN ", odd);
  say_number("; an action took at most ", longest);
  say_number(" ticks of ", PERIOD);
  say("\n");
  leave(late || odd);
  return 0;
}
