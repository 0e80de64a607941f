/* Plays a program of registers; see nvdla_program.h.
 *
 * For a platform: NVDLA_READ and NVDLA_WRITE reach a register, by its word. NVDLA_BARRIER makes what the processor wrote
 * visible to NVDLA before a unit is enabled, and what NVDLA wrote visible to the processor behind an interrupt: with
 * caches that NVDLA does not see, clean and invalidate them there. NVDLA_UNGATE, where the platform can reach NVDLA's
 * pins, sets tmc2slcg_disable_clock_gating or global_clk_ovr_on: without either, hardware with NVIDIA's default clock
 * gating may lose releases of weights and stop (docs/bare-metal.md).
 */
#include "nvdla_program.h"

#ifndef NVDLA_READ
#define NVDLA_READ(device, word) ((device)->registers[word])
#endif
#ifndef NVDLA_WRITE
#define NVDLA_WRITE(device, word, value) ((device)->registers[word] = (value))
#endif
#ifndef NVDLA_BARRIER
#if defined(__GNUC__)
#define NVDLA_BARRIER(device) __sync_synchronize()
#else
#define NVDLA_BARRIER(device) ((void)(device))
#endif
#endif
#ifndef NVDLA_UNGATE
#define NVDLA_UNGATE(device) ((void)(device))
#endif

static uint8_t *span_of(const struct nvdla_device *device, struct nvdla_span span)
{
    return device->memory[span.memory] + span.offset;
}

/* Read a register until its bits in `mask` are those of `value`. */
static int await(struct nvdla_device *device, uint16_t word, uint32_t mask, uint32_t value)
{
    uint32_t reads = 0;

    while ((NVDLA_READ(device, word) & mask) != value)
        if (device->patience && ++reads >= device->patience)
            return -1;
    return 0;
}

static int do_step(const struct nvdla_step *step, struct nvdla_device *device)
{
    uint64_t address = device->bus[step->memory] + step->value;

    switch (step->kind) {
    case NVDLA_WRITE:
        NVDLA_WRITE(device, step->word, step->value);
        return 0;
    case NVDLA_ADDRESS_LOW:
        NVDLA_WRITE(device, step->word, (uint32_t)address);
        return 0;
    case NVDLA_ADDRESS_HIGH:
        NVDLA_WRITE(device, step->word, (uint32_t)(address >> 32));
        return 0;
    case NVDLA_POLL:
        return await(device, step->word, UINT32_MAX, step->value);
    case NVDLA_WAIT:
        return await(device, step->word, step->value, step->value);
    default:
        return -1;
    }
}

static uint32_t crc_of(const uint8_t *bytes, uint32_t size)
{
    uint32_t crc = UINT32_MAX;
    uint32_t i;
    int bit;

    for (i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (UINT32_C(0xedb88320) & (0u - (crc & 1u)));
    }
    return ~crc;
}

void nvdla_load(const struct nvdla_program *program, const struct nvdla_device *device)
{
    uint32_t i, j;

    for (i = 0; i < program->content_count; i++) {
        const struct nvdla_content *content = &program->contents[i];
        uint8_t *to = span_of(device, content->span);

        for (j = 0; j < content->span.size; j++)
            to[j] = content->bytes[j];
    }
    for (i = 0; i < program->result_count; i++)
        for (j = 0; j < program->results[i].span.size; j++)
            span_of(device, program->results[i].span)[j] = 0;
}

int nvdla_run(const struct nvdla_part *part, struct nvdla_device *device)
{
    uint32_t i;

    NVDLA_UNGATE(device);
    NVDLA_BARRIER(device);
    for (i = 0; i < part->count; i++)
        if (do_step(&part->steps[i], device)) {
            device->stopped_at = i;
            return -1;
        }
    NVDLA_BARRIER(device);
    return 0;
}

int nvdla_check(const struct nvdla_program *program, const struct nvdla_device *device)
{
    uint32_t i;
    int differ = 0;

    for (i = 0; i < program->result_count; i++) {
        struct nvdla_span span = program->results[i].span;

        differ += crc_of(span_of(device, span), span.size) != program->results[i].crc;
    }
    return differ;
}
