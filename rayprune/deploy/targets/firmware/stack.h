/* How deep calls go: what lies below the stack pointer is painted, and looked at afterwards. */
#ifndef STACK_H
#define STACK_H
#include <stdint.h>

#define PAINT 0xA5C35A3Cu

static inline __attribute__((always_inline)) uintptr_t stack_pointer(void) {
  uintptr_t here;
#if defined(__x86_64__)
  __asm volatile("mov %%rsp, %0" : "=r"(here));
#else
  __asm volatile("mov %0, sp" : "=r"(here));
#endif
  return here;
}

/* Paint from here down to `bottom`. A leaf, compiled without a red zone: it uses none of it. */
static __attribute__((noinline)) void paint(uintptr_t bottom) {
  volatile uint32_t *word = (volatile uint32_t *)(stack_pointer() & ~(uintptr_t)3);
  while ((uintptr_t)word > bottom) *--word = PAINT;
}

/* The lowest address that something else than paint was written to. */
static __attribute__((noinline)) uintptr_t deepest(uintptr_t bottom) {
  volatile uint32_t *word = (volatile uint32_t *)bottom;
  while (*word == PAINT) word++;
  return (uintptr_t)word;
}

#endif
