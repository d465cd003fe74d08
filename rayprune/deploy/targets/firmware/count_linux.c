/*
 * Calls an action with each of the inputs, and prints the stack that it takes. Between the calls it
 * enters `mark`, where count_instructions.c tells how many instructions have been run.
 */
#include <stdint.h>
#include <stdio.h>
#include "case.h"
#include "stack.h"

#define DEEPEST 65536u

__attribute__((noinline)) void mark(void) { __asm volatile(""); }

/* -1: deeper than was painted. */
static __attribute__((noinline)) long stack(void) {
  uintptr_t top = stack_pointer(), bottom = top - DEEPEST, lowest;
  int i;
  for (i = 0; i < case_count; i++) case_act(i); /* what is done once only */
  paint(bottom);
  for (i = 0; i < case_count; i++) case_act(i);
  lowest = deepest(bottom);
  return lowest == bottom ? -1 : (long)(top - lowest);
}

int main(void) {
  long used = stack();
  int i;
  if (used < 0) {
    puts("stack overflow");
    return 1;
  }
  mark();
  for (i = 0; i < case_count; i++) {
    case_act(i);
    mark();
  }
  printf("stack %ld\nend\n", used);
  return 0;
}
