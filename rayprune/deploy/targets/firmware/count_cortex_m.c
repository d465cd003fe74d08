/*
 * Counts an action's instructions, and the stack that it takes; prints both by semihosting.
 *
 * QEMU's `-icount shift=0` lets a nanosecond pass with every instruction, and SysTick counts a
 * board's own share of them: how many instructions a tick is, a loop of known length tells.
 */
#include <stdint.h>
#include "case.h"
#include "stack.h"

#define SYST_CSR (*(volatile uint32_t *)0xE000E010)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018)
#define COUNTS 0x5u       /* on, by the processor's clock, without an interrupt */
#define WRAPPED 0x10000u  /* it has passed zero since it was last asked */
#define MOST 0xFFFFFFu
#define ENOUGH 50000u     /* ticks of one figure: more calls tell no more */
#define MOST_CALLS 64u
#define LOOPS 1000000u    /* two instructions each */
#define DEEPEST 65536u

extern uint32_t _ebss;

static void semihost(int what, const void *with) {
  register int r0 __asm("r0") = what;
  register const void *r1 __asm("r1") = with;
  __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(const char *text) { semihost(0x04, text); }

static void leave(int failed) {
  semihost(0x18, (const void *)(uintptr_t)(failed ? 0x20023 : 0x20026));
  for (;;) {
  }
}

static void say_number(uint32_t number) {
  char text[12], *at = text + 11;
  *at = 0;
  do *--at = (char)('0' + number % 10);
  while (number /= 10);
  say(" ");
  say(at);
}

void HardFault_Handler(void) {
  say("fault\n");
  leave(1);
}

static uint32_t now(void) { return SYST_CVR; }

static uint32_t since(uint32_t begin) {
  uint32_t ticks = (begin - SYST_CVR) & MOST;
  if (SYST_CSR & WRAPPED && ticks > begin) {
    say("overflow\n");
    leave(1);
  }
  return ticks;
}

static void restart(void) {
  SYST_RVR = MOST;
  SYST_CVR = 0; /* any value: it begins again, and has not wrapped */
  SYST_CSR = COUNTS;
  (void)SYST_CSR;
}

static __attribute__((noinline)) uint32_t calibrate(void) {
  uint32_t loops = LOOPS, begin;
  restart();
  begin = now();
  __asm volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(loops) : : "cc");
  return since(begin);
}

static __attribute__((noinline)) uint32_t ticks_of(int which, uint32_t calls) {
  uint32_t begin, i;
  restart();
  begin = now();
  for (i = 0; i < calls; i++) case_act(which);
  return since(begin);
}

static uint32_t stack(void) {
  uintptr_t top = stack_pointer(), bottom = (uintptr_t)&_ebss, lowest;
  int i;
  if (top - bottom > DEEPEST) bottom = top - DEEPEST;
  paint(bottom);
  for (i = 0; i < case_count; i++) case_act(i);
  lowest = deepest(bottom);
  if (lowest == bottom) {
    say("stack overflow\n");
    leave(1);
  }
  return top - lowest;
}

int main(void) {
  int i;
  say("stack");
  say_number(stack());
  say("\nloop");
  say_number(2 * LOOPS);
  say_number(calibrate());
  for (i = 0; i < case_count; i++) {
    uint32_t calls = ENOUGH / (ticks_of(i, 1) + 1);
    calls = calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : calls;
    say("\ncalls");
    say_number(calls);
    say_number(ticks_of(i, calls));
  }
  say("\nend\n");
  leave(0);
  return 0;
}
