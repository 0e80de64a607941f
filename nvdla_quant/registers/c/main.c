/* Runs nvdla_program, and says whether the hardware leaves the bytes that it should: 0, 1 where it does not, 2 where it
 * stops, 3 where the processor has to compute what is not here.
 *
 * Compile with the addresses of the board, e.g.
 *   -DNVDLA_REGISTERS=0x10040000 -DNVDLA_DRAM=0x90000000 -DNVDLA_SRAM=0
 * for memories that processor and NVDLA see at the same addresses.
 */
#include "nvdla_program.h"

#ifndef NVDLA_PATIENCE
#define NVDLA_PATIENCE 0
#endif

int main(void)
{
    struct nvdla_device device = {
        (volatile uint32_t *)(uintptr_t)NVDLA_REGISTERS,
        {(uint8_t *)(uintptr_t)NVDLA_DRAM, (uint8_t *)(uintptr_t)NVDLA_SRAM},
        {NVDLA_DRAM, NVDLA_SRAM},
        NVDLA_PATIENCE,
        0,
    };
    uint32_t i;

    nvdla_load(&nvdla_program, &device);
    for (i = 0; i < nvdla_program.part_count; i++) {
        const struct nvdla_part *part = &nvdla_program.parts[i];

        if (part->cpu) {
            if (nvdla_softmax(part->cpu, &device))
                return 3;
        } else if (nvdla_run(part, &device)) {
            return 2;
        }
    }
    return nvdla_check(&nvdla_program, &device) ? 1 : 0;
}
