/* Runs a file's self-test, its `main` renamed when it is compiled, and leaves QEMU with its answer. */
#include <stdio.h>
#include <stdlib.h>

int policy_self_test(void);

void HardFault_Handler(void) {
  puts("fault");
  exit(2);
}

int main(void) { exit(policy_self_test()); }
