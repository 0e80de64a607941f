/* Softmax as nvdla/sw's runtime computes it (docs/hardware/cpu.md): over channels that stand side by side from the first
 * byte of the source, in single precision, rounded to halves with ties away from zero.
 */
#include "nvdla_program.h"

#include <math.h>

/* Halves have 11 significant bits, and no step below 2^-24. */
static float to_half(float value)
{
    int exponent;
    float step;

    (void)frexpf(value, &exponent);
    step = ldexpf(1.0f, exponent - 11 > -24 ? exponent - 11 : -24);
    return copysignf(floorf(fabsf(value) / step + 0.5f) * step, value);
}

static float from_bits(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    float fraction = (float)(bits & 1023);
    float value = exponent ? ldexpf(fraction + 1024.0f, exponent - 25) : ldexpf(fraction, -24);

    return bits & 0x8000 ? -value : value;
}

/* The bits of a half that is not negative and finite. */
static uint16_t to_bits(float half)
{
    int exponent;
    float fraction = frexpf(half, &exponent);

    if (exponent < -13)
        return (uint16_t)ldexpf(half, 24);
    return (uint16_t)((exponent + 13) * 1024 + (int)ldexpf(fraction, 11));
}

static float element(const struct nvdla_cpu *cpu, const uint8_t *source, uint32_t i)
{
    if (cpu->element_bytes == 2)
        return from_bits((uint16_t)(source[2 * i] | source[2 * i + 1] << 8));
    return to_half((float)(int8_t)source[i] * cpu->input_scale);
}

int nvdla_softmax(const struct nvdla_cpu *cpu, const struct nvdla_device *device)
{
    const uint8_t *source = device->memory[cpu->source.memory] + cpu->source.offset;
    uint8_t *destination = device->memory[cpu->destination.memory] + cpu->destination.offset;
    float largest, total = 0.0f;
    uint32_t i;

    if (cpu->operation != NVDLA_SOFTMAX)
        return -1;
    largest = element(cpu, source, 0);
    for (i = 1; i < cpu->channels; i++)
        largest = fmaxf(largest, element(cpu, source, i));
    for (i = 0; i < cpu->channels; i++)
        total += expf(element(cpu, source, i) - largest);
    for (i = 0; i < cpu->channels; i++) {
        float half = to_half(expf(element(cpu, source, i) - largest) / total);

        if (cpu->element_bytes == 2) {
            destination[2 * i] = (uint8_t)(to_bits(half) & 255);
            destination[2 * i + 1] = (uint8_t)(to_bits(half) >> 8);
        } else {
            destination[i] = (uint8_t)(int8_t)fminf(half / cpu->output_scale, 127.0f);
        }
    }
    return 0;
}
