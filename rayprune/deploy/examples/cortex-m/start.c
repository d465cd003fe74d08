/*
 * Start-up of a bare Cortex-M: vector table, FPU, data, main. For GCC and link.ld.
 *
 * What a board has besides (clocks, flash wait states, a watchdog) belongs at the top of main.
 */
#include <stdint.h>

extern uint32_t _estack, _etext, _sdata, _edata, _sbss, _ebss;
extern int main(void);

void Reset_Handler(void);
void Default_Handler(void);
/* A program may define its own; faults end there, and not in a silent loop. */
void HardFault_Handler(void) __attribute__((weak, alias("Default_Handler")));
void SysTick_Handler(void) __attribute__((weak, alias("Default_Handler")));
/* newlib's, for programs linked with its semihosting (--specs=rdimon.specs). */
void initialise_monitor_handles(void) __attribute__((weak));

void Reset_Handler(void) {
  uint32_t *from = &_etext, *to;
#if defined(__ARM_FP)
  /* Full access to the FPU, before any function that may use it. */
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
  __asm volatile("dsb\n isb" ::: "memory");
#endif
  for (to = &_sdata; to < &_edata;) *to++ = *from++;
  for (to = &_sbss; to < &_ebss;) *to++ = 0;
  if (initialise_monitor_handles) initialise_monitor_handles();
  main();
  for (;;) {
  }
}

void Default_Handler(void) {
  for (;;) {
  }
}

__attribute__((section(".vectors"), used)) const void *const vectors[16] = {
    &_estack,        Reset_Handler,     Default_Handler,   HardFault_Handler,
    Default_Handler, Default_Handler,   Default_Handler,   0,
    0,               0,                 0,                 Default_Handler,
    Default_Handler, 0,                 Default_Handler,   SysTick_Handler};

/* What newlib calls around main where it has constructors to run. */
void _init(void) {}
void _fini(void) {}
