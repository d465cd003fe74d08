/*
 * A plugin for QEMU's emulation of a Linux program: each time that the program enters the function
 * at `at=ADDRESS` it logs how many instructions have been run before.
 *
 * Debian ships no qemu-plugin.h, so what is used of it is declared here. VERSION is that of the
 * plugin interface; a QEMU refuses those that it doesn't know, and what is used is the same in all.
 */
#include <stddef.h>
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned int, void *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed, int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern void qemu_plugin_outs(const char *);

PUBLIC int qemu_plugin_version = VERSION;
static uint64_t at, count;

static void told(void) {
  char text[24], *place = text + 23;
  uint64_t number = count;
  *place = 0;
  *--place = '\n';
  do *--place = (char)('0' + number % 10);
  while (number /= 10);
  qemu_plugin_outs(place);
}

static void run(unsigned int cpu, void *instructions) {
  (void)cpu;
  count += (uintptr_t)instructions;
}

static void run_mark(unsigned int cpu, void *instructions) {
  told();
  run(cpu, instructions);
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  /* A block is left early by a fault alone, and then the program ends. */
  qemu_plugin_register_vcpu_tb_exec_cb(block, qemu_plugin_tb_vaddr(block) == at ? run_mark : run, 0,
                                       (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
  const char *digit = argc > 0 ? argv[0] : "";
  (void)info;
  while (*digit && *digit != '=') digit++;
  if (!*digit++) return 1;
  for (; *digit; digit++) at = 10 * at + (uint64_t)(*digit - '0');
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  return 0;
}
