/* A network as a program of registers for NVDLA: what a program consists of, and the player that runs it.
 *
 * nvdla_program.c has the tables of one loadable, nvdla_player.c the player (C99, no library, no memory of its own),
 * nvdla_softmax.c what the processor computes behind the last operation, main.c an example. The memory may stand at any
 * address that is a multiple of 4096: addresses in the tables count from its beginning.
 */
#ifndef NVDLA_PROGRAM_H
#define NVDLA_PROGRAM_H

#include <stdint.h>

enum nvdla_kind {
    NVDLA_WRITE,        /* register = value */
    NVDLA_ADDRESS_LOW,  /* register = lower 32 bits of the bus address of byte `value` of `memory` */
    NVDLA_ADDRESS_HIGH, /* register = upper 32 bits of it */
    NVDLA_POLL,         /* read the register until it holds the value */
    NVDLA_WAIT          /* read the register until it has all bits of the value */
};

struct nvdla_step {
    uint8_t kind;
    uint8_t memory; /* 0: DRAM, behind MCIF; 1: SRAM, behind CVIF */
    uint16_t word;  /* byte address of the register / 4 */
    uint32_t value;
};

struct nvdla_span {
    uint8_t memory;
    uint32_t offset, size;
};

struct nvdla_content {
    struct nvdla_span span;
    const uint8_t *bytes;
};

struct nvdla_result {
    struct nvdla_span span;
    uint32_t crc; /* CRC-32 as zlib has it */
};

enum nvdla_operation { NVDLA_POWER, NVDLA_SOFTMAX };

/* What the processor computes: docs/hardware/cpu.md. Halves where element_bytes is 2, else int8. */
struct nvdla_cpu {
    uint8_t operation, element_bytes;
    struct nvdla_span source, destination;
    uint32_t channels, height, width, atom; /* atom: channels that stand side by side */
    uint32_t source_line, source_surface, destination_line, destination_surface; /* bytes */
    float input_scale, output_scale, power, scale, shift;
};

/* Either steps of the hardware, or, where there are none, one operation of the processor. */
struct nvdla_part {
    const struct nvdla_step *steps;
    uint32_t count;
    const struct nvdla_cpu *cpu;
};

struct nvdla_program {
    const char *target;
    const struct nvdla_part *parts;
    uint32_t part_count;
    const struct nvdla_content *contents;
    uint32_t content_count;
    const struct nvdla_result *results; /* of the last part of the hardware, for the image in the contents */
    uint32_t result_count;
    uint32_t sizes[2];               /* bytes of each memory */
    struct nvdla_span input, output; /* where the image goes, where the network's output will be */
};

struct nvdla_device {
    volatile uint32_t *registers; /* NVDLA's registers as the processor sees them */
    uint8_t *memory[2];           /* the memories as the processor sees them */
    uint64_t bus[2];              /* the same as NVDLA sees them */
    uint32_t patience;            /* reads of a register before giving up; 0: never */
    uint32_t stopped_at;          /* step at which nvdla_run gave up */
};

extern const struct nvdla_program nvdla_program;

/* Copy weights and image into the memories. */
void nvdla_load(const struct nvdla_program *program, const struct nvdla_device *device);

/* Run one part of the hardware: 0, or -1 where a register never got the value that is waited for. */
int nvdla_run(const struct nvdla_part *part, struct nvdla_device *device);

/* Compare the results: 0, or how many differ. */
int nvdla_check(const struct nvdla_program *program, const struct nvdla_device *device);

/* Compute a Softmax of the processor: 0, or -1 for another operation, which is the caller's. Uses the C library's expf. */
int nvdla_softmax(const struct nvdla_cpu *cpu, const struct nvdla_device *device);

#endif
